//! YOLOX (Ge et al. 2021), and the heads of YOLOv5 and YOLOv7 that read like one that decoded itself.
//!
//! A row is an anchor: four numbers of the box, objectness, class scores, the latter both already 0..1; the score is
//! their product.

use reid_models::card::head::{P5, cells};

use super::{Candidate, Unreadable, Wanted, add, centred, no_nan};

/// The raw head as its authors export it, (anchors, 5 + classes). Anchors run over strides 8, 16, 32, rows, columns; the
/// box is centre x, centre y (in cells from the cell), log width, log height (in strides).
///
/// # Errors
/// [`Unreadable`]. `size` is the input's (height, width).
pub fn raw(
    shape: &[usize],
    data: &[f32],
    size: (usize, usize),
    wanted: &Wanted,
    found: &mut Vec<Candidate>,
) -> Result<(), Unreadable> {
    let columns = checked(shape, data)?;
    if shape[0] != cells(P5, size) {
        return Err(Unreadable::Shape);
    }
    let mut rows = data.chunks_exact(columns);
    for &stride in P5 {
        let s = stride as f32;
        for y in 0..size.0.div_ceil(stride) {
            for (x, row) in (0..size.1.div_ceil(stride)).zip(&mut rows) {
                // The logarithms are undone only for the few that count.
                let Some((class, score)) = scored(row, wanted) else {
                    continue;
                };
                let centre = ((row[0] + x as f32) * s, (row[1] + y as f32) * s);
                let size = (row[2].exp() * s, row[3].exp() * s);
                add(
                    found,
                    centred(centre.0, centre.1, size.0, size.1),
                    class,
                    score,
                )?;
            }
        }
    }
    Ok(())
}

/// A head that is decoded already, (anchors, 5 + classes): centre x, centre y, width, height in input pixels.
///
/// # Errors
/// [`Unreadable`].
pub fn decoded(
    shape: &[usize],
    data: &[f32],
    wanted: &Wanted,
    found: &mut Vec<Candidate>,
) -> Result<(), Unreadable> {
    for row in data.chunks_exact(checked(shape, data)?) {
        if let Some((class, score)) = scored(row, wanted) {
            add(found, centred(row[0], row[1], row[2], row[3]), class, score)?;
        }
    }
    Ok(())
}

/// Columns of a head that holds whole rows and no NaN.
fn checked(shape: &[usize], data: &[f32]) -> Result<usize, Unreadable> {
    match shape {
        [rows, columns] if *columns > 5 && data.len() == rows * columns => {
            no_nan(data)?;
            Ok(*columns)
        }
        _ => Err(Unreadable::Shape),
    }
}

fn scored(row: &[f32], wanted: &Wanted) -> Option<(usize, f32)> {
    // Class scores are at most 1: most rows end here, at one number.
    if row[4] < wanted.score {
        return None;
    }
    let (class, of_class) = wanted.best(&row[5..])?;
    let score = row[4] * of_class;
    (score >= wanted.score).then_some((class, score))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PERSON: Wanted = Wanted {
        classes: &[1],
        score: 0.3,
    };

    #[test]
    fn a_cell_of_each_stride_lands_where_it_should() {
        // 64 x 64: 64 + 16 + 4 anchors of 7 numbers (2 classes), all silent but one of each stride.
        let (rows, columns) = (84, 7);
        let mut data = vec![0.0f32; rows * columns];
        let anchors = [
            (9, [0.5, 0.5, 0.0, 0.0], [12.0, 12.0, 8.0, 8.0]),
            // Row 1, column 2 of stride 16.
            (
                64 + 4 + 2,
                [0.5, 0.25, 0.0, 2f32.ln()],
                [40.0, 20.0, 16.0, 32.0],
            ),
            (64 + 16 + 3, [0.0, 0.0, 0.0, 0.0], [32.0, 32.0, 32.0, 32.0]),
        ];
        for (anchor, numbers, _) in anchors {
            data[anchor * columns..][..4].copy_from_slice(&numbers);
            data[anchor * columns + 4..][..3].copy_from_slice(&[0.8, 0.9, 0.5]);
        }
        let mut found = Vec::new();
        raw(&[rows, columns], &data, (64, 64), &PERSON, &mut found).unwrap();
        assert_eq!(found.len(), 3);
        for (candidate, (_, _, [x, y, w, h])) in found.iter().zip(anchors) {
            let b = candidate.ltrb;
            let got = [b.left, b.top, b.right, b.bottom];
            for (got, want) in got.into_iter().zip(centred(x, y, w, h)) {
                assert!((got - want).abs() < 1e-3, "{b:?}");
            }
            assert!(
                (candidate.score - 0.4).abs() < 1e-6,
                "objectness times class 1"
            );
            assert_eq!(candidate.class, 1);
        }
    }

    #[test]
    fn another_head_or_nan_is_refused() {
        let mut found = Vec::new();
        let mut read =
            |shape: &[usize], data: &[f32], size| raw(shape, data, size, &PERSON, &mut found);
        let data = vec![0.0f32; 84 * 100];
        assert_eq!(read(&[84, 100], &data, (32, 32)), Err(Unreadable::Shape));
        assert_eq!(
            read(&[84, 5], &data[..84 * 5], (64, 64)),
            Err(Unreadable::Shape)
        );
        assert_eq!(
            read(&[84, 7], &data[..84 * 6], (64, 64)),
            Err(Unreadable::Shape)
        );
        assert_eq!(
            read(&[84 * 7], &data[..84 * 7], (64, 64)),
            Err(Unreadable::Shape)
        );
        let mut data = vec![0.0f32; 84 * 6];
        // Where nobody would look: the height of a silent anchor.
        data[5 * 6 + 3] = f32::NAN;
        assert_eq!(read(&[84, 6], &data, (64, 64)), Err(Unreadable::NotFinite));
        data[5 * 6 + 3] = 1000.0;
        assert_eq!(read(&[84, 6], &data, (64, 64)), Ok(()));
        (data[5 * 6 + 4], data[5 * 6 + 5]) = (0.9, 0.9);
        let one = Wanted {
            classes: &[0],
            score: 0.3,
        };
        let infinite = raw(&[84, 6], &data, (64, 64), &one, &mut found);
        assert_eq!(infinite, Err(Unreadable::NotFinite), "e^1000");
    }
}
