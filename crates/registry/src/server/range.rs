//! Ranges: those of a download (RFC 9110 section 14) and those of a chunk (distribution-spec, "Pushing a blob in chunks").

/// What of some content is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of it: there is no range, or one that is not understood, or several; section 14.2 allows that.
    Whole,
    /// From a byte to before another.
    Part(u64, u64),
    /// Nothing that is there.
    Nothing,
}

/// Reads a `Range` header for content of a size.
pub(crate) fn wanted(header: Option<&str>, size: u64) -> Wanted {
    let range = header.and_then(|header| {
        let (unit, range) = header.trim().split_once('=')?;
        unit.eq_ignore_ascii_case("bytes").then(|| range.trim())
    });
    let Some((first, last)) = range.and_then(|range| range.split_once('-')) else {
        return Wanted::Whole;
    };
    let (start, end) = match (number(first), number(last)) {
        // The last so many bytes.
        (None, Some(length)) if first.is_empty() => (size.saturating_sub(length), size),
        (Some(start), None) if last.is_empty() => (start, size),
        (Some(start), Some(last)) => (start, size.min(last.saturating_add(1))),
        _ => return Wanted::Whole,
    };
    if start < end {
        Wanted::Part(start, end)
    } else {
        Wanted::Nothing
    }
}

/// Reads the `Content-Range` of a chunk: its first byte, and the one after its last.
pub(crate) fn chunk(header: &str) -> Option<(u64, u64)> {
    // The specification has the two numbers alone; some clients write the unit as in HTTP.
    let range = header.strip_prefix("bytes ").unwrap_or(header);
    let range = range.split('/').next().unwrap_or_default();
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last.checked_add(1)?))
}

/// Digits alone: no sign, no white space.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_within_the_content() {
        for (header, expected) in [
            (None, Wanted::Whole),
            (Some("bytes=0-4"), Wanted::Part(0, 5)),
            (Some("bytes=5-"), Wanted::Part(5, 10)),
            (Some("bytes=-3"), Wanted::Part(7, 10)),
            (Some("bytes=-30"), Wanted::Part(0, 10)),
            (Some("bytes=2-99999999999999999999"), Wanted::Whole),
            (Some("bytes=2-18446744073709551615"), Wanted::Part(2, 10)),
            (Some("bytes=9-9"), Wanted::Part(9, 10)),
            (Some("bytes=10-"), Wanted::Nothing),
            (Some("bytes=-0"), Wanted::Nothing),
            (Some("bytes=4-2"), Wanted::Nothing),
            (Some("bytes=0-1,4-5"), Wanted::Whole),
            (Some("lines=0-1"), Wanted::Whole),
            (Some("bytes=+1-2"), Wanted::Whole),
            (Some("bytes"), Wanted::Whole),
        ] {
            assert_eq!(wanted(header, 10), expected, "{header:?}");
        }
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::Nothing);
    }

    #[test]
    fn chunks_are_read_strictly() {
        for (header, expected) in [
            ("0-9", Some((0, 10))),
            ("bytes 5-9/20", Some((5, 10))),
            ("5-4", None),
            ("-4", None),
            ("0-", None),
            ("0-18446744073709551615", None),
            ("0 - 1", None),
        ] {
            assert_eq!(chunk(header), expected, "{header}");
        }
    }
}
