//! SSD's list of finished boxes, as Caffe and OpenVINO give it (operation DetectionOutput).

use super::{Candidate, Unreadable, Wanted, add};

/// A list, (1, n, 7) rows of picture, class, score, left, top, right, bottom in fractions of the input. A row of a
/// negative picture ends it: what stands behind is left over from other frames and means nothing, NaN included. Where
/// pictures share a list, only rows of number `picture` count.
///
/// # Errors
/// [`Unreadable`]. `size` is the input's (height, width).
pub fn rows(
    shape: &[usize],
    data: &[f32],
    picture: Option<usize>,
    size: (usize, usize),
    wanted: &Wanted,
    found: &mut Vec<Candidate>,
) -> Result<(), Unreadable> {
    let (rows, rest) = data.as_chunks::<7>();
    if shape != [1, rows.len(), 7] || !rest.is_empty() {
        return Err(Unreadable::Shape);
    }
    let (height, width) = (size.0 as f32, size.1 as f32);
    for row in rows {
        let &[image, class, score, left, top, right, bottom] = row;
        if image < 0.0 {
            break;
        }
        if row.iter().any(|v| v.is_nan()) {
            return Err(Unreadable::NotFinite);
        }
        if score < wanted.score || picture.is_some_and(|p| image != p as f32) {
            continue;
        }
        if let Some(class) = wanted.class(class) {
            let ltrb = [left * width, top * height, right * width, bottom * height];
            add(found, ltrb, class, score)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const WANTED: Wanted = Wanted {
        classes: &[1],
        score: 0.5,
    };

    fn read(rows: &[[f32; 7]], picture: Option<usize>) -> Result<Vec<Candidate>, Unreadable> {
        let mut found = Vec::new();
        let shape = [1, rows.len(), 7];
        super::rows(
            &shape,
            rows.as_flattened(),
            picture,
            (100, 200),
            &WANTED,
            &mut found,
        )?;
        Ok(found)
    }

    #[test]
    fn rows_of_one_picture_until_the_end_of_the_list() {
        let list = [
            [0.0, 1.0, 0.9, 0.1, 0.2, 0.3, 0.4],
            [0.0, 2.0, 0.9, 0.1, 0.2, 0.3, 0.4],
            [0.0, 1.0, 0.4, 0.1, 0.2, 0.3, 0.4],
            [1.0, 1.0, 0.8, 0.5, 0.5, 0.7, 0.7],
            [-1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            [0.0, 1.0, f32::NAN, 0.1, 0.2, 0.3, 0.4],
            [0.0, 1.0, 0.9, 0.1, 0.2, 0.3, 0.4],
        ];
        let first = read(&list, Some(0)).unwrap();
        assert_eq!(first.len(), 1);
        let b = first[0].ltrb;
        assert!(
            (b.left - 20.0).abs() < 1e-4 && (b.bottom - 40.0).abs() < 1e-4,
            "{b:?}"
        );
        assert_eq!(read(&list, Some(1)).unwrap()[0].score, 0.8);
        assert_eq!(read(&list, None).unwrap().len(), 2);
        assert_eq!(read(&list[4..], None).unwrap(), []);
    }

    #[test]
    fn nan_before_the_end_and_another_shape_are_refused() {
        let nan = [[0.0, 7.0, 0.1, f32::NAN, 0.2, 0.3, 0.4]];
        assert_eq!(read(&nan, None), Err(Unreadable::NotFinite));
        let mut found = Vec::new();
        for shape in [&[1, 2, 6][..], &[2, 7], &[2, 1, 7]] {
            let refused = rows(shape, &[0.0; 14], None, (9, 9), &WANTED, &mut found);
            assert_eq!(refused, Err(Unreadable::Shape), "{shape:?}");
        }
    }
}
