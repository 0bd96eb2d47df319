//! Finished boxes, scores and classes in tensors of their own: torchvision, TensorFlow's Object Detection API, MMDeploy.

use reid_models::runtime::Tensor;

use super::{Candidate, Unreadable, Wanted, add, no_nan};

/// One picture's part of a tensor: its shape without the batch, its numbers.
type Part<'a> = (&'a [usize], &'a [f32]);

/// torchvision: boxes (n, 4) of left, top, right, bottom in input pixels, scores (n), labels (n).
///
/// # Errors
/// [`Unreadable`].
pub fn torchvision(
    boxes: &Tensor,
    scores: &Tensor,
    labels: &Tensor,
    wanted: &Wanted,
    found: &mut Vec<Candidate>,
) -> Result<(), Unreadable> {
    fn whole(tensor: &Tensor) -> Part<'_> {
        (&tensor.shape, &tensor.data)
    }
    each(
        whole(boxes),
        whole(scores),
        whole(labels),
        wanted,
        |b, class, score| add(found, *b, class, score),
    )
}

/// TensorFlow: boxes (n, 4) of top, left, bottom, right in fractions of the input, scores (n), classes (n).
///
/// # Errors
/// [`Unreadable`]. `size` is the input's (height, width).
pub fn tensorflow(
    boxes: Part,
    scores: Part,
    labels: Part,
    size: (usize, usize),
    wanted: &Wanted,
    found: &mut Vec<Candidate>,
) -> Result<(), Unreadable> {
    let (height, width) = (size.0 as f32, size.1 as f32);
    each(
        boxes,
        scores,
        labels,
        wanted,
        |&[top, left, bottom, right], class, score| {
            let ltrb = [left * width, top * height, right * width, bottom * height];
            add(found, ltrb, class, score)
        },
    )
}

/// MMDeploy: dets (n, 5) of left, top, right, bottom in input pixels and score, labels (n).
///
/// # Errors
/// [`Unreadable`].
pub fn mmdet(
    dets: Part,
    labels: Part,
    wanted: &Wanted,
    found: &mut Vec<Candidate>,
) -> Result<(), Unreadable> {
    let (rows, rest) = dets.1.as_chunks::<5>();
    let n = rows.len();
    if dets.0 != [n, 5] || !rest.is_empty() || labels.0 != [n] || labels.1.len() != n {
        return Err(Unreadable::Shape);
    }
    no_nan(dets.1)?;
    for (&[left, top, right, bottom, score], &label) in rows.iter().zip(labels.1) {
        if score < wanted.score {
            continue;
        }
        if let Some(class) = wanted.class(label) {
            add(found, [left, top, right, bottom], class, score)?;
        }
    }
    Ok(())
}

/// Hands on the boxes whose class and score are wanted.
fn each(
    boxes: Part,
    scores: Part,
    labels: Part,
    wanted: &Wanted,
    mut take: impl FnMut(&[f32; 4], usize, f32) -> Result<(), Unreadable>,
) -> Result<(), Unreadable> {
    let (rows, rest) = boxes.1.as_chunks::<4>();
    let n = rows.len();
    let list = |part: Part| part.0 == [n] && part.1.len() == n;
    if boxes.0 != [n, 4] || !rest.is_empty() || !list(scores) || !list(labels) {
        return Err(Unreadable::Shape);
    }
    no_nan(boxes.1)?;
    no_nan(scores.1)?;
    for ((numbers, &score), &label) in rows.iter().zip(scores.1).zip(labels.1) {
        if score < wanted.score {
            continue;
        }
        if let Some(class) = wanted.class(label) {
            take(numbers, class, score)?;
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
    const BOXES: [f32; 8] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8];

    #[test]
    fn top_comes_first_in_tensorflow() {
        let mut found = Vec::new();
        let lists: (Part, Part) = ((&[2], &[0.9, 0.2]), (&[2], &[1.0, 1.0]));
        tensorflow(
            (&[2, 4], &BOXES),
            lists.0,
            lists.1,
            (100, 200),
            &WANTED,
            &mut found,
        )
        .unwrap();
        let b = found[0].ltrb;
        let want = [40.0, 10.0, 80.0, 30.0];
        for (got, want) in [b.left, b.top, b.right, b.bottom].into_iter().zip(want) {
            assert!((got - want).abs() < 1e-4, "{b:?}");
        }
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn lists_of_unequal_length_and_nan_are_refused() {
        let mut found = Vec::new();
        let tensor = |shape: &[usize], data: &[f32]| Tensor {
            shape: shape.to_vec(),
            data: data.to_vec(),
        };
        let boxes = tensor(&[2, 4], &BOXES);
        let two = tensor(&[2], &[0.9, 0.8]);
        let three = tensor(&[3], &[1.0; 3]);
        let refused = torchvision(&boxes, &two, &three, &WANTED, &mut found);
        assert_eq!(refused, Err(Unreadable::Shape));
        let nan = tensor(&[2], &[0.9, f32::NAN]);
        let refused = torchvision(&boxes, &nan, &two, &WANTED, &mut found);
        assert_eq!(refused, Err(Unreadable::NotFinite));
        let dets: Part = (&[1, 5], &[0.0, 0.0, 9.0, 9.0, f32::NAN]);
        let refused = mmdet(dets, (&[1], &[1.0]), &WANTED, &mut found);
        assert_eq!(refused, Err(Unreadable::NotFinite));
        let refused = mmdet(dets, (&[2], &[1.0; 2]), &WANTED, &mut found);
        assert_eq!(refused, Err(Unreadable::Shape));
        assert_eq!(found, []);
        // Nothing found is nothing wrong.
        let none = tensor(&[0], &[]);
        torchvision(&tensor(&[0, 4], &[]), &none, &none, &WANTED, &mut found).unwrap();
    }
}
