//! The log, in the form that runc's callers read.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where errors and warnings go.
#[derive(Debug, Clone, Default)]
pub(super) struct Log {
    pub(super) path: Option<String>,
    pub(super) json: bool,
}

impl Log {
    /// Says why an invocation failed: to the log, and to whoever looks at standard error.
    pub(super) fn error(&self, message: &str) {
        let line = self.line("error", message);
        let text = match self.append(&line) {
            None => line,
            Some(Ok(())) => format!("{message}\n"),
            Some(Err(error)) => format!("{message}\nwriting the log: {error}\n"),
        };
        tell(&text);
    }

    /// Says something that is no failure: to the log if there is one, for standard error may be the container's.
    pub(super) fn warning(&self, message: &str) {
        self.quietly("warning", message);
    }

    /// Says what only somebody in search of a fault wants to know.
    pub(super) fn debug(&self, message: &str) {
        self.quietly("debug", message);
    }

    fn quietly(&self, level: &str, message: &str) {
        let line = self.line(level, message);
        match self.append(&line) {
            None => tell(&line),
            Some(Ok(())) => {}
            Some(Err(error)) => tell(&format!("{message}\nwriting the log: {error}\n")),
        }
    }

    /// Writes to the log, if there is one.
    fn append(&self, line: &str) -> Option<std::io::Result<()>> {
        let path = self.path.as_ref()?;
        let file = OpenOptions::new().create(true).append(true).open(path);
        Some(file.and_then(|mut file| file.write_all(line.as_bytes())))
    }

    /// A line as logrus writes it, which runc's callers read.
    fn line(&self, level: &str, message: &str) -> String {
        let time = rfc3339(SystemTime::now());
        if self.json {
            let line = serde_json::json!({ "level": level, "msg": message, "time": time });
            format!("{line}\n")
        } else {
            format!("time={time:?} level={level} msg={message:?}\n")
        }
    }
}

fn tell(text: &str) {
    // With standard error gone as well there is nobody left to tell.
    drop(std::io::stderr().write_all(text.as_bytes()));
}

/// A time as RFC 3339 writes it, in UTC and with nanoseconds.
pub(super) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, second) = (since.as_secs() / 86400, since.as_secs() % 86400);
    // Civil date of a day number, by eras of 400 years that begin in March (Howard Hinnant's algorithm).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let nanos = since.subsec_nanos();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_civil() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_827_696, "2000-02-29T12:34:56.000000000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn a_log_line_is_one_line_of_json() {
        let log = Log {
            path: None,
            json: true,
        };
        let line = log.line("error", "a \"quoted\"\nmessage");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (value["msg"].as_str(), line.matches('\n').count()),
            (Some("a \"quoted\"\nmessage"), 1)
        );
    }
}
