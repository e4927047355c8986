//! Entries of systemd's journal in its native protocol.
//!
//! Source: <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>: a datagram of fields, `NAME=value` and a newline, or for a value with a
//! newline the name, a newline, the length in 64 bits little-endian, the value and a newline.

use super::Stream;
use super::syslog::severity;
use jiff::Timestamp;
use std::collections::BTreeMap;

/// An entry. `partial`: the line goes on in the next one.
pub(super) fn entry(
    fields: &BTreeMap<String, String>,
    stream: Stream,
    time: Timestamp,
    line: &[u8],
    partial: bool,
) -> Vec<u8> {
    let mut entry = Vec::new();
    field(&mut entry, "MESSAGE", line);
    field(
        &mut entry,
        "PRIORITY",
        severity(stream).to_string().as_bytes(),
    );
    field(&mut entry, "SYSLOG_TIMESTAMP", time.to_string().as_bytes());
    if partial {
        field(&mut entry, "CONTAINER_PARTIAL_MESSAGE", b"true");
    }
    for (name, value) in fields {
        field(&mut entry, name, value.as_bytes());
    }
    entry
}

fn field(entry: &mut Vec<u8>, name: &str, value: &[u8]) {
    entry.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value);
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_newlines_are_counted() {
        let fields = BTreeMap::from([("CONTAINER_NAME".to_owned(), "a\nb".to_owned())]);
        let time: Timestamp = "2026-02-03T04:05:06Z".parse().unwrap();
        let entry = entry(&fields, Stream::Stderr, time, b"text", true);
        assert_eq!(
            entry,
            b"MESSAGE=text\nPRIORITY=3\nSYSLOG_TIMESTAMP=2026-02-03T04:05:06Z\nCONTAINER_PARTIAL_MESSAGE=true\nCONTAINER_NAME\n\x03\0\0\0\0\0\0\0a\nb\n"
        );
    }
}
