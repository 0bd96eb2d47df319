//! Whether the numbers that a detector gave for one picture can be what its convention says they are.
//!
//! Several conventions share a shape: a YOLOX head that the file decodes looks like one that it doesn't. Their numbers
//! don't: scores are 0 to 1, decoded centres reach over the whole input, sizes are never negative, classes are whole.

use reid_models::card::Decode;
use reid_models::card::head::{Head, nanodet_bins, yolov8_anchors_last};
use reid_models::runtime::Tensor;

/// Half precision leaves scores a little over 1.
const SLACK: f32 = 1e-2;

/// Says why not. `outputs` are all of the file's for one picture, `size` is the input's (height, width).
pub(super) fn check(
    decode: Decode,
    head: &Head,
    outputs: &[(String, Tensor)],
    size: (usize, usize),
) -> Result<(), String> {
    let tensor = |position: usize| {
        let index = head.outputs.get(position);
        index.and_then(|&i| outputs.get(i)).map(|(_, t)| t)
    };
    let Some(first) = tensor(0) else {
        return Ok(());
    };
    let columns = first.shape.last().copied().unwrap_or(0).max(1);
    let rows = || first.data.chunks_exact(columns);
    match decode {
        Decode::Yolox => {
            scores(rows().flat_map(|r| &r[4..]))?;
            if reach(rows().map(|r| r[0])) > size.1 as f32 / 2.0 {
                return Err("the centres are in pixels: the file has decoded them itself".into());
            }
        }
        Decode::YoloxDecoded | Decode::Yolov5 => {
            decoded(rows().map(|r| [r[0], r[2], r[3]]), size)?;
            scores(rows().flat_map(|r| &r[4..]))?;
        }
        Decode::Yolov8 => {
            let &[_, r, c] = &first.shape[..] else {
                return Ok(());
            };
            if yolov8_anchors_last(r, c, size) == Some(true) {
                let at = |number: usize, anchor: usize| first.data[number * c + anchor];
                decoded((0..c).map(|a| [at(0, a), at(2, a), at(3, a)]), size)?;
                scores(&first.data[4 * c..])?;
            } else {
                decoded(rows().map(|r| [r[0], r[2], r[3]]), size)?;
                scores(rows().flat_map(|r| &r[4..]))?;
            }
        }
        Decode::EndToEnd => {
            scores(rows().map(|r| &r[4]))?;
            whole(rows().map(|r| &r[5]))?;
        }
        Decode::Nanodet => {
            let classes = columns - 4 * nanodet_bins(columns);
            scores(rows().flat_map(|r| &r[..classes])).map_err(|reason| {
                format!("{reason} among the first {classes} numbers of an anchor, which would be class scores if its sides had {} bins", nanodet_bins(columns))
            })?;
        }
        Decode::Ssd => {
            let rows = || rows().take_while(|r| r[0] >= 0.0);
            whole(rows().map(|r| &r[1]))?;
            scores(rows().map(|r| &r[2]))?;
        }
        Decode::Torchvision | Decode::Tensorflow => {
            scores(tensor(1).into_iter().flat_map(|t| &t.data))?;
            whole(tensor(2).into_iter().flat_map(|t| &t.data))?;
        }
        Decode::Mmdet => {
            scores(rows().map(|r| &r[4]))?;
            whole(tensor(1).into_iter().flat_map(|t| &t.data))?;
        }
        Decode::Movenet | Decode::Simcc => {}
    }
    Ok(())
}

fn scores<'a>(scores: impl IntoIterator<Item = &'a f32>) -> Result<(), String> {
    // NaN is no score either.
    match scores
        .into_iter()
        .find(|s| !(-SLACK..=1.0 + SLACK).contains(*s))
    {
        None => Ok(()),
        Some(score) => Err(format!(
            "it gave {score} where scores stand, which are 0 to 1"
        )),
    }
}

fn whole<'a>(classes: impl IntoIterator<Item = &'a f32>) -> Result<(), String> {
    match classes.into_iter().find(|c| c.fract() != 0.0) {
        None => Ok(()),
        Some(class) => Err(format!(
            "it gave {class} where the number of a class stands"
        )),
    }
}

/// Largest number, without its sign.
fn reach(numbers: impl Iterator<Item = f32>) -> f32 {
    numbers.map(f32::abs).fold(0.0, f32::max)
}

/// Checks centre x, width, height of anchors that cover the whole input.
fn decoded(
    boxes: impl Iterator<Item = [f32; 3]> + Clone,
    size: (usize, usize),
) -> Result<(), String> {
    if let Some([_, w, h]) = boxes.clone().find(|[_, w, h]| *w < 0.0 || *h < 0.0) {
        return Err(format!(
            "it gave a box of {w} x {h}: the head is not decoded"
        ));
    }
    let reach = reach(boxes.map(|[x, _, _]| x));
    if reach < size.1 as f32 / 2.0 {
        return Err(format!(
            "the centres reach {reach}, less than half the input's {} pixels: the head is not decoded",
            size.1
        ));
    }
    Ok(())
}
