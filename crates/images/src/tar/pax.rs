//! PAX extended headers: `length key=value\n`, where length counts the whole record.

/// The prefix of extended attributes, as GNU tar, star and Go write them.
pub(super) const XATTR: &[u8] = b"SCHILY.xattr.";

/// The records of an extended header, in order; `None` where one is malformed.
pub(super) fn records(mut bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut records = Vec::new();
    // Some writers pad the header with NULs beyond its last record.
    while bytes.iter().any(|b| *b != 0) {
        let space = bytes.iter().position(|b| *b == b' ')?;
        let length = usize::try_from(decimal(&bytes[..space])?).ok()?;
        let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|b| *b == b'=')?;
        if equals == 0 {
            return None;
        }
        records.push((&record[..equals], &record[equals + 1..]));
        bytes = &bytes[length..];
    }
    Some(records)
}

/// A number of at least one digit and nothing else.
pub(super) fn decimal(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() {
        return None;
    }
    bytes.iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// Seconds with an optional sign and fraction; what is finer than nanoseconds is cut off.
pub(super) fn time(bytes: &[u8]) -> Option<super::Time> {
    let (negative, bytes) = match bytes.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, bytes),
    };
    let (whole, fraction) = match bytes.iter().position(|b| *b == b'.') {
        Some(dot) => (&bytes[..dot], &bytes[dot + 1..]),
        None => (bytes, &b""[..]),
    };
    let mut seconds = i64::try_from(decimal(whole)?).ok()?;
    let mut nanoseconds = 0;
    for place in 0..9 {
        nanoseconds *= 10;
        nanoseconds += match fraction.get(place) {
            None => 0,
            Some(digit @ b'0'..=b'9') => u32::from(digit - b'0'),
            Some(_) => return None,
        };
    }
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    if negative {
        seconds = -seconds;
        if nanoseconds > 0 {
            seconds -= 1;
            nanoseconds = 1_000_000_000 - nanoseconds;
        }
    }
    Some(super::Time {
        seconds,
        nanoseconds,
    })
}

/// Appends one record to an extended header.
pub(super) fn put(header: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    // The length counts its own digits, of which one more may be needed.
    let mut length = rest + rest.to_string().len();
    if length.to_string().len() > rest.to_string().len() {
        length += 1;
    }
    header.extend_from_slice(length.to_string().as_bytes());
    header.push(b' ');
    header.extend_from_slice(key);
    header.push(b'=');
    header.extend_from_slice(value);
    header.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::Time;
    use proptest::prelude::*;

    #[test]
    fn malformed_records_are_refused() {
        for bytes in [
            &b"5 a=b"[..],
            b"6 a=b\nx",
            b"7 a=b\n",
            b"6 =ab\n",
            b"6 abc\n",
            b"-6 a=b\n",
            b"99999999999999999999999 a=b\n",
            b"0 a=b\n",
            b"2 a=b\n",
            b" a=b\n",
        ] {
            assert_eq!(records(bytes), None, "{:?}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(records(b"6 a=b\n\0\0"), Some(vec![(&b"a"[..], &b"b"[..])]));
    }

    #[test]
    fn times_may_be_negative_and_fractional() {
        let is = |text: &[u8], seconds, nanoseconds| {
            assert_eq!(
                time(text),
                Some(Time {
                    seconds,
                    nanoseconds
                }),
                "{text:?}"
            );
        };
        is(b"1", 1, 0);
        is(b"1.5", 1, 500_000_000);
        is(b"-1.25", -2, 750_000_000);
        is(b"-0.5", -1, 500_000_000);
        is(b"1.0000000019", 1, 1);
        for text in [
            &b""[..],
            b".",
            b".5",
            b"1.x",
            b"1.123456789x",
            b"--1",
            b"9999999999999999999",
        ] {
            assert_eq!(time(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_put_is_read(pairs: Vec<(Vec<u8>, Vec<u8>)>, long in 0_usize..2000) {
            let mut header = Vec::new();
            let mut expected = Vec::new();
            for (key, value) in &pairs {
                let key: Vec<u8> = key.iter().copied().filter(|b| *b != b'=').chain([b'k']).collect();
                let value: Vec<u8> = value.iter().copied().cycle().take(if value.is_empty() { 0 } else { long }).collect();
                put(&mut header, &key, &value);
                expected.push((key, value));
            }
            let read: Vec<_> = records(&header).unwrap().into_iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn reading_never_panics(bytes: Vec<u8>) {
            let _ = records(&bytes);
            let _ = time(&bytes);
        }
    }
}
