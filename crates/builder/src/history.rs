//! Steps in the words of BuildKit's history, which tools that look at images know. Pure.
//!
//! Source: images that Docker 28 has built. It prints by Go's `fmt` with `%q`: words in quotes with a space between, durations as
//! Go writes them, and a number as the character that has it.

use oci::image::Healthcheck;
use std::fmt::Write as _;

/// Words of a command: `["a" "b c"]`.
pub(crate) fn quoted(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quote(word, '"')).collect();
    format!("[{}]", words.join(" "))
}

/// A health check with its times.
pub(crate) fn healthcheck(check: &Healthcheck) -> String {
    let times = [
        check.interval,
        check.timeout,
        check.start_period,
        check.start_interval,
    ];
    let times = times.map(|time| quote(&duration(time), '"')).join(" ");
    let retries = u32::try_from(check.retries).ok().and_then(char::from_u32);
    let retries = retries.unwrap_or(char::REPLACEMENT_CHARACTER).to_string();
    let (test, retries) = (quoted(&check.test), quote(&retries, '\''));
    format!("HEALTHCHECK &{{{test} {times} {retries}}}")
}

/// A text in quotation marks, with what cannot be printed escaped.
fn quote(text: &str, mark: char) -> String {
    let mut quoted = String::from(mark);
    for c in text.chars() {
        match c {
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0c' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x0b' => quoted.push_str("\\v"),
            '\\' => quoted.push_str("\\\\"),
            c if c == mark => quoted.extend(['\\', c]),
            c if c.is_ascii_control() => {
                write!(quoted, "\\x{:02x}", u32::from(c)).expect("a string takes all");
            }
            c => quoted.push(c),
        }
    }
    quoted.push(mark);
    quoted
}

/// Nanoseconds as Go writes them: `1m30s`, `500ms`, `0s`.
fn duration(ns: i64) -> String {
    const SECOND: i64 = 1_000_000_000;
    if ns < SECOND {
        let (unit, size) = match ns {
            ..=0 => return "0s".to_owned(),
            1..1_000 => ("ns", 1),
            1_000..1_000_000 => ("µs", 1_000),
            _ => ("ms", 1_000_000),
        };
        return format!("{}{unit}", decimal(ns, size));
    }
    let (hours, minutes) = (ns / (3600 * SECOND), ns / (60 * SECOND) % 60);
    let seconds = decimal(ns % (60 * SECOND), SECOND);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// A number of units, with as many digits behind the point as it needs.
fn decimal(value: i64, unit: i64) -> String {
    let (whole, rest) = (value / unit, value % unit);
    if rest == 0 {
        return whole.to_string();
    }
    let digits = unit.ilog10() as usize;
    let rest = format!("{rest:0digits$}");
    format!("{whole}.{}", rest.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_as_go_quotes() {
        let words = ["sh", "a \"b\"", "c\\d\n\t\x01é"].map(str::to_owned);
        assert_eq!(quoted(&words), r#"["sh" "a \"b\"" "c\\d\n\t\x01é"]"#);
    }

    #[test]
    fn health_checks_are_told_with_their_times() {
        let check = Healthcheck {
            test: vec!["CMD".to_owned(), "x".to_owned()],
            interval: 90_000_000_000,
            timeout: 1_500_000_000,
            start_interval: 500_000_000,
            retries: 5,
            ..Healthcheck::default()
        };
        let told = r#"HEALTHCHECK &{["CMD" "x"] "1m30s" "1.5s" "0s" "500ms" '\x05'}"#;
        assert_eq!(healthcheck(&check), told);
        for (ns, text) in [(1, "1ns"), (1_500, "1.5µs"), (3_600_000_000_000, "1h0m0s")] {
            assert_eq!(duration(ns), text);
        }
    }
}
