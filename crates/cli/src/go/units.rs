//! Sizes and ages in the words of Docker's go-units.

/// Decimal, four digits: `1.235MB`.
pub(crate) fn human_size(bytes: f64) -> String {
    human_size_precision(bytes, 4)
}

/// Decimal with so many significant digits: `1.23MB`.
pub(crate) fn human_size_precision(bytes: f64, precision: usize) -> String {
    const UNITS: [&str; 9] = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
    scaled(bytes, 1000.0, &UNITS, precision)
}

/// Binary: `1.18MiB`.
pub(crate) fn bytes_size(bytes: f64) -> String {
    const UNITS: [&str; 9] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];
    scaled(bytes, 1024.0, &UNITS, 4)
}

fn scaled(mut size: f64, base: f64, units: &[&str], precision: usize) -> String {
    let mut unit = 0;
    while size >= base && unit < units.len() - 1 {
        size /= base;
        unit += 1;
    }
    format!("{}{}", general(size, precision), units[unit])
}

/// C's `%.<precision>g`.
fn general(value: f64, precision: usize) -> String {
    use gtmpl_ng::{FloatFormat, format_float};
    format_float(value, FloatFormat::General, Some(precision))
}

/// Reads a size with a binary unit, as for memory: `512m`, `1.5 GiB`, `1024`.
pub(crate) fn ram_in_bytes(text: &str) -> Result<i64, String> {
    let malformed = || format!("invalid size: '{text}'");
    let end = text
        .rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')
        .ok_or_else(malformed)?;
    let (number, suffix) = text.split_at(end + 1);
    // One space may stand between the number and its unit.
    let number = match number.strip_suffix(' ') {
        Some(number) if !suffix.is_empty() => number,
        Some(_) => return Err(malformed()),
        None => number,
    };
    let plain = number
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let size: f64 = if plain {
        number.parse().map_err(|_| malformed())?
    } else {
        return Err(malformed());
    };
    let factor = factor(suffix).ok_or_else(|| format!("invalid suffix: '{suffix}'"))?;
    let bytes = size * factor;
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if bytes >= LIMIT {
        return Err(format!("size is too large: '{text}'"));
    }
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the whole part fits: it was compared with 2^63"
    )]
    Ok(bytes as i64)
}

fn factor(suffix: &str) -> Option<f64> {
    let lower = suffix.to_ascii_lowercase();
    if lower.is_empty() || lower == "b" {
        return Some(1.0);
    }
    let (letter, rest) = lower.split_at_checked(1)?;
    let power = "kmgtp".find(letter)? + 1;
    matches!(rest, "" | "b" | "ib").then(|| 1024_f64.powi(i32::try_from(power).unwrap_or(0)))
}

/// An age in about one word: `2 hours`, `About a minute`.
pub(crate) fn human_duration(seconds: i64) -> String {
    let plural = |count: i64, unit: &str| format!("{count} {unit}");
    let minutes = seconds / 60;
    // Rounded to the nearest hour.
    let hours = (seconds + 1800).div_euclid(3600);
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => plural(seconds, "seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => plural(minutes, "minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => plural(hours, "hours"),
        () if hours < 24 * 7 * 2 => plural(hours / 24, "days"),
        () if hours < 24 * 30 * 2 => plural(hours / 24 / 7, "weeks"),
        () if hours < 24 * 365 * 2 => plural(hours / 24 / 30, "months"),
        () => plural(seconds / 3600 / 24 / 365, "years"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_gos_digits() {
        for (bytes, expected) in [
            (0.0, "0B"),
            (999.0, "999B"),
            (1000.0, "1kB"),
            (1024.0, "1.024kB"),
            (1_234_567.0, "1.235MB"),
            (999_999.0, "1000kB"),
            (3_420_000_000_000.0, "3.42TB"),
        ] {
            assert_eq!(human_size(bytes), expected);
        }
        assert_eq!(human_size_precision(4_261_000.0, 3), "4.26MB");
        assert_eq!(human_size_precision(100_000_000.0, 3), "100MB");
        assert_eq!(bytes_size(1_236_992.0), "1.18MiB");
        assert_eq!(bytes_size(25_000_000_000.0), "23.28GiB");
        assert_eq!(bytes_size(0.0), "0B");
    }

    #[test]
    fn sizes_are_read_with_binary_units() {
        for (text, bytes) in [
            ("32", 32),
            ("32b", 32),
            ("32k", 32 << 10),
            ("32KB", 32 << 10),
            ("32KiB", 32 << 10),
            ("32 Kib", 32 << 10),
            ("1.5g", 3 << 29),
            ("32.5kB", 33280),
            ("1p", 1 << 50),
            ("0.1k", 102),
        ] {
            assert_eq!(ram_in_bytes(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "k",
            "-1",
            " 1",
            "1 ",
            "1x",
            "1kx",
            "1kbb",
            "1..5",
            "1 2k",
            "99999999p",
            "\u{e4}",
        ] {
            assert!(ram_in_bytes(text).is_err(), "{text}");
        }
        assert_eq!(ram_in_bytes("1x").unwrap_err(), "invalid suffix: 'x'");
    }

    #[test]
    fn ages_round_as_docker_rounds() {
        for (seconds, expected) in [
            (-5, "Less than a second"),
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (5400, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (14 * 86400, "2 weeks"),
            (60 * 86400, "2 months"),
            (730 * 86400, "2 years"),
        ] {
            assert_eq!(human_duration(seconds), expected, "{seconds}");
        }
    }
}
