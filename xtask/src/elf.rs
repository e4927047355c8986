//! Checks that the binary is static: elf(5). Neither a dynamic section nor an interpreter may be among its segments.

use crate::{Result, shell};
use std::path::Path;

const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;

/// Fails when the binary at `path` needs a dynamic loader; prints its size.
pub(crate) fn check_static(path: &Path) -> Result<()> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let kinds =
        segments(&bytes).ok_or_else(|| format!("{} is no 64-bit ELF file", path.display()))?;
    if kinds
        .iter()
        .any(|kind| matches!(*kind, PT_DYNAMIC | PT_INTERP))
    {
        return Err(format!(
            "{} is not static: it has a dynamic section or an interpreter",
            path.display()
        ));
    }
    shell::say(&format!(
        "{}: static, {} bytes",
        path.display(),
        bytes.len()
    ));
    Ok(())
}

/// The kinds of the segments of a 64-bit little-endian file.
fn segments(bytes: &[u8]) -> Option<Vec<u32>> {
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let half = |at: usize| {
        Some(usize::from(u16::from_le_bytes(
            *bytes.get(at..)?.first_chunk()?,
        )))
    };
    let offset = u64::from_le_bytes(*bytes.get(32..)?.first_chunk()?);
    let (size, count) = (half(54)?, half(56)?);
    let offset = usize::try_from(offset).ok()?;
    (0..count)
        .map(|n| {
            Some(u32::from_le_bytes(
                *bytes.get(offset + n * size..)?.first_chunk()?,
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_is_found_out() {
        let file = |kind: u32| {
            let mut bytes = b"\x7fELF\x02\x01".to_vec();
            bytes.resize(64, 0);
            bytes[32] = 64;
            bytes[54] = 56;
            bytes[56] = 1;
            bytes.extend(kind.to_le_bytes());
            bytes
        };
        assert_eq!(segments(&file(PT_DYNAMIC)).unwrap(), [PT_DYNAMIC]);
        assert_eq!(segments(&file(1)).unwrap(), [1]);
        assert_eq!(segments(b"#!/bin/sh"), None);
        assert_eq!(segments(&file(1)[..60]), None);
    }
}
