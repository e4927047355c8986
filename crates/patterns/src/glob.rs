//! Patterns: those of file names in COPY, ADD and `.dockerignore`, and those of the shell in `${name#pattern}`.
//!
//! Both are matched by following all ways at once, so that no pattern takes more than its length times that of the text.

/// A step of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Char(char),
    /// Any character, but not a slash where those are special.
    Any,
    /// Any number of those.
    Many,
    /// One of, or none of, these ranges.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// `**`: any number of any characters.
    Everything,
    /// `**/`: nothing, or any directories with their slash.
    Directories,
}

/// Positions that a pattern may have reached: after each of the characters, from the start on.
type Reached = Vec<bool>;

impl Part {
    fn takes(&self, c: char, slashes: bool) -> bool {
        match self {
            Self::Char(expected) => c == *expected,
            Self::Any | Self::Many => !(slashes && c == '/'),
            Self::Class { negated, ranges } => {
                let inside = ranges.iter().any(|(low, high)| (*low..=*high).contains(&c));
                !(slashes && c == '/') && inside != *negated
            }
            Self::Everything | Self::Directories => true,
        }
    }

    /// Where one may be after this part, having been at `from`.
    fn step(&self, text: &[char], from: &Reached, slashes: bool) -> Reached {
        let mut to = vec![false; text.len() + 1];
        match self {
            Self::Many | Self::Everything => {
                for at in 0..=text.len() {
                    to[at] =
                        from[at] || (at > 0 && to[at - 1] && self.takes(text[at - 1], slashes));
                }
            }
            Self::Directories => {
                let mut inside = false;
                for at in 0..=text.len() {
                    to[at] = from[at] || (inside && at > 0 && text[at - 1] == '/');
                    inside |= from[at];
                }
            }
            _ => {
                for at in 0..text.len() {
                    to[at + 1] = from[at] && self.takes(text[at], slashes);
                }
            }
        }
        to
    }
}

fn reach(parts: &[Part], text: &[char], slashes: bool) -> Reached {
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    for part in parts {
        reached = part.step(text, &reached, slashes);
        if !reached.contains(&true) {
            break;
        }
    }
    reached
}

/// A pattern of paths as Go's `filepath.Match` has them, with `**` as Docker adds it where `new` is told so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    parts: Vec<Part>,
}

impl Pattern {
    /// Parses a pattern. With `double_star`, `**` spans directories; without, it is what `*` is.
    ///
    /// # Errors
    /// `None` where it is malformed: a class that is not closed or empty, an escape at the end.
    pub fn new(text: &str, double_star: bool) -> Option<Self> {
        let mut parts = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let part = match c {
                '*' if double_star && chars.next_if_eq(&'*').is_some() => {
                    // More stars add nothing.
                    while chars.next_if_eq(&'*').is_some() {}
                    match chars.next_if_eq(&'/') {
                        Some(_) => Part::Directories,
                        None => Part::Everything,
                    }
                }
                '*' if parts.last() == Some(&Part::Many) => continue,
                '*' => Part::Many,
                '?' => Part::Any,
                '\\' => Part::Char(chars.next()?),
                '[' => class(&mut chars)?,
                other => Part::Char(other),
            };
            parts.push(part);
        }
        Some(Self { parts })
    }

    /// Whether the whole of a path matches.
    pub fn matches(&self, path: &str) -> bool {
        let text: Vec<char> = path.chars().collect();
        reach(&self.parts, &text, true)[text.len()]
    }

    /// Whether a path or one of the directories it is in matches.
    pub fn matches_or_holds(&self, path: &str) -> bool {
        let text: Vec<char> = path.chars().collect();
        let reached = reach(&self.parts, &text, true);
        let ends = |at: usize| at == text.len() || (at > 0 && text[at] == '/');
        (0..=text.len()).any(|at| reached[at] && ends(at))
    }

    /// Whether something below a directory could match.
    pub fn may_match_below(&self, directory: &str) -> bool {
        let mut text: Vec<char> = directory.chars().collect();
        text.push('/');
        let mut reached = vec![false; text.len() + 1];
        reached[0] = true;
        for part in &self.parts {
            reached = part.step(&text, &reached, true);
            // Having passed the slash with parts to go, the rest may match what follows.
            if reached[text.len()] {
                return true;
            }
        }
        false
    }
}

/// The rest of a class, after its bracket.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Part> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        let low = match chars.next()? {
            ']' if !ranges.is_empty() => return Some(Part::Class { negated, ranges }),
            '\\' => chars.next()?,
            ']' | '-' => return None,
            other => other,
        };
        let high = match chars.next_if_eq(&'-') {
            None => low,
            Some(_) => match chars.next()? {
                '\\' => chars.next()?,
                ']' | '-' => return None,
                other => other,
            },
        };
        ranges.push((low, high));
    }
}

/// Length of the text, squared, times that of the pattern: as much as matching one anywhere in a value may take.
const SHELL_STEPS_MAX: usize = 1 << 28;

/// A pattern of the shell's, of which only `*` and `?` are special.
#[derive(Debug)]
pub struct Shell {
    parts: Vec<Part>,
}

