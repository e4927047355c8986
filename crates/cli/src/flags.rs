//! Flags as Docker's users type them: a table per command, and the parser that reads a command line by it.
//!
//! The rules are those of Go's pflag, which every script for Docker relies on: `--name value` and `--name=value`, `-n5`,
//! `-n=5` and `-it`, booleans that take a value only behind `=`, values that may start with a dash, `--` as the end of the
//! flags, and for some commands the first argument as their end. Clap reads several of these differently, so the table is
//! ours; help and completion come from the same table.

use crate::parse::check;
use std::collections::HashMap;

/// What a flag takes, which decides how its value is checked and how help names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    /// Text, last one wins. The name is help's.
    Text(&'static str),
    /// Text, each one counts.
    List(&'static str),
    /// Comma-separated texts, each one counts.
    Strings,
    Int,
    Uint,
    Uint16,
    /// `512m`.
    Bytes,
    /// As [`Kind::Bytes`], and -1.
    SwapBytes,
    /// `1m30s`.
    Duration,
    /// `1.5`.
    Decimal,
}

/// One flag.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flag {
    pub(crate) long: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) kind: Kind,
    pub(crate) help: &'static str,
    /// The value without the flag, where help shows it.
    pub(crate) default: &'static str,
    pub(crate) hidden: bool,
    /// Another flag whose values these are.
    alias_of: Option<&'static str>,
    /// Looks at each value as it comes.
    check: fn(&str) -> Result<(), String>,
}

impl Flag {
    const fn new(long: &'static str, kind: Kind, help: &'static str) -> Self {
        const fn any(_: &str) -> Result<(), String> {
            Ok(())
        }
        Self {
            long,
            short: None,
            kind,
            help,
            default: "",
            hidden: false,
            alias_of: None,
            check: any,
        }
    }

    pub(crate) const fn bool(long: &'static str, help: &'static str) -> Self {
        Self::new(long, Kind::Bool, help)
    }

    pub(crate) const fn text(long: &'static str, help: &'static str) -> Self {
        Self::new(long, Kind::Text("string"), help)
    }

    pub(crate) const fn list(long: &'static str, help: &'static str) -> Self {
        Self::new(long, Kind::List("list"), help)
    }

    pub(crate) const fn of(long: &'static str, kind: Kind, help: &'static str) -> Self {
        Self::new(long, kind, help)
    }

    pub(crate) const fn short(mut self, short: char) -> Self {
        self.short = Some(short);
        self
    }

    pub(crate) const fn default(mut self, default: &'static str) -> Self {
        self.default = default;
        self
    }

    pub(crate) const fn alias_of(mut self, long: &'static str) -> Self {
        self.alias_of = Some(long);
        self.hidden = true;
        self
    }

    /// Known, and not in help.
    pub(crate) const fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    pub(crate) const fn check(mut self, check: fn(&str) -> Result<(), String>) -> Self {
        self.check = check;
        self
    }

    /// `-e, --env`.
    fn display(&self) -> String {
        match self.short {
            Some(short) => format!("-{short}, --{}", self.long),
            None => format!("--{}", self.long),
        }
    }

    /// What help calls the value; nothing for a boolean.
    pub(crate) fn value_name(&self) -> &'static str {
        match self.kind {
            Kind::Bool => "",
            Kind::Text(name) | Kind::List(name) => name,
            Kind::Strings => "strings",
            Kind::Int => "int",
            Kind::Uint => "uint",
            Kind::Uint16 => "uint16",
            Kind::Bytes | Kind::SwapBytes => "bytes",
            Kind::Duration => "duration",
            Kind::Decimal => "decimal",
        }
    }

    fn validate(&self, value: &str) -> Result<(), FlagError> {
        let checked = match self.kind {
            Kind::Bool => check::bool(value).map(drop),
            Kind::Int => check::int(value).map(drop),
            Kind::Uint => check::uint(value).map(drop),
            Kind::Uint16 => check::uint16(value).map(drop),
            Kind::Bytes => check::bytes(value).map(drop),
            Kind::SwapBytes => check::swap_bytes(value).map(drop),
            Kind::Duration => check::duration(value).map(drop),
            Kind::Decimal => check::nano_cpus(value).map(drop),
            Kind::Text(_) | Kind::List(_) | Kind::Strings => Ok(()),
        };
        checked
            .and_then(|()| (self.check)(value))
            .map_err(|reason| FlagError::Invalid {
                value: value.to_owned(),
                flag: self.display(),
                reason,
            })
    }
}

