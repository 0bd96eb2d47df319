//! From the numbers of a detector's file to boxes: a file per family, pure functions of one picture's tensors.
//!
//! The conventions and their shapes are [`reid_models::card::Decode`]'s. Boxes come out in pixels of the model's input;
//! only wanted classes, only from the least score on. An anchor that more than one wanted class likes gives one box, by
//! the class that likes it best.

pub mod nanodet;
pub mod several;
pub mod ssd;
pub mod yolov8;
pub mod yolox;

use reid_models::card::Decode;
use reid_models::runtime::Tensor;

use crate::types::Ltrb;

/// A box that a file gave, before overlapping ones are suppressed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Where, in pixels of the model's input; may reach over its border.
    pub ltrb: Ltrb,
    /// Class, as the file counts them.
    pub class: usize,
    /// Confidence, 0..1.
    pub score: f32,
}

/// Which boxes are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Classes, as the file counts them; classes it hasn't are never found.
    pub classes: &'a [usize],
    /// Least score, 0..1.
    pub score: f32,
}

impl Wanted<'_> {
    /// The wanted class with the best score among all classes' scores.
    fn best(&self, scores: &[f32]) -> Option<(usize, f32)> {
        let mut best: Option<(usize, f32)> = None;
        for &class in self.classes {
            if let Some(&score) = scores.get(class)
                && best.is_none_or(|(_, s)| score > s)
            {
                best = Some((class, score));
            }
        }
        best
    }

    /// A class that came as a number, if it is wanted.
    fn class(&self, number: f32) -> Option<usize> {
        // `as` saturates: what is negative or not whole equals no class.
        let class = number as usize;
        (class as f32 == number && self.classes.contains(&class)).then_some(class)
    }
}

/// Numbers that are no boxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// The shape is not the convention's.
    Shape,
    /// NaN, or an infinite box or score.
    NotFinite,
}

/// Boxes of picture number `picture` in a batch of `pictures`. `outputs` are those that the convention reads
/// ([`reid_models::card::head::Head::outputs`]), `size` is the input's (height, width). Adds to `found`.
///
/// # Errors
/// [`Unreadable`]; `found` may then hold some of the picture's boxes.
pub fn read(
    decode: Decode,
    outputs: &[&Tensor],
    picture: usize,
    pictures: usize,
    size: (usize, usize),
    wanted: &Wanted,
    found: &mut Vec<Candidate>,
) -> Result<(), Unreadable> {
    let of = |index: usize| -> Result<(&[usize], &[f32]), Unreadable> {
        let tensor = outputs.get(index).ok_or(Unreadable::Shape)?;
        slice(tensor, picture, pictures)
    };
    match decode {
        Decode::Yolox => {
            let (shape, data) = of(0)?;
            yolox::raw(shape, data, size, wanted, found)
        }
        Decode::YoloxDecoded | Decode::Yolov5 => {
            let (shape, data) = of(0)?;
            yolox::decoded(shape, data, wanted, found)
        }
        Decode::Yolov8 => {
            let (shape, data) = of(0)?;
            yolov8::head(shape, data, size, wanted, found)
        }
        Decode::EndToEnd => {
            let (shape, data) = of(0)?;
            yolov8::end_to_end(shape, data, wanted, found)
        }
        Decode::Nanodet => {
            let (shape, data) = of(0)?;
            nanodet::head(shape, data, size, wanted, found)
        }
        Decode::Ssd => {
            let tensor = outputs.first().ok_or(Unreadable::Shape)?;
            if tensor.shape.first() == Some(&1) && pictures > 1 {
                // One list for all pictures.
                ssd::rows(
                    &tensor.shape[1..],
                    &tensor.data,
                    Some(picture),
                    size,
                    wanted,
                    found,
                )
            } else {
                let (shape, data) = of(0)?;
                ssd::rows(shape, data, None, size, wanted, found)
            }
        }
        Decode::Torchvision => {
            // No batch axis: one picture at a time.
            let [boxes, scores, labels] = outputs else {
                return Err(Unreadable::Shape);
            };
            several::torchvision(boxes, scores, labels, wanted, found)
        }
        Decode::Tensorflow => {
            let (boxes, scores, labels) = (of(0)?, of(1)?, of(2)?);
            several::tensorflow(boxes, scores, labels, size, wanted, found)
        }
        Decode::Mmdet => several::mmdet(of(0)?, of(1)?, wanted, found),
        Decode::Movenet | Decode::Simcc => Err(Unreadable::Shape),
    }
}

