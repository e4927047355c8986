//! The command line as Go's flag package reads it, for which runc's callers write it.
//!
//! `-name value`, `--name value` and `--name=value` are the same; a switch is given alone or as `--name=true`; `--` ends the
//! flags. Flags may follow words unless the command's words are another program's.

use crate::error::{Error, Result};
use std::ffi::OsString;

/// A flag of a command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flag {
    pub(super) name: &'static str,
    pub(super) short: &'static str,
    /// What its value is called; empty for a switch.
    pub(super) value: &'static str,
    pub(super) help: &'static str,
}

/// A flag with a value.
pub(super) const fn valued(
    name: &'static str,
    short: &'static str,
    value: &'static str,
    help: &'static str,
) -> Flag {
    Flag {
        name,
        short,
        value,
        help,
    }
}

/// A flag without.
pub(super) const fn switch(name: &'static str, short: &'static str, help: &'static str) -> Flag {
    Flag {
        name,
        short,
        value: "",
        help,
    }
}

/// A command line, read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Arguments {
    flags: Vec<(&'static str, String)>,
    /// What is no flag.
    pub(super) words: Vec<String>,
}

impl Arguments {
    /// Reads up to the first word, or all; returns what was not read.
    pub(super) fn parse(
        mut rest: impl Iterator<Item = OsString>,
        flags: &[Flag],
        to_first_word: bool,
    ) -> Result<(Self, Vec<String>)> {
        let mut read = Self::default();
        let text = |argument: OsString| {
            argument.into_string().map_err(|argument| {
                Error::invalid(format!("the argument {argument:?} is not UTF-8"))
            })
        };
        while let Some(argument) = rest.next() {
            let argument = text(argument)?;
            let name = argument
                .strip_prefix("--")
                .or_else(|| argument.strip_prefix('-'));
            let Some(name) = name.filter(|_| argument.len() > 1) else {
                read.words.push(argument);
                if to_first_word {
                    break;
                }
                continue;
            };
            if name.is_empty() {
                break;
            }
            let (name, value) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (name, None),
            };
            let flag = flags
                .iter()
                .find(|flag| name == flag.name || name == flag.short);
            let flag = flag
                .ok_or_else(|| Error::invalid(format!("flag provided but not defined: -{name}")))?;
            let value = match (value, flag.value.is_empty()) {
                (Some(value), _) => value,
                (None, true) => "true".into(),
                (None, false) => {
                    let next = rest.next();
                    text(next.ok_or_else(|| {
                        Error::invalid(format!("flag needs an argument: -{name}"))
                    })?)?
                }
            };
            if flag.value.is_empty() && !matches!(value.as_str(), "true" | "false" | "1" | "0") {
                return Err(Error::invalid(format!(
                    "invalid boolean value {value:?} for -{name}"
                )));
            }
            read.flags.push((flag.name, value));
        }
        let rest = rest.map(text).collect::<Result<Vec<_>>>()?;
        Ok((read, rest))
    }

    /// The last value of a flag.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.values(name).last()
    }

    /// All values of a flag, in order.
    pub(super) fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.flags
            .iter()
            .filter(move |(flag, _)| *flag == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether a switch is on.
    pub(super) fn has(&self, name: &str) -> bool {
        self.value(name)
            .is_some_and(|value| matches!(value, "true" | "1"))
    }

    /// A flag's value as a number.
    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>> {
        let parse = |value: &str| {
            value
                .parse()
                .map_err(|_| Error::invalid(format!("invalid value {value:?} for -{name}")))
        };
        self.value(name).map(parse).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: [Flag; 3] = [
        valued("bundle", "b", "path", ""),
        switch("force", "f", ""),
        valued("env", "e", "x", ""),
    ];

    fn parse(line: &str, to_first_word: bool) -> Result<(Arguments, Vec<String>)> {
        Arguments::parse(
            line.split_whitespace().map(OsString::from),
            &FLAGS,
            to_first_word,
        )
    }

    #[test]
    fn both_dashes_and_both_ways_to_give_a_value() {
        for line in [
            "-b /x -f id",
            "--bundle=/x --force=true id",
            "id -bundle /x --f",
        ] {
            let (arguments, rest) = parse(line, false).unwrap();
            assert_eq!(arguments.value("bundle"), Some("/x"), "{line}");
            assert!(arguments.has("force") && rest.is_empty(), "{line}");
            assert_eq!(arguments.words, ["id"], "{line}");
        }
    }

    #[test]
    fn another_programs_flags_are_not_read() {
        let (arguments, rest) = parse("-e A=b -e C=d id ls -f --bundle x", true).unwrap();
        assert_eq!(arguments.values("env").collect::<Vec<_>>(), ["A=b", "C=d"]);
        assert_eq!((arguments.words, rest.len()), (vec!["id".to_owned()], 4));
    }

    #[test]
    fn two_dashes_end_the_flags() {
        let (arguments, rest) = parse("-f -- -x", false).unwrap();
        assert!(arguments.has("force") && arguments.words.is_empty());
        assert_eq!(rest, ["-x"]);
    }

    #[test]
    fn mistakes_are_errors() {
        for bad in ["--nope", "-b", "--force=maybe", "-f=2"] {
            assert!(parse(bad, false).is_err(), "{bad}");
        }
    }
}
