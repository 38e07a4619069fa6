//! The Range field (RFC 9110 §14): which bytes of how many. No I/O.

use crate::{is_same_name, list_elements};

/// The most ranges that one request may ask for; with more, the field is ignored.
///
/// RFC 9110 §14.2 and §17.15 let a server ignore many small, overlapping or unordered ranges, which cost it more than
/// they save. Readers of PDF and of archives send two to five.
pub const MAX_RANGES: usize = 8;

/// Bytes from `start`, `length` of them: never empty, always inside the representation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Offset of the first byte.
    pub start: u64,
    /// Number of bytes.
    pub length: u64,
}

impl Part {
    /// As in Content-Range (RFC 9110 §14.4), where the last position is inclusive.
    pub fn content_range(self, size: u64) -> String {
        format!("bytes {}-{}/{size}", self.start, self.start + self.length - 1)
    }
}

/// What a Range field selects.
#[derive(Debug, PartialEq, Eq)]
pub enum Selection {
    /// Everything: 200. There is no field, or it is one to be ignored.
    Whole,
    /// 206 with this part.
    Part(Part),
    /// 206 with `multipart/byteranges`: two or more, ascending, not overlapping.
    Parts(Vec<Part>),
    /// 416.
    Unsatisfiable,
}

/// Reads the values of a GET's Range fields for a representation of `size` bytes.
///
/// What is malformed, in an unknown unit or there twice is ignored, as RFC 9110 §14.2 lets us: the client then gets
/// everything, which is right, if more than it wanted. Positions beyond 64 bits count as the largest there is: the
/// grammar has no limit, and none of them lies inside a file.
pub fn select<'v>(mut values: impl Iterator<Item = &'v [u8]>, size: u64) -> Selection {
    match (values.next(), values.next()) {
        (Some(value), None) => parse(value, size).unwrap_or(Selection::Whole),
        _ => Selection::Whole,
    }
}

/// `None` where the field is to be ignored.
fn parse(value: &[u8], size: u64) -> Option<Selection> {
    let equals = value.iter().position(|&byte| byte == b'=')?;
    // Range units are case-insensitive (§14.1).
    if !is_same_name(&value[..equals], b"bytes") {
        return None;
    }
    // One malformed range spoils the field, also behind others, so all are read before any is judged.
    let mut specs = Vec::new();
    for element in list_elements(&value[equals + 1..]) {
        if specs.len() == MAX_RANGES {
            return None;
        }
        specs.push(Spec::parse(element)?);
    }
    if specs.is_empty() {
        return None;
    }
    // A suffix of an empty file is satisfiable (§14.1.2) but has no first and last position to be written down.
    if size == 0 && specs.iter().any(|spec| matches!(spec, Spec::Suffix(length) if *length > 0)) {
        return None;
    }
    let parts = specs.iter().filter_map(|spec| spec.within(size)).collect::<Vec<Part>>();
    match parts.as_slice() {
        [] => Some(Selection::Unsatisfiable),
        // What is left of several is sent as one: multipart would be allowed, but plain is what clients read best
        // (§15.3.7.2).
        [part] => Some(Selection::Part(*part)),
        several if several.is_sorted_by(|one, next| one.start + one.length <= next.start) => {
            Some(Selection::Parts(parts))
        }
        _ => None,
    }
}

/// One range as asked for.
enum Spec {
    /// `first-` or `first-last`.
    From { first: u64, last: u64 },
    /// `-length`.
    Suffix(u64),
}

impl Spec {
    fn parse(element: &[u8]) -> Option<Spec> {
        let dash = element.iter().position(|&byte| byte == b'-')?;
        match (&element[..dash], &element[dash + 1..]) {
            (b"", suffix) => Some(Spec::Suffix(number(suffix)?)),
            (first, b"") => Some(Spec::From { first: number(first)?, last: u64::MAX }),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                // §14.1.1: a last position before the first is invalid, not merely unsatisfiable.
                (first <= last).then_some(Spec::From { first, last })
            }
        }
    }

    /// The bytes it means; `None` where it is unsatisfiable (§14.1.2).
    fn within(&self, size: u64) -> Option<Part> {
        match *self {
            Spec::From { first, last } if first < size => {
                Some(Part { start: first, length: last.min(size - 1) - first + 1 })
            }
            Spec::Suffix(length) if length > 0 && size > 0 => {
                let length = length.min(size);
                Some(Part { start: size - length, length })
            }
            _ => None,
        }
    }
}