/// A command line that does not fit the table.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FlagError {
    #[error("unknown flag: --{0}")]
    Unknown(String),
    #[error("unknown shorthand flag: '{0}' in -{1}")]
    UnknownShort(char, String),
    #[error("flag needs an argument: --{0}")]
    NeedsArgument(String),
    #[error("flag needs an argument: '{0}' in -{1}")]
    ShortNeedsArgument(char, String),
    #[error("bad flag syntax: {0}")]
    Syntax(String),
    #[error("invalid argument {value:?} for {flag:?} flag: {reason}")]
    Invalid {
        value: String,
        flag: String,
        reason: String,
    },
    #[error("argument {0:?} is not UTF-8")]
    NotUtf8(std::ffi::OsString),
}

/// A command line, read.
#[derive(Debug, Default)]
pub(crate) struct Matches {
    values: HashMap<&'static str, Vec<String>>,
    /// What is not a flag.
    pub(crate) args: Vec<String>,
    /// `--help` was there.
    pub(crate) help: bool,
}

impl Matches {
    /// Reads `args` by the `tables`. Without `interspersed` the first argument ends the flags.
    pub(crate) fn parse(
        tables: &[&'static [Flag]],
        args: &[String],
        interspersed: bool,
    ) -> Result<Self, FlagError> {
        let mut matches = Self::default();
        let mut rest = args.iter();
        while let Some(arg) = rest.next() {
            if arg == "--" {
                matches.args.extend(rest.by_ref().cloned());
            } else if let Some(long) = arg.strip_prefix("--") {
                matches.long(tables, long, &mut rest)?;
            } else if arg.starts_with('-') && arg.len() > 1 {
                matches.shorts(tables, &arg[1..], &mut rest)?;
            } else {
                matches.args.push(arg.clone());
                if !interspersed {
                    matches.args.extend(rest.by_ref().cloned());
                }
            }
            if matches.help {
                break;
            }
        }
        Ok(matches)
    }

    fn long<'a>(
        &mut self,
        tables: &[&'static [Flag]],
        long: &str,
        rest: &mut impl Iterator<Item = &'a String>,
    ) -> Result<(), FlagError> {
        let (name, attached) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (long, None),
        };
        if name.is_empty() || name.starts_with('-') {
            return Err(FlagError::Syntax(format!("--{long}")));
        }
        let Some(flag) = all(tables).find(|flag| flag.long == name) else {
            if name == "help" {
                self.help = true;
                return Ok(());
            }
            return Err(FlagError::Unknown(name.to_owned()));
        };
        let value = match (attached, flag.kind) {
            (Some(value), _) => value.to_owned(),
            (None, Kind::Bool) => "true".to_owned(),
            (None, _) => rest
                .next()
                .ok_or_else(|| FlagError::NeedsArgument(name.to_owned()))?
                .clone(),
        };
        self.set(flag, value)
    }

    /// `-it`, `-p80:80`, `-e=A=b`, `-e A=b`.
    fn shorts<'a>(
        &mut self,
        tables: &[&'static [Flag]],
        cluster: &str,
        rest: &mut impl Iterator<Item = &'a String>,
    ) -> Result<(), FlagError> {
        let mut letters = cluster;
        while let Some(letter) = letters.chars().next() {
            let after = &letters[letter.len_utf8()..];
            let Some(flag) = all(tables).find(|flag| flag.short == Some(letter)) else {
                if letter == 'h' {
                    self.help = true;
                    return Ok(());
                }
                return Err(FlagError::UnknownShort(letter, letters.to_owned()));
            };
            if let Some(value) = after.strip_prefix('=') {
                return self.set(flag, value.to_owned());
            }
            if flag.kind == Kind::Bool {
                self.set(flag, "true".to_owned())?;
                letters = after;
                continue;
            }
            let value = match after {
                "" => rest
                    .next()
                    .ok_or_else(|| FlagError::ShortNeedsArgument(letter, letters.to_owned()))?
                    .clone(),
                value => value.to_owned(),
            };
            return self.set(flag, value);
        }
        Ok(())
    }

    fn set(&mut self, flag: &Flag, value: String) -> Result<(), FlagError> {
        flag.validate(&value)?;
        let values = self
            .values
            .entry(flag.alias_of.unwrap_or(flag.long))
            .or_default();
        match flag.kind {
            Kind::List(_) => values.push(value),
            Kind::Strings => values.extend(value.split(',').map(str::to_owned)),
            _ => *values = vec![value],
        }
        Ok(())
    }

    /// Whether the flag is on the command line.
    pub(crate) fn given(&self, long: &str) -> bool {
        self.values.contains_key(long)
    }

    /// The value of a text flag, where given.
    pub(crate) fn get(&self, long: &str) -> Option<&str> {
        self.values.get(long)?.last().map(String::as_str)
    }

    /// The value of a text flag, or empty.
    pub(crate) fn text(&self, long: &str) -> &str {
        self.get(long).unwrap_or_default()
    }

    /// A boolean that is off without the flag.
    pub(crate) fn on(&self, long: &str) -> bool {
        self.get(long)
            .is_some_and(|value| check::bool(value) == Ok(true))
    }

