//! Durations as Go writes them: `1m30s`.

const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration to nanoseconds.
pub(crate) fn parse(text: &str) -> Result<i64, String> {
    let malformed = || format!("invalid duration {text:?}");
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(malformed());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let number = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(|| format!("missing unit in duration {text:?}"))?;
        let (digits, after) = rest.split_at(number);
        let unit_len = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        let nanos = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, nanos)| *nanos)
            .ok_or_else(|| format!("unknown unit {unit:?} in duration {text:?}"))?;
        total += scale(digits, nanos).ok_or_else(malformed)?;
        rest = after;
    }
    let total = if negative { -total } else { total };
    i64::try_from(total).map_err(|_| malformed())
}

/// `digits`, which may have a fraction, times `nanos`.
fn scale(digits: &str, nanos: i128) -> Option<i128> {
    // Longer numbers are over the limit of any duration, or beyond a nanosecond's fraction.
    const DIGITS_MAX: usize = 19;
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if (whole.is_empty() && fraction.is_empty())
        || whole.len() > DIGITS_MAX
        || fraction.contains('.')
    {
        return None;
    }
    let whole: i128 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let fraction = &fraction[..fraction.len().min(DIGITS_MAX)];
    let part: i128 = if fraction.is_empty() {
        0
    } else {
        fraction.parse().ok()?
    };
    let power = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    Some(whole * nanos + part * nanos / power)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_gos() {
        for (text, nanos) in [
            ("0", 0),
            ("1s", 1_000_000_000),
            ("1m30s", 90_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("100ms", 100_000_000),
            ("-2us", -2_000),
            ("1h2m3s4ms5us6ns", 3_723_004_005_006),
        ] {
            assert_eq!(parse(text), Ok(nanos), "{text}");
        }
        for text in [
            "",
            "-",
            "1",
            "s",
            "1x",
            "1s2",
            "1..5s",
            ".s",
            "9999999999999999999h",
            "1 s",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[-+0-9.hmsnu\u{b5} ]{0,40}") {
            let _ = parse(&text);
        }
    }
}
