//! The same network for pictures of another shape.
//!
//! A detector made for squares spends 44 % of its work on the padding around a 16:9 picture. Networks of convolutions alone run
//! at any size, and only the file's declarations say otherwise. They are rewritten field by field, so that nothing that this
//! program does not know is lost.

use std::collections::BTreeSet;
use std::ops::Range;

use prost::Message as _;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
use reid_models::runtime::proto::{
    Dimension, DimensionValue, ModelProto, TensorShapeProto, ValueInfoProto,
};

/// Field numbers of `ModelProto` and `GraphProto`.
const GRAPH: u32 = 7;
const INPUT: u32 = 11;
const OUTPUT: u32 = 12;
const VALUE_INFO: u32 = 13;

/// The file's bytes with an input of `(width, height)`; outputs and everything between are declared open, but for the batch.
///
/// # Errors
/// Why not: no single image input, or no ONNX file.
pub(super) fn resized(bytes: &[u8], size: (usize, usize)) -> Result<Vec<u8>, String> {
    let model = ModelProto::decode(bytes).map_err(|e| format!("not an ONNX file: {e}"))?;
    let graph = model.graph.ok_or("it has no graph")?;
    let weights: BTreeSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let mut inputs = graph
        .input
        .iter()
        .filter(|i| !weights.contains(&i.name[..]));
    let (Some(image), None) = (inputs.next(), inputs.next()) else {
        return Err("an image model takes one input".into());
    };
    rewritten(bytes, |field, body| {
        if field != GRAPH {
            return Ok(None);
        }
        let graph = rewritten(body, |field, body| {
            Ok(match field {
                // What is between: shapes at the old size, for whoever reads the file.
                VALUE_INFO => Some(None),
                INPUT => {
                    let mut value = decoded(body)?;
                    if value.name != image.name {
                        return Ok(None);
                    }
                    set_size(&mut value, size)?;
                    Some(Some(value.encode_to_vec()))
                }
                OUTPUT => {
                    let mut value = decoded(body)?;
                    let axes = shape_of(&mut value)
                        .map(|s| &mut s.dim[..])
                        .unwrap_or_default();
                    for axis in axes.iter_mut().skip(1) {
                        axis.value = None;
                    }
                    Some(Some(value.encode_to_vec()))
                }
                _ => None,
            })
        })?;
        Ok(Some(Some(graph)))
    })
}

fn decoded(body: &[u8]) -> Result<ValueInfoProto, String> {
    ValueInfoProto::decode(body).map_err(|e| format!("not an ONNX file: {e}"))
}

fn shape_of(value: &mut ValueInfoProto) -> Option<&mut TensorShapeProto> {
    value.r#type.as_mut()?.tensor_type.as_mut()?.shape.as_mut()
}

fn set_size(value: &mut ValueInfoProto, (width, height): (usize, usize)) -> Result<(), String> {
    let name = value.name.clone();
    let shape = shape_of(value).ok_or_else(|| format!("input `{name}` has no shape"))?;
    let channels = |axis: &Dimension| axis.value == Some(DimensionValue::DimValue(3));
    let axes = match &mut shape.dim[..] {
        [_, c, h, w] if channels(c) => [h, w],
        [_, h, w, c] if channels(c) => [h, w],
        _ => {
            return Err(format!(
                "input `{name}` is not a picture: no axis of 3 channels"
            ));
        }
    };
    for (axis, length) in axes.into_iter().zip([height, width]) {
        axis.value = Some(DimensionValue::DimValue(length as i64));
    }
    Ok(())
}

/// What becomes of a field that holds bytes: `None` as it is, `Some(None)` left out, or other bytes.
type Change = Option<Option<Vec<u8>>>;

/// A message with some of its fields of bytes changed, all else as it was, bit for bit.
fn rewritten(
    message: &[u8],
    mut change: impl FnMut(u32, &[u8]) -> Result<Change, String>,
) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(message.len());
    let mut at = 0;
    while at < message.len() {
        let (field, body, end) = field(message, at).ok_or("not an ONNX file: cut short")?;
        let change = match &body {
            Some(body) => change(field, &message[body.clone()])?,
            None => None,
        };
        match change {
            None => out.extend_from_slice(&message[at..end]),
            Some(None) => {}
            Some(Some(new)) => {
                encode_key(field, WireType::LengthDelimited, &mut out);
                encode_varint(new.len() as u64, &mut out);
                out.extend(new);
            }
        }
        at = end;
    }
    Ok(out)
}

/// Number of the field that begins at `at`, its bytes if it holds bytes, and where it ends.
fn field(message: &[u8], at: usize) -> Option<(u32, Option<Range<usize>>, usize)> {
    let mut rest = &message[at..];
    let (field, wire) = decode_key(&mut rest).ok()?;
    let length = match wire {
        WireType::Varint => {
            decode_varint(&mut rest).ok()?;
            0
        }
        WireType::ThirtyTwoBit => 4,
        WireType::SixtyFourBit => 8,
        WireType::LengthDelimited => usize::try_from(decode_varint(&mut rest).ok()?).ok()?,
        // Groups left the format before ONNX began.
        WireType::StartGroup | WireType::EndGroup => return None,
    };
    let begin = message.len() - rest.len();
    let end = begin.checked_add(length).filter(|&e| e <= message.len())?;
    let body = (wire == WireType::LengthDelimited).then_some(begin..end);
    Some((field, body, end))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn other_fields_stay_bit_for_bit() {
        // Field 99 (bytes), field 5 (varint), field 7 (bytes), field 100 (32 bits).
        let mut message = Vec::new();
        encode_key(99, WireType::LengthDelimited, &mut message);
        message.extend([2, 0xff, 0xfe]);
        encode_key(5, WireType::Varint, &mut message);
        encode_varint(300, &mut message);
        let before = message.clone();
        encode_key(7, WireType::LengthDelimited, &mut message);
        message.extend([1, 9]);
        encode_key(100, WireType::ThirtyTwoBit, &mut message);
        message.extend([1, 2, 3, 4]);
        let same = rewritten(&message, |_, _| Ok(None)).unwrap();
        assert_eq!(same, message);
        let changed = rewritten(&message, |field, body| {
            Ok((field == 7).then(|| Some([body, body, body].concat())))
        });
        let changed = changed.unwrap();
        assert!(changed.starts_with(&before));
        assert!(changed[before.len()..].ends_with(&[9, 9, 9, 0xa5, 6, 1, 2, 3, 4]));
        let gone = rewritten(&message, |field, _| Ok((field == 7).then_some(None))).unwrap();
        assert_eq!(gone.len(), message.len() - 3);
        for cut in 1..message.len() {
            // Either it ends between two fields, or it is said to be cut short: never a panic.
            let _ = rewritten(&message[..cut], |_, _| Ok(None));
        }
    }
}
