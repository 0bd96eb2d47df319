//! A tracklet's looks in time: temporal partition pooling (Chen et al., WACV 2020; thesis, chapter 3).
//!
//! A person turns and walks on while a camera sees them; the mean over all of it blurs what the beginning and the end show. So
//! the looks are split into consecutive parts, each part is averaged, and beginnings are compared with beginnings.

use std::ops::Range;

/// `count` positions of `length`, evenly spaced: the middles of equal stretches, `floor((2 i + 1) length / (2 count))`. Positions
/// repeat where `length` is less than `count`.
pub fn even(length: usize, count: usize) -> Vec<usize> {
    (0..count)
        .map(|i| (2 * i + 1) * length / (2 * count))
        .collect()
}

/// `parts` consecutive parts of `length` looks, as equal as can be, the larger ones first. Of fewer looks than parts some are taken
/// again, evenly, so that no part is empty.
///
/// # Panics
/// If there are no looks, or no parts.
pub fn parts(length: usize, parts: usize) -> Vec<Range<usize>> {
    assert!(length > 0 && parts > 0, "a tracklet has looks");
    if length < parts {
        let looks = even(length, parts).into_iter();
        return looks.map(|i| i..i + 1).collect();
    }
    let mut start = 0;
    (0..parts)
        .map(|part| {
            let len = length / parts + usize::from(part < length % parts);
            start += len;
            start - len..start
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_consecutive_and_none_is_empty() {
        assert_eq!(parts(7, 3), [0..3, 3..5, 5..7]);
        assert_eq!(parts(3, 3), [0..1, 1..2, 2..3]);
        assert_eq!(parts(2, 3), [0..1, 1..2, 1..2]);
        assert_eq!(parts(1, 3), [0..1, 0..1, 0..1]);
        assert_eq!(parts(5, 1), vec![Range { start: 0, end: 5 }]);
    }

    #[test]
    fn even_positions() {
        assert_eq!(even(15, 15), (0..15).collect::<Vec<_>>());
        assert_eq!(even(45, 15)[..3], [1, 4, 7]);
        assert_eq!(even(2, 3), [0, 1, 1]);
    }
}
