//! Times as Docker's command line prints and reads them.

use crate::go::{duration, units};
use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, civil};
use std::sync::LazyLock;

/// The local time zone, which is looked for once.
static ZONE: LazyLock<TimeZone> = LazyLock::new(TimeZone::system);

/// `2006-01-02 15:04:05 -0700 MST` in the local time zone.
pub(crate) fn local(seconds: i64) -> String {
    match Timestamp::from_second(seconds) {
        Ok(time) => {
            let zone = ZONE.clone();
            let name = zone.to_offset_info(time).abbreviation().to_owned();
            format!(
                "{} {name}",
                time.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S %z")
            )
        }
        Err(_) => seconds.to_string(),
    }
}

/// An RFC 3339 time as Go prints one, in its own offset: `2006-01-02 15:04:05.999999999 -0700 MST`. Other text stays.
pub(crate) fn go_string(text: &str) -> String {
    let Ok(time) = text.parse::<Timestamp>() else {
        return text.to_owned();
    };
    let pieces = jiff::fmt::temporal::Pieces::parse(text).ok();
    let offset = pieces
        .and_then(|pieces| pieces.to_numeric_offset())
        .unwrap_or(Offset::UTC);
    let zoned = time.to_zoned(TimeZone::fixed(offset));
    let numeric = zoned.strftime("%z").to_string();
    let name = if offset == Offset::UTC {
        "UTC"
    } else {
        &numeric
    };
    format!(
        "{} {numeric} {name}",
        zoned.strftime("%Y-%m-%d %H:%M:%S%.f")
    )
}

/// RFC 3339 in the local time zone, with nanoseconds.
pub(crate) fn local_rfc3339(nanos: i64) -> String {
    match Timestamp::from_nanosecond(nanos.into()) {
        Ok(time) => {
            let zoned = time.to_zoned(ZONE.clone());
            let offset = match zoned.offset().seconds() {
                0 => "Z".to_owned(),
                _ => zoned.strftime("%:z").to_string(),
            };
            format!("{}{offset}", zoned.strftime("%Y-%m-%dT%H:%M:%S%.9f"))
        }
        Err(_) => nanos.to_string(),
    }
}

/// RFC 3339 in the local time zone, with seconds.
pub(crate) fn local_rfc3339_seconds(seconds: i64) -> String {
    match Timestamp::from_second(seconds) {
        Ok(time) => {
            let zoned = time.to_zoned(ZONE.clone());
            let offset = match zoned.offset().seconds() {
                0 => "Z".to_owned(),
                _ => zoned.strftime("%:z").to_string(),
            };
            format!("{}{offset}", zoned.strftime("%Y-%m-%dT%H:%M:%S"))
        }
        Err(_) => seconds.to_string(),
    }
}

/// `2 hours ago`.
pub(crate) fn ago(seconds: i64) -> String {
    format!(
        "{} ago",
        units::human_duration(Timestamp::now().as_second() - seconds)
    )
}

/// As [`ago`] for an RFC 3339 time. Other text stays.
pub(crate) fn since(text: &str) -> String {
    text.parse::<Timestamp>()
        .map_or_else(|_| text.to_owned(), |time| ago(time.as_second()))
}

/// Reads `--since` and `--until`: seconds since the epoch (with a fraction), a duration before now, or a date and time. The
/// result is what goes on the wire, `seconds` or `seconds.nanos`.
pub(crate) fn moment(text: &str, now: Timestamp) -> Result<String, String> {
    if let Ok(before) = duration::parse(text) {
        let nanos = now.as_nanosecond() - i128::from(before);
        return Timestamp::from_nanosecond(nanos)
            .map(wire)
            .map_err(|_| format!("{text:?} ago is before any time that can be told"));
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(wire(time));
    }
    // Without an offset a time is the local zone's; missing parts are zero.
    const FORMATS: [&str; 4] = [
        "%Y-%m-%dT%H:%M:%S%.f",
        "%Y-%m-%dT%H:%M",
        "%Y-%m-%dT%H",
        "%Y-%m-%d",
    ];
    for format in FORMATS {
        let Ok(parts) = jiff::fmt::strtime::parse(format, text) else {
            continue;
        };
        let time = match (parts.to_datetime(), parts.to_date()) {
            (Ok(time), _) => time,
            (Err(_), Ok(date)) => {
                let hour = parts.hour().unwrap_or(0);
                civil::DateTime::from_parts(date, civil::time(hour, 0, 0, 0))
            }
            _ => continue,
        };
        if let Ok(zoned) = time.to_zoned(ZONE.clone()) {
            return Ok(wire(zoned.timestamp()));
        }
    }
    let number = text.split_once('.').unwrap_or((text, "0"));
    if number.0.parse::<i64>().is_ok() && number.1.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is neither a time nor a duration"))
}

fn wire(time: Timestamp) -> String {
    format!("{}.{:09}", time.as_second(), time.subsec_nanosecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_as_gos() {
        for (text, expected) in [
            (
                "2026-11-21T08:35:13.393749190Z",
                "2026-11-21 08:35:13.39374919 +0000 UTC",
            ),
            (
                "2026-11-21T08:35:13+01:00",
                "2026-11-21 08:35:13 +0100 +0100",
            ),
            ("never", "never"),
        ] {
            assert_eq!(go_string(text), expected);
        }
    }

    #[test]
    fn moments_in_all_forms() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        for (text, expected) in [
            ("10m", "1699999400.000000000"),
            ("2023-11-14T22:13:20Z", "1700000000.000000000"),
            ("2023-11-14T22:13:20.5+00:00", "1700000000.500000000"),
            ("1700000000", "1700000000"),
            ("1700000000.25", "1700000000.25"),
        ] {
            assert_eq!(moment(text, now).as_deref(), Ok(expected), "{text}");
        }
        for text in ["", "yesterday", "1.x", "2023-13-01"] {
            assert!(moment(text, now).is_err(), "{text}");
        }
        for text in [
            "2023-11-14",
            "2023-11-14T22",
            "2023-11-14T22:13",
            "2023-11-14T22:13:20",
        ] {
            assert!(moment(text, now).is_ok(), "{text}");
        }
    }
}
