//! Variables and quotes in the words of instructions, as the shell has them where Docker takes them over.
//!
//! Known are `$name`, `${name}` and, with a word after them, `:-` `-` `:+` `+` `:?` `?` `#` `##` `%` `%%` `/` `//`. Source: the
//! Dockerfile reference, "Environment replacement"; POSIX.1-2024 XCU 2.6.2.

use super::WORD_BYTES_MAX;
use patterns::Shell;

/// Variables within the words of variables.
const DEPTH_MAX: usize = 32;

/// What is wrong with a word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// It can, and wants a variable that has no value: `${a:?word}`.
    #[error("{0}")]
    Wanting(String),
}

type Result<T> = std::result::Result<T, ExpandError>;

fn fail<T>(message: impl Into<String>) -> Result<T> {
    Err(ExpandError::Unreadable(message.into()))
}

/// Replaces variables by what `lookup` has for them.
#[derive(Clone, Copy)]
pub struct Expander<'a> {
    /// The character that takes the meaning of the next one away: the `escape` directive's.
    pub escape: char,
    /// The value of a variable; `None` where it is not set.
    pub lookup: &'a dyn Fn(&str) -> Option<String>,
}

impl std::fmt::Debug for Expander<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Expander")
            .field("escape", &self.escape)
            .finish_non_exhaustive()
    }
}

impl Expander<'_> {
    /// One word: quotes are taken away, variables replaced. Blanks stay what they are.
    ///
    /// # Errors
    /// A quote or brace that is not closed, an operator that is none, a variable that `?` demands.
    pub fn word(&self, text: &str) -> Result<String> {
        let mut scanner = Scanner::new(self, text);
        scanner.until(None, false)?;
        Ok(scanner.words.concat())
    }

    /// Words, split at blanks outside of quotes, also at those that come out of variables.
    ///
    /// # Errors
    /// As [`Expander::word`].
    pub fn words(&self, text: &str) -> Result<Vec<String>> {
        let mut scanner = Scanner::new(self, text);
        scanner.splits = true;
        scanner.until(None, false)?;
        scanner.end_word();
        Ok(scanner.words)
    }

    /// A here-document: quotes mean nothing in it, and a backslash takes the meaning of the next character away, whatever the
    /// directive says.
    ///
    /// # Errors
    /// As [`Expander::word`].
    pub fn document(&self, text: &str) -> Result<String> {
        let expander = Expander {
            escape: '\\',
            ..*self
        };
        let mut scanner = Scanner::new(&expander, text);
        scanner.has_quotes = false;
        scanner.until(None, false)?;
        Ok(scanner.words.concat())
    }
}

struct Scanner<'a> {
    expander: &'a Expander<'a>,
    text: Vec<char>,
    at: usize,
    depth: usize,
    /// Blanks outside of quotes end words.
    splits: bool,
    /// Quotes mean something.
    has_quotes: bool,
    /// The word that is being made is the last, if it has begun.
    words: Vec<String>,
    begun: bool,
    bytes: usize,
}

impl<'a> Scanner<'a> {
    fn new(expander: &'a Expander<'a>, text: &str) -> Self {
        Self {
            expander,
            text: text.chars().collect(),
            at: 0,
            depth: 0,
            splits: false,
            has_quotes: true,
            words: Vec::new(),
            begun: false,
            bytes: 0,
        }
    }

    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    fn begin_word(&mut self) {
        if !self.begun {
            self.words.push(String::new());
            self.begun = true;
        }
    }

    fn end_word(&mut self) {
        self.begun = false;
    }

    fn push(&mut self, c: char) -> Result<()> {
        self.begin_word();
        self.bytes += c.len_utf8();
        if self.bytes > WORD_BYTES_MAX {
            return fail(format!("it would become more than {WORD_BYTES_MAX} bytes"));
        }
        self.words.last_mut().expect("a word has begun").push(c);
        Ok(())
    }

    /// Adds a variable's value; outside of quotes its blanks split.
    fn push_value(&mut self, value: &str, quoted: bool) -> Result<()> {
        for c in value.chars() {
            if self.splits && !quoted && c.is_whitespace() {
                self.end_word();
            } else {
                self.push(c)?;
            }
        }
        Ok(())
    }