/// Digits and nothing else; past 64 bits it is the largest number.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, &byte| {
        byte.is_ascii_digit().then(|| number.saturating_mul(10).saturating_add(u64::from(byte - b'0')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(size: u64, value: &str) -> Selection {
        select([value.as_bytes()].into_iter(), size)
    }

    fn part(start: u64, length: u64) -> Selection {
        Selection::Part(Part { start, length })
    }

    #[test]
    fn one_range() {
        assert_eq!(of(100, "bytes=0-0"), part(0, 1));
        assert_eq!(of(100, "bytes=10-19"), part(10, 10));
        assert_eq!(of(100, "bytes=10-"), part(10, 90));
        assert_eq!(of(100, "bytes=99-"), part(99, 1));
        assert_eq!(of(100, "bytes=0-1000"), part(0, 100));
        assert_eq!(of(100, "bytes=-1"), part(99, 1));
        assert_eq!(of(100, "bytes=-1000"), part(0, 100));
        assert_eq!(of(100, "BYTES= ,, 1-2 ,"), part(1, 2));
        assert_eq!(Part { start: 10, length: 10 }.content_range(100), "bytes 10-19/100");
    }

    #[test]
    fn unsatisfiable() {
        for value in ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=100-,200-,-0"] {
            assert_eq!(of(100, value), Selection::Unsatisfiable, "{value}");
        }
        assert_eq!(of(0, "bytes=0-"), Selection::Unsatisfiable);
        assert_eq!(of(0, "bytes=-1"), Selection::Whole);
    }

    #[test]
    fn malformed_is_ignored() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=1",
            "bytes=5-4",
            "bytes=+1-2",
            "bytes=1-+2",
            "bytes=1 -2",
            "bytes=1- 2",
            "bytes=1--2",
            "bytes=--1",
            "bytes=0-1,x",
            "bytes 0-1",
            "lines=0-1",
            "bytes=0x1-2",
            "bytes=1-2-3",
            "bytes=1-2;3-4",
        ] {
            assert_eq!(of(100, value), Selection::Whole, "{value}");
        }
    }

    #[test]
    fn numbers_past_64_bits_are_clipped() {
        const HUGE: &str = "99999999999999999999999999";
        assert_eq!(of(100, &format!("bytes=10-{HUGE}")), part(10, 90));
        assert_eq!(of(100, &format!("bytes=-{HUGE}")), part(0, 100));
        assert_eq!(of(100, &format!("bytes={HUGE}-")), Selection::Unsatisfiable);
        assert_eq!(of(u64::MAX, "bytes=0-18446744073709551615"), part(0, u64::MAX));
    }

    #[test]
    fn several_ranges() {
        let parts = |parts: &[(u64, u64)]| {
            Selection::Parts(parts.iter().map(|&(start, length)| Part { start, length }).collect())
        };
        assert_eq!(of(100, "bytes=0-0, 2-3,-1"), parts(&[(0, 1), (2, 2), (99, 1)]));
        assert_eq!(of(100, "bytes=0-9,10-19"), parts(&[(0, 10), (10, 10)]));
        // Unsatisfiable ones fall away.
        assert_eq!(of(100, "bytes=0-0,200-"), part(0, 1));
        // Overlapping, unordered, too many: everything.
        assert_eq!(of(100, "bytes=0-10,10-20"), Selection::Whole);
        assert_eq!(of(100, "bytes=10-20,0-5"), Selection::Whole);
        assert_eq!(of(100, "bytes=0-,0-"), Selection::Whole);
        let many = |count: usize| (0..count).map(|at| format!("{0}-{0}", 2 * at)).collect::<Vec<_>>().join(",");
        assert!(matches!(of(100, &format!("bytes={}", many(MAX_RANGES))), Selection::Parts(_)));
        assert_eq!(of(100, &format!("bytes={}", many(MAX_RANGES + 1))), Selection::Whole);
    }

    #[test]
    fn two_fields_are_ignored() {
        assert_eq!(select([&b"bytes=0-1"[..], b"bytes=0-1"].into_iter(), 100), Selection::Whole);
        assert_eq!(select([].into_iter(), 100), Selection::Whole);
    }
}
