//! The flags of an instruction (`--name=value`), and what follows them.

use super::lines::Logical;
use super::suggest;

/// What is wrong with an instruction, by the offset in its logical line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) offset: usize,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

pub(crate) type Parsed<T> = Result<T, Wrong>;

impl Wrong {
    pub(crate) fn at(offset: usize, message: impl Into<String>) -> Self {
        Self {
            offset,
            message: message.into(),
            hint: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Flag {
    name: String,
    value: Option<String>,
    offset: usize,
}

/// An instruction's parts: its word, its flags, and the rest.
#[derive(Debug, Clone)]
pub(crate) struct Arguments<'a> {
    /// The instruction in capitals.
    pub(crate) word: String,
    /// What is after the flags.
    pub(crate) rest: &'a str,
    /// Where that is in the logical line.
    pub(crate) offset: usize,
    /// The character that escapes.
    pub(crate) escape: char,
    /// The line that all this is of.
    pub(crate) line: &'a Logical,
    flags: Vec<Flag>,
}

impl<'a> Arguments<'a> {
    /// Takes a line apart that is not empty.
    pub(crate) fn new(line: &'a Logical, escape: char) -> Self {
        let text = line.text.as_str();
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        let (flags, offset) = flags(text, end, escape);
        Self {
            word: text[..end].to_ascii_uppercase(),
            rest: &text[offset..],
            offset,
            escape,
            line,
            flags,
        }
    }

    /// What the rest says of an instruction of its own, whose flags are not taken from it.
    pub(crate) fn trigger(&self) -> Self {
        let end = self.rest.find(char::is_whitespace);
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        let rest = rest.trim_start();
        Self {
            word: word.to_ascii_uppercase(),
            offset: self.offset + self.rest.len() - rest.len(),
            rest,
            flags: Vec::new(),
            ..self.clone()
        }
    }

    pub(crate) fn wrong(&self, message: impl Into<String>) -> Wrong {
        Wrong::at(self.offset, message)
    }

    /// Fails on flags that are not among `known`, and on those that occur again without being in `several`.
    pub(crate) fn check_flags(&self, known: &[&str], several: &[&str]) -> Parsed<()> {
        for (at, flag) in self.flags.iter().enumerate() {
            let name = flag.name.as_str();
            if !known.contains(&name) && !several.contains(&name) {
                let message = format!("unknown flag: --{name}");
                let hint = suggest::hint(name, known.iter().chain(several).copied());
                let hint = hint.map(|hint| hint.replace("mean ", "mean --"));
                return Err(Wrong {
                    hint,
                    ..Wrong::at(flag.offset, message)
                });
            }
            let again = self.flags[..at].iter().any(|other| other.name == name);
            if again && !several.contains(&name) {
                return Err(Wrong::at(
                    flag.offset,
                    format!("duplicate flag specified: --{name}"),
                ));
            }
        }
        Ok(())
    }

    /// The values of a flag with their offsets.
    pub(crate) fn values(&self, name: &str) -> Parsed<Vec<(String, usize)>> {
        let flags = self.flags.iter().filter(|flag| flag.name == name);
        flags
            .map(|flag| match &flag.value {
                Some(value) => Ok((value.clone(), flag.offset)),
                None => Err(Wrong::at(
                    flag.offset,
                    format!("missing a value on flag: --{name}"),
                )),
            })
            .collect()
    }

    /// The value of a flag that occurs once at most.
    pub(crate) fn value(&self, name: &str) -> Parsed<Option<String>> {
        Ok(self.values(name)?.pop().map(|(value, _)| value))
    }

    /// A flag that is there or not, or says so; `None` where it is absent.
    pub(crate) fn switch(&self, name: &str) -> Parsed<Option<bool>> {
        let Some(flag) = self.flags.iter().find(|flag| flag.name == name) else {
            return Ok(None);
        };
        match flag.value.as_deref() {
            None | Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(other) => {
                let message = format!("expecting boolean value for flag --{name}, not: {other}");
                Err(Wrong::at(flag.offset, message))
            }
        }
    }

    /// The words after the flags, split at blanks alone.
    pub(crate) fn fields(&self) -> Vec<String> {
        self.rest.split_whitespace().map(str::to_owned).collect()
    }

    /// The words of a JSON array after the flags; `None` where there is none.
    pub(crate) fn json(&self) -> Parsed<Option<Vec<String>>> {
        json(self.rest).map_err(|message| self.wrong(message))
    }
}

/// Strings of a JSON array. What is no JSON at all is text for a shell.
pub(crate) fn json(text: &str) -> Result<Option<Vec<String>>, &'static str> {
    if !text.trim_start().starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else {
        return Ok(None);
    };
    let strings = values.into_iter().map(|value| match value {
        serde_json::Value::String(text) => Some(text),
        _ => None,
    });
    match strings.collect() {
        Some(strings) => Ok(Some(strings)),
        None => Err("when using JSON array syntax, arrays must be comprised of strings only"),
    }
}

/// Reads flags from `at` on; returns them and where the rest begins.
fn flags(text: &str, mut at: usize, escape: char) -> (Vec<Flag>, usize) {
    let mut flags = Vec::new();
    loop {
        at = text.len() - text[at..].trim_start().len();
        if !text[at..].starts_with("--") {
            return (flags, at);
        }
        let (word, end) = unquoted(text, at, escape);
        if word == "--" {
            return (flags, text.len() - text[end..].trim_start().len());
        }
        let (name, value) = match word[2..].split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (&word[2..], None),
        };
        flags.push(Flag {
            name: name.to_owned(),
            value,
            offset: at,
        });
        at = end;
    }
}