    /// Reads up to a character outside of quotes, or the end. With `raw` escapes stay, for patterns.
    fn until(&mut self, stop: Option<char>, raw: bool) -> Result<()> {
        loop {
            let Some(c) = self.take() else {
                return match stop {
                    Some(stop) => fail(format!("syntax error: missing '{stop}'")),
                    None => Ok(()),
                };
            };
            match c {
                c if Some(c) == stop => return Ok(()),
                '\'' if self.has_quotes => self.single_quotes()?,
                '"' if self.has_quotes => self.double_quotes(raw)?,
                '$' => self.variable()?,
                c if c == self.expander.escape => {
                    if raw {
                        self.push(c)?;
                    }
                    if let Some(next) = self.take() {
                        self.push(next)?;
                    }
                }
                c if self.splits && c.is_whitespace() => self.end_word(),
                c => self.push(c)?,
            }
        }
    }

    fn single_quotes(&mut self) -> Result<()> {
        self.begin_word();
        loop {
            match self.take() {
                Some('\'') => return Ok(()),
                Some(c) => self.push(c)?,
                None => {
                    return fail(
                        "unexpected end of statement while looking for matching single-quote",
                    );
                }
            }
        }
    }

    /// With `raw` escapes stay, and those that mean nothing are doubled, so that they mean nothing in a pattern either.
    fn double_quotes(&mut self, raw: bool) -> Result<()> {
        const OPEN: &str = "unexpected end of statement while looking for matching double-quote";
        self.begin_word();
        loop {
            match self.take() {
                Some('"') => return Ok(()),
                Some('$') => {
                    let value = self.value()?;
                    self.push_value(&value, true)?;
                }
                Some(c) if c == self.expander.escape => match self.take() {
                    None => return fail(OPEN),
                    Some(next) => {
                        let is_escaped = matches!(next, '"' | '$') || next == c;
                        for _ in 0..usize::from(raw) + usize::from(!is_escaped) {
                            self.push(c)?;
                        }
                        self.push(next)?;
                    }
                },
                Some(c) => self.push(c)?,
                None => return fail(OPEN),
            }
        }
    }

    fn variable(&mut self) -> Result<()> {
        let value = self.value()?;
        self.push_value(&value, false)
    }

    /// What a variable is replaced by; the dollar is taken already.
    fn value(&mut self) -> Result<String> {
        if self.peek() != Some('{') {
            let name = self.name();
            return Ok(match name.as_str() {
                "" => "$".to_owned(),
                name => (self.expander.lookup)(name).unwrap_or_default(),
            });
        }
        self.at += 1;
        let name = self.name();
        if name.is_empty() {
            return fail("syntax error: bad substitution");
        }
        let value = (self.expander.lookup)(&name);
        match self.take() {
            Some('}') => Ok(value.unwrap_or_default()),
            Some(':') => match self.take() {
                Some(operator @ ('-' | '+' | '?')) => {
                    let set = value.filter(|value| !value.is_empty());
                    self.conditional(&name, operator, set, "is not allowed to be empty")
                }
                Some(other) => fail(format!(
                    "unsupported modifier (:{other}) in substitution of {name}"
                )),
                None => fail("syntax error: missing '}'"),
            },
            Some(operator @ ('-' | '+' | '?')) => {
                self.conditional(&name, operator, value, "is not allowed to be unset")
            }
            Some(side @ ('#' | '%')) => self.trimmed(side, &value.unwrap_or_default()),
            Some('/') => self.replaced(&value.unwrap_or_default()),
            Some(other) => fail(format!(
                "unsupported modifier ({other}) in substitution of {name}"
            )),
            None => fail("syntax error: missing '}'"),
        }
    }

    fn conditional(
        &mut self,
        name: &str,
        operator: char,
        value: Option<String>,
        missing: &str,
    ) -> Result<String> {
        let word = self.inner('}', false)?;
        match (operator, value) {
            ('-', value) => Ok(value.unwrap_or(word)),
            ('+', value) => Ok(value.map_or_else(String::new, |_| word)),
            (_, Some(value)) => Ok(value),
            (_, None) => {
                let why = if word.is_empty() { missing } else { &word };
                Err(ExpandError::Wanting(format!("{name}: {why}")))
            }
        }
    }

