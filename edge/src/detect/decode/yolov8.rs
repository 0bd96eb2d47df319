//! YOLOv8, v9 and 11 (Ultralytics' export): no objectness, boxes in input pixels; and the lists of finished boxes that
//! YOLOv10, YOLO26 and exports with `nms=True` give.

use reid_models::card::head::yolov8_anchors_last;

use super::{Candidate, Unreadable, Wanted, add, centred, no_nan};

/// The head, (4 + classes, anchors) or transposed, told apart by which axis is as long as the input has cells: centre x,
/// centre y, width, height in input pixels, then class scores, already 0..1.
///
/// # Errors
/// [`Unreadable`]. `size` is the input's (height, width).
pub fn head(
    shape: &[usize],
    data: &[f32],
    size: (usize, usize),
    wanted: &Wanted,
    found: &mut Vec<Candidate>,
) -> Result<(), Unreadable> {
    let &[rows, columns] = shape else {
        return Err(Unreadable::Shape);
    };
    let last = yolov8_anchors_last(rows, columns, size).ok_or(Unreadable::Shape)?;
    if data.len() != rows * columns {
        return Err(Unreadable::Shape);
    }
    no_nan(data)?;
    if !last {
        for row in data.chunks_exact(columns) {
            let (numbers, scores) = row.split_at(4);
            if let Some((class, score)) = wanted.best(scores)
                && score >= wanted.score
            {
                let ltrb = centred(numbers[0], numbers[1], numbers[2], numbers[3]);
                add(found, ltrb, class, score)?;
            }
        }
        return Ok(());
    }
    let (numbers, scores) = data.split_at(4 * columns);
    let of_class = |class: usize| scores.get(class * columns..(class + 1) * columns);
    for (position, &class) in wanted.classes.iter().enumerate() {
        // A class at a time, since that is how they lie in memory.
        let Some(row) = of_class(class) else { continue };
        for (anchor, &score) in row.iter().enumerate() {
            if score < wanted.score {
                continue;
            }
            // The best wanted class takes the anchor, the one named first if they are equal.
            let beaten = wanted.classes.iter().enumerate().any(|(other, &c)| {
                let theirs = of_class(c).map_or(f32::NEG_INFINITY, |row| row[anchor]);
                theirs > score || (theirs == score && other < position)
            });
            if !beaten {
                let at = |number: usize| numbers[number * columns + anchor];
                add(found, centred(at(0), at(1), at(2), at(3)), class, score)?;
            }
        }
    }
    Ok(())
}

/// Finished boxes, (n, 6) rows of left, top, right, bottom in input pixels, score, class; unused rows have score 0.
///
/// # Errors
/// [`Unreadable`].
pub fn end_to_end(
    shape: &[usize],
    data: &[f32],
    wanted: &Wanted,
    found: &mut Vec<Candidate>,
) -> Result<(), Unreadable> {
    let (rows, rest) = data.as_chunks::<6>();
    if shape != [rows.len(), 6] || !rest.is_empty() {
        return Err(Unreadable::Shape);
    }
    no_nan(data)?;
    for &[left, top, right, bottom, score, class] in rows {
        if score < wanted.score {
            continue;
        }
        if let Some(class) = wanted.class(class) {
            add(found, [left, top, right, bottom], class, score)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// 32 x 32: 16 + 4 + 1 anchors.
    const ANCHORS: usize = 21;

    proptest! {
        #[test]
        fn both_layouts_read_alike(
            numbers in proptest::collection::vec(0.0f32..1.0, ANCHORS * 7),
            classes in proptest::sample::subsequence(vec![2usize, 0, 1, 7], 1..4),
        ) {
            let wanted = Wanted { classes: &classes, score: 0.6 };
            let transposed: Vec<f32> = (0..ANCHORS * 7)
                .map(|i| numbers[(i % 7) * ANCHORS + i / 7])
                .collect();
            let (mut one, mut other) = (Vec::new(), Vec::new());
            head(&[7, ANCHORS], &numbers, (32, 32), &wanted, &mut one).unwrap();
            head(&[ANCHORS, 7], &transposed, (32, 32), &wanted, &mut other).unwrap();
            let key = |c: &Candidate| (c.ltrb.left.to_bits(), c.ltrb.bottom.to_bits(), c.class);
            one.sort_by_key(key);
            other.sort_by_key(key);
            prop_assert_eq!(one, other);
        }
    }

    #[test]
    fn a_shape_of_no_head_and_nan_are_refused() {
        let wanted = Wanted {
            classes: &[0],
            score: 0.3,
        };
        let mut found = Vec::new();
        let mut data = vec![0.0; 20 * 7];
        for shape in [&[20, 7][..], &[4, 21], &[21, 7], &[1, 20, 7]] {
            let refused = head(shape, &data, (32, 32), &wanted, &mut found);
            assert_eq!(refused, Err(Unreadable::Shape), "{shape:?}");
        }
        let refused = end_to_end(&[20, 7], &data, &wanted, &mut found);
        assert_eq!(refused, Err(Unreadable::Shape));
        data.resize(21 * 7, f32::NAN);
        let refused = head(&[7, 21], &data, (32, 32), &wanted, &mut found);
        assert_eq!(refused, Err(Unreadable::NotFinite));
    }
}