/// One picture's part of a tensor whose first axis is the batch: its shape without that axis, its numbers.
fn slice(
    tensor: &Tensor,
    picture: usize,
    pictures: usize,
) -> Result<(&[usize], &[f32]), Unreadable> {
    let [batch, shape @ ..] = &tensor.shape[..] else {
        return Err(Unreadable::Shape);
    };
    let len: usize = shape.iter().product();
    if *batch != pictures {
        return Err(Unreadable::Shape);
    }
    tensor
        .data
        .get(picture * len..(picture + 1) * len)
        .map(|data| (shape, data))
        .ok_or(Unreadable::Shape)
}

/// Refuses NaN anywhere: a file that gives it is broken, even where no box is read.
fn no_nan(data: &[f32]) -> Result<(), Unreadable> {
    // Lanes, so that the compiler makes vectors of it: this reads a megabyte a frame.
    let (lanes, rest) = data.as_chunks::<16>();
    let mut bad = [0u32; 16];
    for lane in lanes {
        for (bad, value) in bad.iter_mut().zip(lane) {
            *bad |= u32::from(value.is_nan());
        }
    }
    if bad != [0; 16] || rest.iter().any(|v| v.is_nan()) {
        return Err(Unreadable::NotFinite);
    }
    Ok(())
}

/// Adds a box. Infinity is an error: half precision overflows to it.
fn add(
    found: &mut Vec<Candidate>,
    ltrb: [f32; 4],
    class: usize,
    score: f32,
) -> Result<(), Unreadable> {
    let [left, top, right, bottom] = ltrb;
    if !(score.is_finite() && ltrb.iter().all(|v| v.is_finite())) {
        return Err(Unreadable::NotFinite);
    }
    let ltrb = Ltrb {
        left,
        top,
        right,
        bottom,
    };
    found.push(Candidate {
        ltrb,
        class,
        score: score.min(1.0),
    });
    Ok(())
}

/// Left, top, right, bottom of a box by its centre and size.
fn centred(x: f32, y: f32, width: f32, height: f32) -> [f32; 4] {
    let (w, h) = (width / 2.0, height / 2.0);
    [x - w, y - h, x + w, y + h]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nan_is_seen_wherever_it_stands() {
        for at in [0, 15, 16, 40, 47, 48, 49] {
            let mut data = vec![0.5f32; 50];
            assert_eq!(no_nan(&data), Ok(()));
            data[at] = f32::NAN;
            assert_eq!(no_nan(&data), Err(Unreadable::NotFinite), "at {at}");
        }
    }

    #[test]
    fn an_infinite_box_is_no_box() {
        let mut found = Vec::new();
        for at in 0..4 {
            let mut ltrb = [0.0; 4];
            ltrb[at] = f32::INFINITY;
            assert!(add(&mut found, ltrb, 0, 0.5).is_err());
        }
        assert!(add(&mut found, [0.0; 4], 0, f32::INFINITY).is_err());
        add(&mut found, [0.0; 4], 0, 1.5).unwrap();
        assert_eq!(found[0].score, 1.0);
    }

    #[test]
    fn several_classes_may_be_wanted_and_unknown_ones_are_not_found() {
        let wanted = Wanted {
            classes: &[2, 0, 9],
            score: 0.3,
        };
        assert_eq!(wanted.best(&[0.4, 0.9, 0.5]), Some((2, 0.5)));
        assert_eq!(wanted.best(&[0.4, 0.9]), Some((0, 0.4)));
        assert_eq!(wanted.best(&[]), None);
        assert_eq!(wanted.class(2.0), Some(2));
        for number in [-1.0, 1.0, 2.5, f32::NAN, f32::INFINITY, 1e30] {
            assert_eq!(wanted.class(number), None, "{number}");
        }
    }

    #[test]
    fn a_picture_is_read_from_its_part_of_the_batch() {
        let tensor = Tensor {
            shape: vec![3, 2, 2],
            data: (0..12).map(|v| v as f32).collect(),
        };
        let (shape, data) = slice(&tensor, 1, 3).unwrap();
        assert_eq!((shape, data), (&[2, 2][..], &[4.0, 5.0, 6.0, 7.0][..]));
        assert_eq!(slice(&tensor, 0, 2), Err(Unreadable::Shape));
        assert_eq!(slice(&tensor, 3, 3), Err(Unreadable::Shape));
    }
}