    fn trimmed(&mut self, side: char, value: &str) -> Result<String> {
        let longest = self.peek() == Some(side);
        self.at += usize::from(longest);
        let pattern = self.pattern('}')?;
        let trimmed = match side {
            '#' => pattern.without_prefix(value, longest),
            _ => pattern.without_suffix(value, longest),
        };
        trimmed.ok_or_else(|| ExpandError::Unreadable(TOO_LONG.to_owned()))
    }

    /// The replacement keeps its escapes, as Docker's has them.
    fn replaced(&mut self, value: &str) -> Result<String> {
        let all = self.peek() == Some('/');
        self.at += usize::from(all);
        let pattern = self.pattern('/')?;
        let replacement = self.inner('}', true)?;
        let replaced = pattern.replace(value, &replacement, all);
        replaced.ok_or_else(|| ExpandError::Unreadable(TOO_LONG.to_owned()))
    }

    /// The pattern after an operator, in which only what means something can be escaped.
    fn pattern(&mut self, stop: char) -> Result<Shell> {
        let text = self.inner(stop, true)?;
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            let escaped = (c == self.expander.escape).then(|| chars.next());
            if let Some(escaped) = escaped.filter(|it| it.is_none_or(|it| !"*?\\`}/".contains(it)))
            {
                let escaped = escaped.map_or_else(String::new, String::from);
                return fail(format!(
                    "invalid pattern ({text}) in substitution: invalid escape '{c}{escaped}'"
                ));
            }
        }
        Ok(Shell::new(&text, self.expander.escape))
    }

    /// The word after an operator, up to `stop`, with its own variables replaced.
    fn inner(&mut self, stop: char, raw: bool) -> Result<String> {
        if self.depth == DEPTH_MAX {
            return fail(format!(
                "more than {DEPTH_MAX} substitutions are within each other"
            ));
        }
        let mut inner = Scanner {
            expander: self.expander,
            text: std::mem::take(&mut self.text),
            at: self.at,
            depth: self.depth + 1,
            splits: false,
            has_quotes: self.has_quotes,
            words: Vec::new(),
            begun: false,
            bytes: 0,
        };
        let read = inner.until(Some(stop), raw);
        self.text = inner.text;
        self.at = inner.at;
        read?;
        Ok(inner.words.concat())
    }

    fn name(&mut self) -> String {
        let Some(first) = self.peek() else {
            return String::new();
        };
        let rest = self.text[self.at..].iter();
        // Letters are those of all languages.
        let part = |c: &&char| c.is_alphanumeric() || **c == '_';
        let length = match first {
            c if c.is_numeric() => rest.take_while(|c| c.is_numeric()).count(),
            c if c.is_alphabetic() || c == '_' => rest.take_while(part).count(),
            c => usize::from("@*#?-$!".contains(c)),
        };
        let name = self.text[self.at..][..length].iter().collect();
        self.at += length;
        name
    }
}

