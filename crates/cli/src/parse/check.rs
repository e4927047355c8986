//! Single values: numbers, sizes, durations, as Go reads them.

use crate::go::{duration, units};

pub(crate) fn bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("neither true nor false".to_owned()),
    }
}

pub(crate) fn int(text: &str) -> Result<i64, String> {
    based(text)
        .and_then(|(negative, digits, base)| {
            let sign = if negative { "-" } else { "" };
            i64::from_str_radix(&format!("{sign}{digits}"), base).ok()
        })
        .ok_or_else(|| "not a whole number".to_owned())
}

pub(crate) fn uint(text: &str) -> Result<u64, String> {
    match based(text) {
        Some((false, digits, base)) if !text.starts_with('+') => {
            u64::from_str_radix(&digits, base).ok()
        }
        _ => None,
    }
    .ok_or_else(|| "not a whole number above or equal to zero".to_owned())
}

pub(crate) fn uint16(text: &str) -> Result<u16, String> {
    uint(text)?
        .try_into()
        .map_err(|_| "more than 65535".to_owned())
}

/// Sign, digits and base of a number as in Go's source: `0x10`, `0o17`, `017`, `0b1`, `1_000`.
fn based(text: &str) -> Option<(bool, String, u32)> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (digits, base) = match lower.get(..2) {
        Some("0x") => (&lower[2..], 16),
        Some("0o") => (&lower[2..], 8),
        Some("0b") => (&lower[2..], 2),
        _ if lower.len() > 1 && lower.starts_with('0') => (&lower[1..], 8),
        _ => (lower.as_str(), 10),
    };
    let first = digits.chars().next()?;
    first
        .is_ascii_alphanumeric()
        .then(|| (negative, digits.replace('_', ""), base))
}

pub(crate) fn bytes(text: &str) -> Result<i64, String> {
    units::ram_in_bytes(text)
}

pub(crate) fn swap_bytes(text: &str) -> Result<i64, String> {
    if text == "-1" {
        Ok(-1)
    } else {
        units::ram_in_bytes(text)
    }
}

pub(crate) fn duration(text: &str) -> Result<i64, String> {
    duration::parse(text)
}

/// CPUs as a decimal or a fraction (`1.5`, `3/2`) to 10^-9 CPUs.
pub(crate) fn nano_cpus(text: &str) -> Result<i64, String> {
    let malformed = || format!("failed to parse {text} as a rational number");
    let (numerator, denominator) = text.split_once('/').unwrap_or((text, "1"));
    let denominator: i128 = denominator.parse::<u32>().map_err(|_| malformed())?.into();
    let (negative, digits) = match numerator.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, numerator.strip_prefix('+').unwrap_or(numerator)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if denominator == 0
        || (whole.is_empty() && fraction.is_empty())
        || !plain(whole)
        || !plain(fraction)
    {
        return Err(malformed());
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 9 {
        return Err("more than nine decimal places".to_owned());
    }
    let scaled = format!("{whole}{fraction:0<9}");
    let scaled: i128 = scaled.parse().map_err(|_| malformed())?;
    if scaled % denominator != 0 {
        return Err("more than nine decimal places".to_owned());
    }
    let nanos = scaled / denominator * if negative { -1 } else { 1 };
    i64::try_from(nanos).map_err(|_| "too many CPUs".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_gos() {
        for (text, value) in [
            ("10", 10),
            ("-5", -5),
            ("+5", 5),
            ("0x10", 16),
            ("010", 8),
            ("0", 0),
            ("1_000", 1000),
        ] {
            assert_eq!(int(text), Ok(value), "{text}");
        }
        for text in [
            "",
            "-",
            "x",
            "1.5",
            "9223372036854775808",
            "--1",
            "0x",
            "1-",
        ] {
            assert!(int(text).is_err(), "{text}");
        }
        assert!(uint("-1").is_err() && uint16("65536").is_err());
        assert_eq!(uint16("65535"), Ok(65535));
    }

    #[test]
    fn cpus_are_exact() {
        for (text, nanos) in [
            ("1", 1_000_000_000),
            ("0.5", 500_000_000),
            (".5", 500_000_000),
            ("1.000000001", 1_000_000_001),
            ("3/2", 1_500_000_000),
            ("-1", -1_000_000_000),
            ("1.50000000000", 1_500_000_000),
        ] {
            assert_eq!(nano_cpus(text), Ok(nanos), "{text}");
        }
        for text in [
            "",
            ".",
            "x",
            "1e3",
            "0.0000000001",
            "1/3",
            "1/0",
            "99999999999999999999",
        ] {
            assert!(nano_cpus(text).is_err(), "{text}");
        }
    }
}
