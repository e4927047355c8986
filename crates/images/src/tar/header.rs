//! One header block: fixed fields, numbers in octal or base 256, and the sum that tells a header from anything else.

use super::BLOCK;
use std::ops::Range;

/// A header block.
pub(super) type Block = [u8; BLOCK];

pub(super) const NAME: Range<usize> = 0..100;
pub(super) const MODE: Range<usize> = 100..108;
pub(super) const UID: Range<usize> = 108..116;
pub(super) const GID: Range<usize> = 116..124;
pub(super) const SIZE: Range<usize> = 124..136;
pub(super) const MTIME: Range<usize> = 136..148;
pub(super) const CHECKSUM: Range<usize> = 148..156;
pub(super) const TYPE: usize = 156;
pub(super) const LINK: Range<usize> = 157..257;
/// Magic and version together.
pub(super) const MAGIC: Range<usize> = 257..265;
pub(super) const DEV_MAJOR: Range<usize> = 329..337;
pub(super) const DEV_MINOR: Range<usize> = 337..345;
pub(super) const PREFIX: Range<usize> = 345..500;
/// GNU: four regions of an old-style sparse file, offset and length in 12 bytes each.
pub(super) const GNU_SPARSE: Range<usize> = 386..482;
pub(super) const GNU_EXTENDED: usize = 482;
pub(super) const GNU_REAL_SIZE: Range<usize> = 483..495;
/// GNU: the same regions in a block of their own, 21 of them.
pub(super) const EXTENSION_SPARSE: Range<usize> = 0..504;
pub(super) const EXTENSION_EXTENDED: usize = 504;

/// What a ustar header begins its magic with; GNU's and POSIX's differ in what follows.
pub(super) const USTAR: &[u8; 8] = b"ustar\x0000";
const GNU: &[u8; 8] = b"ustar  \0";

/// The dialects of headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Before POSIX: no prefix, no devices.
    V7,
    /// POSIX: with a prefix.
    Ustar,
    /// GNU tar before it wrote PAX: other fields in place of the prefix.
    Gnu,
}

/// The header's dialect.
pub(super) fn dialect(block: &Block) -> Dialect {
    match &block[MAGIC] {
        magic if magic == GNU => Dialect::Gnu,
        magic if magic.starts_with(b"ustar\0") => Dialect::Ustar,
        _ => Dialect::V7,
    }
}

/// The bytes of a text field before its first NUL.
pub(super) fn text(block: &Block, field: Range<usize>) -> &[u8] {
    let bytes = &block[field];
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    &bytes[..end]
}

/// A number in octal digits (spaces before, spaces or NULs after), or in base 256 with the first bit set. Empty is zero.
pub(super) fn number(block: &Block, field: Range<usize>) -> Option<i64> {
    let bytes = &block[field];
    if bytes[0] & 0x80 != 0 {
        return base_256(bytes);
    }
    let is_blank = |b: &u8| matches!(b, 0 | b' ');
    let start = bytes.iter().position(|b| *b != b' ').unwrap_or(bytes.len());
    let digits = &bytes[start..];
    let end = digits.iter().position(is_blank).unwrap_or(digits.len());
    if !digits[end..].iter().all(is_blank) {
        return None;
    }
    digits[..end]
        .iter()
        .try_fold(0_i64, |value, digit| match digit {
            b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
            _ => None,
        })
}

/// Two's complement, big endian, in all bits but the first.
fn base_256(bytes: &[u8]) -> Option<i64> {
    let negative = bytes[0] & 0x40 != 0;
    let first = if negative {
        i64::from(bytes[0]) - 0x100
    } else {
        i64::from(bytes[0] & 0x7f)
    };
    bytes[1..].iter().try_fold(first, |value, byte| {
        value.checked_mul(256)?.checked_add(i64::from(*byte))
    })
}

/// Whether the block's sum is right; old tars added signed bytes.
pub(super) fn is_header(block: &Block) -> bool {
    let Some(said) = number(block, CHECKSUM) else {
        return false;
    };
    let (mut unsigned, mut signed) = (0_i64, 0_i64);
    for (at, byte) in block.iter().enumerate() {
        let byte = if CHECKSUM.contains(&at) { b' ' } else { *byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    said == unsigned || said == signed
}

/// Writes `value` into a field as zero-padded octal with a NUL; false where it does not fit.
pub(super) fn put_octal(block: &mut Block, field: Range<usize>, value: u64) -> bool {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}");
    if text.len() > digits {
        return false;
    }
    block[field.start..field.start + digits].copy_from_slice(text.as_bytes());
    true
}

/// Writes the sum; the last step of making a header.
pub(super) fn seal(block: &mut Block) {
    block[CHECKSUM].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[CHECKSUM.start..CHECKSUM.start + 7].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(field: Range<usize>, bytes: &[u8]) -> Block {
        let mut block = [0; BLOCK];
        block[field.start..field.start + bytes.len()].copy_from_slice(bytes);
        block
    }

    #[test]
    fn numbers_are_read_in_all_notations() {
        for (bytes, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"00000644", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"0000689\0", None),
            (b"12 34\0\0\0", None),
            (b"-0000001", None),
        ] {
            assert_eq!(number(&with(UID, bytes), UID), value, "{bytes:?}");
        }
        assert_eq!(
            number(&with(SIZE, &[0x80 | 0x3f; 12]), SIZE),
            None,
            "more than 63 bits"
        );
    }

    #[test]
    fn a_sealed_header_is_one_and_a_changed_one_is_not() {
        let mut block = with(NAME, b"name");
        assert!(!is_header(&block));
        seal(&mut block);
        assert!(is_header(&block));
        block[0] ^= 1;
        assert!(!is_header(&block));
    }

    #[test]
    fn octal_that_does_not_fit_is_refused() {
        let mut block = [0; BLOCK];
        assert!(put_octal(&mut block, UID, 0o7_777_777));
        assert_eq!(number(&block, UID), Some(0o7_777_777));
        assert!(!put_octal(&mut block, UID, 0o10_000_000));
    }
}
