//! Requests to criu and its answers as bytes of protocol buffers: the few messages and fields that are used.
//!
//! Invariant: whatever bytes come, reading them ends in a value or an error.
//! Source: criu `images/rpc.proto`, protobuf.dev "Encoding".

use crate::error::{Error, Result};

/// What a request is for, and what an answer is to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    Notify = 6,
    FeatureCheck = 9,
}

/// How criu treats cgroups (`criu_cg_mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CgroupMode {
    Ignore = 0,
    Soft = 3,
    Full = 4,
    Strict = 5,
}

const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED_32: u64 = 5;

/// A message being written.
#[derive(Debug, Default, Clone)]
pub(super) struct Fields {
    bytes: Vec<u8>,
}

impl Fields {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.bytes.push(value.to_le_bytes()[0]);
    }

    pub(super) fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3 | VARINT);
        self.varint(value);
    }

    /// Only one that is on: off is what they are without.
    pub(super) fn flag(&mut self, field: u64, on: bool) {
        if on {
            self.number(field, 1);
        }
    }

    pub(super) fn text(&mut self, field: u64, text: &str) {
        self.data(field, text.as_bytes());
    }

    pub(super) fn message(&mut self, field: u64, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.data(field, &inner.bytes);
    }

    fn data(&mut self, field: u64, data: &[u8]) {
        self.varint(field << 3 | LENGTH);
        self.varint(data.len() as u64);
        self.bytes.extend(data);
    }
}

/// A request with its options (`criu_opts`).
pub(super) fn request(kind: Kind, options: &Fields) -> Vec<u8> {
    let mut fields = Fields::default();
    fields.number(1, kind as u64);
    fields.data(2, &options.bytes);
    fields.bytes
}

/// The answer to a notification.
pub(super) fn noticed() -> Vec<u8> {
    let mut fields = Fields::default();
    fields.number(1, Kind::Notify as u64);
    fields.number(3, 1);
    fields.bytes
}

/// Asks which of these the kernel has: tracking of memory, pages on demand.
pub(super) fn feature_check(track_memory: bool, lazy_pages: bool) -> Vec<u8> {
    let mut fields = Fields::default();
    fields.number(1, Kind::FeatureCheck as u64);
    fields.message(5, |features| {
        features.flag(1, track_memory);
        features.flag(2, lazy_pages);
    });
    fields.bytes
}

/// An answer, or a notification in between.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    kind: u64,
    pub(super) success: bool,
    /// Of the restored init.
    pub(super) pid: Option<u64>,
    /// The point that was reached, and the init's id there.
    pub(super) notice: Option<(String, u64)>,
    pub(super) errno: u64,
    pub(super) message: String,
    /// Memory can be tracked; pages can be had on demand.
    pub(super) features: (bool, bool),
}

impl Answer {
    pub(super) fn is(&self, kind: Kind) -> bool {
        self.kind == kind as u64
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let mut answer = Self::default();
        for_each_field(bytes, |field, value| {
            match (field, value) {
                (1, Value::Number(kind)) => answer.kind = kind,
                (2, Value::Number(success)) => answer.success = success != 0,
                (4, Value::Data(restored)) => for_each_field(restored, |field, value| {
                    if let (1, Value::Number(pid)) = (field, value) {
                        answer.pid = Some(pid);
                    }
                    Ok(())
                })?,
                (5, Value::Data(notice)) => {
                    let (mut script, mut pid) = (String::new(), 0);
                    for_each_field(notice, |field, value| {
                        match (field, value) {
                            (1, Value::Data(name)) => {
                                script = String::from_utf8_lossy(name).into_owned();
                            }
                            (2, Value::Number(number)) => pid = number,
                            _ => {}
                        }
                        Ok(())
                    })?;
                    answer.notice = Some((script, pid));
                }
                (7, Value::Number(errno)) => answer.errno = errno,
                (8, Value::Data(features)) => for_each_field(features, |field, value| {
                    match (field, value) {
                        (1, Value::Number(on)) => answer.features.0 = on != 0,
                        (2, Value::Number(on)) => answer.features.1 = on != 0,
                        _ => {}
                    }
                    Ok(())
                })?,
                (9, Value::Data(text)) => {
                    answer.message = String::from_utf8_lossy(text).into_owned()
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(answer)
    }
}

enum Value<'a> {
    Number(u64),
    Data(&'a [u8]),
}

fn for_each_field<'a>(
    bytes: &'a [u8],
    mut each: impl FnMut(u64, Value<'a>) -> Result<()>,
) -> Result<()> {
    let malformed = || Error::State("criu sent something that is no answer".into());
    let mut rest = bytes;
    while !rest.is_empty() {
        let key = take_varint(&mut rest).ok_or_else(malformed)?;
        let value = match key & 7 {
            VARINT => Value::Number(take_varint(&mut rest).ok_or_else(malformed)?),
            wire @ (LENGTH | FIXED_32 | FIXED_64) => {
                let length = match wire {
                    LENGTH => take_varint(&mut rest).ok_or_else(malformed)?,
                    FIXED_32 => 4,
                    _ => 8,
                };
                let length = usize::try_from(length).map_err(|_| malformed())?;
                let (data, tail) = rest.split_at_checked(length).ok_or_else(malformed)?;
                rest = tail;
                Value::Data(data)
            }
            _ => return Err(malformed()),
        };
        each(key >> 3, value)?;
    }
    Ok(())
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    const SHIFT_MAX: u32 = 63;
    let (mut value, mut shift) = (0_u64, 0);
    loop {
        let (first, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
        shift += 7;
        if shift > SHIFT_MAX {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_is_as_the_encoding_says() {
        let mut options = Fields::default();
        options.number(2, 300);
        options.flag(3, true);
        options.flag(4, false);
        options.text(10, "log");
        options.message(23, |mount| mount.text(1, "k"));
        let expected: &[u8] = &[
            8, 1, 18, 17, 16, 0xac, 2, 24, 1, 82, 3, b'l', b'o', b'g', 0xba, 1, 3, 10, 1, b'k',
        ];
        assert_eq!(request(Kind::Dump, &options)[..2], expected[..2]);
        assert_eq!(request(Kind::Dump, &options)[4..], expected[4..]);
    }

    #[test]
    fn answers_are_read_and_unknown_fields_skipped() {
        let mut bytes = Fields::default();
        bytes.number(1, Kind::Notify as u64);
        bytes.number(2, 1);
        bytes.message(5, |notice| {
            notice.text(1, "post-restore");
            notice.number(2, 77);
        });
        bytes.number(99, 5);
        bytes.text(9, "why");
        let answer = Answer::parse(&bytes.bytes).unwrap();
        assert!(answer.is(Kind::Notify) && answer.success);
        assert_eq!(answer.notice, Some(("post-restore".into(), 77)));
        assert_eq!(answer.message, "why");
        assert!(Answer::parse(&bytes.bytes[..bytes.bytes.len() - 1]).is_err());
    }

    proptest! {
        #[test]
        fn numbers_come_back(number: u64) {
            let mut fields = Fields::default();
            fields.varint(number);
            let mut rest = &fields.bytes[..];
            prop_assert_eq!(take_varint(&mut rest), Some(number));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            drop(Answer::parse(&bytes));
        }
    }
}
