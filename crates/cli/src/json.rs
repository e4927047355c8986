//! JSON as text: the white space changes, the order of keys and the digits of numbers do not.

/// Removes white space between tokens. The text must be JSON.
pub(crate) fn compact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut strings = Strings::default();
    out.extend(
        json.chars()
            .filter(|c| strings.inside(*c) || !c.is_ascii_whitespace()),
    );
    out
}

/// Lays JSON out with one member a line, a `unit` deeper at each level, as Go does.
pub(crate) fn indent(json: &str, unit: &str) -> String {
    let compact = compact(json);
    let mut out = String::with_capacity(compact.len() * 2);
    let mut strings = Strings::default();
    let mut depth = 0;
    let mut chars = compact.chars().peekable();
    while let Some(c) = chars.next() {
        if strings.inside(c) {
            out.push(c);
            continue;
        }
        match c {
            '{' | '[' => {
                out.push(c);
                if let Some(close) = chars.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    new_line(&mut out, depth, unit);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth, unit);
                out.push(c);
            }
            ',' => {
                out.push(c);
                new_line(&mut out, depth, unit);
            }
            ':' => out.push_str(": "),
            c => out.push(c),
        }
    }
    out
}

fn new_line(out: &mut String, depth: usize, unit: &str) {
    out.push('\n');
    out.extend(std::iter::repeat_n(unit, depth));
}

/// Knows which characters are inside a string, its quotes included.
#[derive(Default)]
struct Strings {
    open: bool,
    escaped: bool,
}

impl Strings {
    fn inside(&mut self, c: char) -> bool {
        if !self.open {
            self.open = c == '"';
            return self.open;
        }
        match c {
            _ if self.escaped => self.escaped = false,
            '\\' => self.escaped = true,
            '"' => self.open = false,
            _ => {}
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_white_space_changes() {
        let json = r#"{ "z": [1, {"a\" : [": 1e400}, [], { }], "b" : "x\\", "c":null }"#;
        assert_eq!(
            compact(json),
            r#"{"z":[1,{"a\" : [":1e400},[],{}],"b":"x\\","c":null}"#
        );
        let expected = "{\n    \"z\": [\n        1,\n        {\n            \"a\\\" : [\": 1e400\n        },\n        [],\n        {}\n    ],\n    \"b\": \"x\\\\\",\n    \"c\": null\n}";
        assert_eq!(indent(json, "    "), expected);
        assert_eq!(indent("[]", "    "), "[]");
    }
}