impl Shell {
    /// Reads a pattern. `escape` takes the meaning of the next character away.
    pub fn new(text: &str, escape: char) -> Self {
        let mut chars = text.chars();
        let mut parts = Vec::new();
        while let Some(c) = chars.next() {
            parts.push(match c {
                '*' if parts.last() == Some(&Part::Many) => continue,
                '*' => Part::Many,
                '?' => Part::Any,
                c if c == escape => Part::Char(chars.next().unwrap_or(c)),
                other => Part::Char(other),
            });
        }
        Self { parts }
    }

    /// The value without what matches at its beginning. `None`: it is too long.
    pub fn without_prefix(&self, value: &str, longest: bool) -> Option<String> {
        let text = self.bounded(value)?;
        let end = self.end(&text, longest).unwrap_or(0);
        Some(text[end..].iter().collect())
    }

    /// The value without what matches at its end. `None`: it is too long.
    pub fn without_suffix(&self, value: &str, longest: bool) -> Option<String> {
        let mut text = self.bounded(value)?;
        text.reverse();
        let reversed = Self {
            parts: self.parts.iter().rev().cloned().collect(),
        };
        let end = reversed.end(&text, longest).unwrap_or(0);
        Some(text[end..].iter().rev().collect())
    }

    /// The value with what matches replaced, the longest at each place. `None`: it is too long.
    pub fn replace(&self, value: &str, by: &str, all: bool) -> Option<String> {
        let text = self.bounded(value)?;
        let mut replaced = String::new();
        let (mut at, mut done) = (0, self.parts.is_empty());
        while at < text.len() {
            let found = match done {
                true => None,
                false => self.end(&text[at..], true).filter(|end| *end > 0),
            };
            match found {
                Some(length) => {
                    replaced.push_str(by);
                    at += length;
                    done = !all;
                }
                None => {
                    replaced.push(text[at]);
                    at += 1;
                }
            }
        }
        Some(replaced)
    }

    fn bounded(&self, value: &str) -> Option<Vec<char>> {
        let text: Vec<char> = value.chars().collect();
        let steps = text.len().checked_mul(text.len())?;
        let steps = steps.checked_mul(self.parts.len())?;
        (steps <= SHELL_STEPS_MAX).then_some(text)
    }

    /// How long the match at the beginning of a text is.
    fn end(&self, text: &[char], longest: bool) -> Option<usize> {
        let reached = reach(&self.parts, text, false);
        match longest {
            true => reached.iter().rposition(|reached| *reached),
            false => reached.iter().position(|reached| *reached),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_in_go() {
        for (pattern, text, expected) in [
            ("busybox", "busybox", true),
            ("busy*", "busybox", true),
            ("*", "user/app", false),
            ("*/*", "user/app", true),
            ("busybox:*", "busybox:1.36", true),
            ("b?sy", "busy", true),
            ("a?b", "a/b", false),
            ("a[/]b", "a/b", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("\\*", "*", true),
            ("a*b*c", "aXbXbc", true),
            ("", "", true),
            ("", "a", false),
        ] {
            let parsed = Pattern::new(pattern, false).unwrap();
            assert_eq!(parsed.matches(text), expected, "{pattern:?} on {text:?}");
        }
        for pattern in ["[", "[]", "[a", "[a-", "[a-]", "[-a]", "\\", "[]a]"] {
            assert_eq!(Pattern::new(pattern, false), None, "{pattern:?}");
        }
        let stars = Pattern::new(&"*a".repeat(100), false).unwrap();
        assert!(!stars.matches(&"a".repeat(99)));
    }

    #[test]
    fn patterns_match_as_dockers() {
        for (pattern, path, expected) in [
            ("a*", "abc", true),
            ("a*", "a/c", false),
            ("*/b", "a/b", true),
            ("**", "a/b/c", true),
            ("**/c", "a/b/c", true),
            ("**/c", "c", true),
            ("**/c", "bc", false),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("a/**/c", "a/c", true),
            ("a/**/c", "a/x/y/c", true),
            ("a**c", "a/b/c", true),
            ("a?c", "a/c", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("\\*", "*", true),
            ("a[/]b", "a/b", false),
        ] {
            let parsed = Pattern::new(pattern, true).unwrap();
            assert_eq!(parsed.matches(path), expected, "{pattern} on {path}");
        }
        for bad in ["[", "[]", "[a", "\\", "[a-]"] {
            assert_eq!(Pattern::new(bad, true), None, "{bad}");
        }
    }

    #[test]
    fn directories_of_matches_are_known() {
        let may = |pattern: &str, directory: &str| {
            Pattern::new(pattern, true)
                .unwrap()
                .may_match_below(directory)
        };
        assert!(may("a/b/c", "a"));
        assert!(may("a/b/c", "a/b"));
        assert!(!may("a/b/c", "a/x"));
        assert!(!may("a", "a"));
        assert!(may("**/c", "x/y"));
        assert!(may("*/c", "x"));
        assert!(!may("*/c", "x/y"));
        let holds =
            |pattern: &str, path: &str| Pattern::new(pattern, true).unwrap().matches_or_holds(path);
        assert!(holds("a", "a/b/c"));
        assert!(holds("a/*", "a/b/c"));
        assert!(!holds("a/b", "a"));
        assert!(!holds("a", "ab"));
    }
}
