//! The maps of files with holes, in the four notations that GNU tar has had.

use super::header::{self, Block};
use super::pax::decimal;
use super::{BLOCK_BYTES, Sparse};
use crate::limits::SPARSE_REGIONS_MAX;
use std::ops::Range;

/// The regions that an old-style header or extension block lists: pairs of 12-byte numbers, ended by an empty one.
pub(super) fn block_regions(
    block: &Block,
    fields: Range<usize>,
    regions: &mut Vec<(u64, u64)>,
) -> Result<(), &'static str> {
    for start in fields.step_by(24) {
        if block[start] == 0 {
            return Ok(());
        }
        let number = |at: usize| header::number(block, at..at + 12).and_then(|n| n.try_into().ok());
        let (Some(offset), Some(length)) = (number(start), number(start + 12)) else {
            return Err("a number of the sparse map is malformed");
        };
        push(regions, offset, length)?;
    }
    Ok(())
}

/// Appends a region within the limit of their number.
pub(super) fn push(
    regions: &mut Vec<(u64, u64)>,
    offset: u64,
    length: u64,
) -> Result<(), &'static str> {
    if regions.len() == SPARSE_REGIONS_MAX {
        return Err("the sparse map has too many regions");
    }
    regions.push((offset, length));
    Ok(())
}

/// The map of format 0.1: `offset,length,offset,length…`.
pub(super) fn comma_regions(text: &[u8]) -> Result<Vec<(u64, u64)>, &'static str> {
    const MALFORMED: &str = "the sparse map is malformed";
    let mut regions = Vec::new();
    if text.is_empty() {
        return Ok(regions);
    }
    let mut numbers = text.split(|b| *b == b',').map(decimal);
    while let Some(offset) = numbers.next() {
        let length = numbers.next().flatten().ok_or(MALFORMED)?;
        push(&mut regions, offset.ok_or(MALFORMED)?, length)?;
    }
    Ok(regions)
}

/// Checks a map: ascending regions within the file, holding exactly the `stored` bytes of the archive.
pub(super) fn checked(
    regions: Vec<(u64, u64)>,
    size: u64,
    stored: u64,
) -> Result<Sparse, &'static str> {
    // GNU tar starts each region at a block of its own, Go does not: they agree where all but the last are whole blocks.
    let with_data: Vec<u64> = regions
        .iter()
        .map(|(_, length)| *length)
        .filter(|l| *l > 0)
        .collect();
    if let Some((_, others)) = with_data.split_last()
        && others.iter().any(|length| length % BLOCK_BYTES != 0)
    {
        return Err("a region of the sparse map is no whole number of blocks");
    }
    let mut end = 0_u64;
    let mut held = 0_u64;
    for (offset, length) in &regions {
        if *offset < end {
            return Err("the regions of the sparse map overlap");
        }
        end = offset
            .checked_add(*length)
            .ok_or("a region of the sparse map is too large")?;
        held += length;
    }
    if end > size {
        return Err("the sparse map reaches beyond the file");
    }
    if held != stored {
        return Err("the sparse map does not have the size of the content");
    }
    Ok(Sparse { size, regions })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_that_lie_are_refused() {
        assert!(checked(vec![(0, 512), (800, 4)], 1200, 516).is_ok());
        assert!(checked(vec![(0, 0), (8, 0)], 12, 0).is_ok());
        for (regions, size, stored) in [
            (vec![(0, 512), (2, 512)], 1200, 1024),
            (vec![(800, 512), (0, 512)], 2000, 1024),
            (vec![(0, 4), (8, 4)], 12, 8),
            (vec![(0, 4)], 3, 4),
            (vec![(0, 4)], 12, 8),
            (vec![(u64::MAX, 4)], u64::MAX, 4),
        ] {
            assert!(
                checked(regions.clone(), size, stored).is_err(),
                "{regions:?}"
            );
        }
    }

    #[test]
    fn comma_maps_come_in_pairs() {
        assert_eq!(
            comma_regions(b"0,512,1024,1"),
            Ok(vec![(0, 512), (1024, 1)])
        );
        assert_eq!(comma_regions(b""), Ok(vec![]));
        for text in [&b"0"[..], b"0,1,2", b"0,,1,2", b"0,1,", b"a,b", b"-1,2"] {
            assert!(comma_regions(text).is_err(), "{text:?}");
        }
    }
}