const TOO_LONG: &str = "the value is too long for this pattern";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lookup(name: &str) -> Option<String> {
        let value = match name {
            "a" => "1",
            "two" => "x y",
            "empty" => "",
            "path" => "/usr/lib/a.tar.gz",
            "HOME" => "/root",
            "é1x" => "umlaut",
            "stars" => "**",
            _ => return None,
        };
        Some(value.to_owned())
    }

    const EXPANDER: Expander<'_> = Expander {
        escape: '\\',
        lookup: &lookup,
    };

    #[test]
    fn words_are_expanded() {
        for (text, expected) in [
            ("plain", "plain"),
            ("$a", "1"),
            ("${a}b", "1b"),
            ("$ab", ""),
            ("a$", "a$"),
            ("$%", "$%"),
            ("\\$a", "$a"),
            ("'$a'", "$a"),
            ("\"$a\"", "1"),
            ("\"\\$a\\\"\\n\"", "$a\"\\n"),
            ("a\\b", "ab"),
            ("\"a'b'\"", "a'b'"),
            ("'a\\b'", "a\\b"),
            ("$two", "x y"),
            ("a b", "a b"),
            ("${a:-d}", "1"),
            ("${empty:-d}", "d"),
            ("${empty-d}", ""),
            ("${none-d}", "d"),
            ("${none:-$a}", "1"),
            ("${none:-${none:-deep}}", "deep"),
            ("${none:-'}'}", "}"),
            ("${a:+d}", "d"),
            ("${a+d}", "d"),
            ("${empty:+d}", ""),
            ("${empty+d}", "d"),
            ("${none+d}", ""),
            ("${a:?no}", "1"),
            ("${empty?no}", ""),
            ("${path#/*/}", "lib/a.tar.gz"),
            ("${path##*/}", "a.tar.gz"),
            ("${path%.*}", "/usr/lib/a.tar"),
            ("${path%%.*}", "/usr/lib/a"),
            ("${path#x}", "/usr/lib/a.tar.gz"),
            ("${path/a/b}", "/usr/lib/b.tar.gz"),
            ("${path//a/b}", "/usr/lib/b.tbr.gz"),
            ("${path/\\//-}", "-usr/lib/a.tar.gz"),
            ("${path//\\//-}", "-usr-lib-a.tar.gz"),
            ("${path//a*/$a}", "/usr/lib/1"),
            ("${path/a/\\/}", "/usr/lib/\\/.tar.gz"),
            ("${path/\"\\.\"/x}", "/usr/lib/a.tar.gz"),
            ("${stars##\"\\*\"}", "**"),
            ("$é1x $aé", "umlaut "),
            ("${é1x}", "umlaut"),
            ("$1", ""),
            ("${HOME}/x", "/root/x"),
            ("", ""),
        ] {
            assert_eq!(EXPANDER.word(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, expected) in [
            ("${none:?}", "none: is not allowed to be empty"),
            ("${none?}", "none: is not allowed to be unset"),
            ("${empty:?no such}", "empty: no such"),
            ("${a", "syntax error: missing '}'"),
            ("${a:-x", "syntax error: missing '}'"),
            ("${}", "syntax error: bad substitution"),
            ("${a:x}", "unsupported modifier (:x) in substitution of a"),
            ("${a^}", "unsupported modifier (^) in substitution of a"),
            ("${a/b}", "syntax error: missing '/'"),
            (
                "${a#\\1}",
                "invalid pattern (\\1) in substitution: invalid escape '\\1'",
            ),
            (
                "'a",
                "unexpected end of statement while looking for matching single-quote",
            ),
            (
                "\"a",
                "unexpected end of statement while looking for matching double-quote",
            ),
        ] {
            assert_eq!(
                EXPANDER.word(text).unwrap_err().to_string(),
                expected,
                "{text}"
            );
        }
        let deep = "${x:-".repeat(DEPTH_MAX + 2);
        assert!(
            EXPANDER
                .word(&deep)
                .unwrap_err()
                .to_string()
                .contains("within")
        );
    }

    #[test]
    fn variables_split_into_words_outside_of_quotes() {
        let words = |text| EXPANDER.words(text).unwrap();
        assert_eq!(words("a $two b"), ["a", "x", "y", "b"]);
        assert_eq!(words("\"$two\" ''"), ["x y", ""]);
        assert_eq!(words(" a$two "), ["ax", "y"]);
        assert_eq!(words("$none"), Vec::<String>::new());
    }

    #[test]
    fn documents_keep_their_quotes() {
        let document = |text| EXPANDER.document(text).unwrap();
        assert_eq!(
            document("'$a' \"${a}\" \\$a \\n \\\\\n"),
            "'1' \"1\" $a n \\\n"
        );
        assert_eq!(document("${none:-'q'}\\\n\\é\\"), "'q'\né");
        let backtick = Expander {
            escape: '`',
            ..EXPANDER
        };
        assert_eq!(backtick.document("`$a\\$a").unwrap(), "`1$a");
    }

    #[test]
    fn a_long_value_is_refused_instead_of_taking_forever() {
        let long = |_: &str| Some("a".repeat(100_000));
        let expander = Expander {
            escape: '\\',
            lookup: &long,
        };
        expander.word("${x//*b*b/}").unwrap_err();
        assert!(expander.word(&"$x".repeat(20)).is_err());
    }

    proptest! {
        #[test]
        fn quoted_text_is_itself(text in "[^'\0]{0,40}") {
            prop_assert_eq!(EXPANDER.word(&format!("'{text}'")).unwrap(), text);
        }

        #[test]
        fn no_text_panics(text in "[a-z$ {}:+?/%#'\"\\\\*-]{0,60}") {
            let _ = EXPANDER.word(&text);
            let _ = EXPANDER.words(&text);
            let _ = EXPANDER.document(&text);
        }
    }
}