/// The word at `at` without its quotes, and where it ends.
fn unquoted(text: &str, at: usize, escape: char) -> (String, usize) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text[at..].char_indices();
    while let Some((offset, c)) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => return (word, at + offset),
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            // Before a dollar it has to be there still when variables are replaced.
            (_, c) if c == escape => match chars.next() {
                Some((_, '$')) => word.extend([escape, '$']),
                Some((_, next)) => word.push(next),
                None => {}
            },
            (_, c) => word.push(c),
        }
    }
    (word, text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::lines;

    fn with<T>(text: &str, check: impl FnOnce(Arguments<'_>) -> T) -> T {
        let line = lines::read(text, '\\').unwrap().remove(0);
        check(Arguments::new(&line, '\\'))
    }

    #[test]
    fn flags_end_where_the_rest_begins() {
        with(
            "copy  --from=a --chown='x y' --link  src --no dst",
            |arguments| {
                assert_eq!(arguments.word, "COPY");
                assert_eq!(arguments.value("from").unwrap().unwrap(), "a");
                assert_eq!(arguments.value("chown").unwrap().unwrap(), "x y");
                assert_eq!(arguments.switch("link").unwrap(), Some(true));
                assert_eq!(arguments.rest, "src --no dst");
                let error = arguments
                    .check_flags(&["form", "chown", "link"], &[])
                    .unwrap_err();
                assert_eq!(error.message, "unknown flag: --from");
                assert_eq!(error.hint.unwrap(), "did you mean --form?");
                assert_eq!(error.offset, 6);
            },
        );
        with("RUN -- --x", |arguments| assert_eq!(arguments.rest, "--x"));
        with("RUN --a\\ b=c d", |arguments| {
            assert_eq!(arguments.value("a b").unwrap().unwrap(), "c");
        });
        with("RUN --mount x", |arguments| {
            arguments.values("mount").unwrap_err()
        });
        with("RUN --a=1 --a=2 x", |arguments| {
            arguments.check_flags(&["a"], &[]).unwrap_err();
            arguments.check_flags(&[], &["a"]).unwrap();
        });
    }

    #[test]
    fn json_is_strings_or_none() {
        assert_eq!(json("[\"a\", \"b\"]").unwrap().unwrap(), ["a", "b"]);
        assert_eq!(json("[]").unwrap().unwrap(), Vec::<String>::new());
        assert_eq!(json("[ -f x ]").unwrap(), None);
        assert_eq!(json("['a']").unwrap(), None);
        assert_eq!(json("echo []").unwrap(), None);
        json("[1]").unwrap_err();
    }
}
