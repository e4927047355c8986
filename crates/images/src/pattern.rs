//! Patterns of names, as `--filter reference=` takes them: Go's `path.Match` on familiar names.

use crate::{Error, Result};
use oci::Reference;

/// A valid pattern.
#[derive(Debug)]
pub(crate) struct Pattern {
    parts: Vec<Part>,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// This character.
    Char(char),
    /// `?`: any but a slash.
    Any,
    /// `*`: any number of any but slashes.
    Many,
    /// `[a-z]`, `[^a-z]`: one of, or none of, these ranges; never a slash.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Pattern {
    /// Parses a pattern.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let malformed = || Error::Argument(format!("{text:?} is a malformed pattern"));
        let mut parts = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(first) = chars.next() {
            parts.push(match first {
                // Several stars are one; more would only take time.
                '*' if parts.last() == Some(&Part::Many) => continue,
                '*' => Part::Many,
                '?' => Part::Any,
                '\\' => Part::Char(chars.next().ok_or_else(malformed)?),
                '[' => class(&mut chars).ok_or_else(malformed)?,
                other => Part::Char(other),
            });
        }
        Ok(Self { parts })
    }

    /// Whether the whole of a text matches.
    fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        // After each part: at which positions of the text the parts so far may end.
        let mut ends = vec![false; text.len() + 1];
        ends[0] = true;
        for part in &self.parts {
            let mut next = vec![false; text.len() + 1];
            for at in 0..=text.len() {
                if *part == Part::Many {
                    next[at] = ends[at] || (at > 0 && next[at - 1] && text[at - 1] != '/');
                } else if at > 0 {
                    next[at] = ends[at - 1] && part.matches(text[at - 1]);
                }
            }
            ends = next;
        }
        ends[text.len()]
    }
}

impl Part {
    fn matches(&self, c: char) -> bool {
        match self {
            Self::Char(expected) => c == *expected,
            Self::Any => c != '/',
            Self::Many => false,
            Self::Class { negated, ranges } => {
                c != '/' && ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }
        }
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

/// Whether a name matches: whole, or without its tag.
pub(crate) fn matches(pattern: &Pattern, name: &Reference) -> bool {
    pattern.matches(&name.familiar()) || pattern.matches(&name.familiar_name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_go() {
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
            let parsed = Pattern::parse(pattern).unwrap();
            assert_eq!(parsed.matches(text), expected, "{pattern:?} on {text:?}");
        }
        for pattern in ["[", "[]", "[a", "[a-", "[a-]", "[-a]", "\\", "[]a]"] {
            Pattern::parse(pattern).unwrap_err();
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = Pattern::parse(&"*a".repeat(100)).unwrap();
        assert!(!pattern.matches(&"a".repeat(99)));
    }
}