    /// A boolean that is on without the flag.
    pub(crate) fn on_unless(&self, long: &str) -> bool {
        self.get(long)
            .is_none_or(|value| check::bool(value) == Ok(true))
    }

    /// All values of a list, in order.
    pub(crate) fn list(&self, long: &str) -> &[String] {
        self.values.get(long).map(Vec::as_slice).unwrap_or_default()
    }

    /// The value of a number, where given.
    pub(crate) fn int(&self, long: &str) -> Option<i64> {
        self.get(long).and_then(|value| check::int(value).ok())
    }

    /// The value of a size, where given.
    pub(crate) fn bytes(&self, long: &str) -> Option<i64> {
        self.get(long)
            .and_then(|value| check::swap_bytes(value).ok())
    }

    /// The value of a duration in nanoseconds, where given.
    pub(crate) fn duration(&self, long: &str) -> Option<i64> {
        self.get(long).and_then(|value| check::duration(value).ok())
    }
}

fn all(tables: &[&'static [Flag]]) -> impl Iterator<Item = &'static Flag> {
    tables.iter().flat_map(|table| table.iter())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TABLE: &[Flag] = &[
        Flag::bool("interactive", "").short('i'),
        Flag::bool("tty", "").short('t'),
        Flag::bool("rm", ""),
        Flag::list("env", "").short('e'),
        Flag::list("publish", "").short('p'),
        Flag::text("name", ""),
        Flag::of("cpu-shares", Kind::Int, "").short('c'),
        Flag::text("hostname", "").short('h'),
        Flag::list("net", "").alias_of("network"),
        Flag::list("network", ""),
        Flag::of("subnet", Kind::Strings, ""),
    ];

    fn parse(line: &str, interspersed: bool) -> Result<Matches, FlagError> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Matches::parse(&[TABLE], &args, interspersed)
    }

    #[test]
    fn clusters_and_attached_values() {
        let matches = parse(
            "-ite A=b -p80:80 -e=C=d --env E=f --env=G=h -h box img -x --rm",
            false,
        )
        .unwrap();
        assert!(matches.on("interactive") && matches.on("tty") && !matches.on("rm"));
        assert_eq!(matches.list("env"), ["A=b", "C=d", "E=f", "G=h"]);
        assert_eq!(matches.list("publish"), ["80:80"]);
        assert_eq!(matches.text("hostname"), "box");
        assert_eq!(matches.args, ["img", "-x", "--rm"]);
    }

    #[test]
    fn booleans_take_values_only_behind_an_equals_sign() {
        let matches = parse("--rm=false -t=0 -i false", true).unwrap();
        assert!(matches.given("rm") && !matches.on("rm") && !matches.on("tty"));
        assert!(matches.on("interactive"));
        assert_eq!(matches.args, ["false"]);
        assert!(matches!(
            parse("--rm=maybe", true),
            Err(FlagError::Invalid { .. })
        ));
    }

    #[test]
    fn values_may_look_like_flags_and_the_last_one_wins() {
        let matches = parse("--name --rm --name=-x -e -e -- --name y", true).unwrap();
        assert_eq!(matches.text("name"), "-x");
        assert_eq!(matches.list("env"), ["-e"]);
        assert!(!matches.on("rm"));
        assert_eq!(matches.args, ["--name", "y"]);
    }

    #[test]
    fn aliases_and_comma_lists_add_up() {
        let matches = parse("--net a --network b --subnet 1,2 --subnet 3", true).unwrap();
        assert_eq!(matches.list("network"), ["a", "b"]);
        assert_eq!(matches.list("subnet"), ["1", "2", "3"]);
    }

    #[test]
    fn mistakes_are_named_as_docker_names_them() {
        for (line, expected) in [
            ("--foo", "unknown flag: --foo"),
            ("--foo=1", "unknown flag: --foo"),
            ("-iz", "unknown shorthand flag: 'z' in -z"),
            ("--name", "flag needs an argument: --name"),
            ("-te", "flag needs an argument: 'e' in -e"),
            ("---x", "bad flag syntax: ---x"),
            ("--=x", "bad flag syntax: --=x"),
            (
                "-c x",
                "invalid argument \"x\" for \"-c, --cpu-shares\" flag: not a whole number",
            ),
        ] {
            assert_eq!(
                parse(line, true).unwrap_err().to_string(),
                expected,
                "{line}"
            );
        }
    }

    #[test]
    fn help_wins_over_what_follows() {
        assert!(parse("--help --foo", true).unwrap().help);
        assert!(!parse("img --help", false).unwrap().help);
        assert!(!parse("-- --help", true).unwrap().help);
    }

    proptest! {
        #[test]
        fn no_command_line_panics(args in proptest::collection::vec("[-=a-z\u{e4}]{0,6}", 0..6)) {
            let _ = Matches::parse(&[TABLE], &args, true);
        }
    }
}
