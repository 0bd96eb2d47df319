//! Whether a file's input is the image its card describes, and how batches are cut to what the file takes.

use std::path::Path;

use super::RuntimeError;
use super::file::{Axis, OnnxFile};
use super::proto::DataType;
use crate::card::{Element, InputSpec, Layout};

/// The input that a file and its card agree on.
#[derive(Clone, Debug)]
pub(super) struct ImageInput {
    /// Name of the input tensor.
    pub name: String,
    /// Element type of the input tensor.
    pub element: Element,
    /// Axes after the batch.
    pub sample: [usize; 3],
    /// The file takes exactly so many pictures; `None`: any number.
    pub fixed_batch: Option<usize>,
}

impl ImageInput {
    /// Checks the file against the card.
    pub(super) fn check(
        file: &OnnxFile,
        spec: &InputSpec,
        path: &Path,
    ) -> Result<Self, RuntimeError> {
        let not_image = |reason: String| RuntimeError::NotImage {
            path: path.to_path_buf(),
            reason,
        };
        let mismatch = |key, file: String, card: String| RuntimeError::Mismatch {
            path: path.to_path_buf(),
            key,
            file,
            card,
        };
        let [input] = &file.inputs[..] else {
            let names: Vec<&str> = file.inputs.iter().map(|i| i.name.as_str()).collect();
            return Err(not_image(format!(
                "it takes {} inputs ({}), an image model takes one",
                names.len(),
                names.join(", ")
            )));
        };
        let element = element_of(input.element).ok_or_else(|| {
            not_image(format!(
                "input `{}` has elements of type {:?}, an image has Float, Float16 or Uint8",
                input.name, input.element
            ))
        })?;
        if element != spec.element {
            return Err(mismatch(
                "input.element",
                format!("{element:?}"),
                format!("{:?}", spec.element),
            ));
        }
        let (h, w) = (spec.height, spec.width);
        let (sample, channels) = match spec.layout {
            Layout::Nchw => ([3, h, w], 0),
            Layout::Nhwc => ([h, w, 3], 2),
        };
        let mut fixed_batch = spec.fixed_batch;
        if let Some(axes) = &input.shape {
            let [batch, rest @ ..] = &axes[..] else {
                return Err(not_image(format!(
                    "input `{}` is a single number",
                    input.name
                )));
            };
            let [_, _, _] = rest else {
                return Err(not_image(format!(
                    "input `{}` is {}, an image has four axes",
                    input.name,
                    input.shape_text()
                )));
            };
            if let Axis::Fixed(n) = rest[channels]
                && n != 3
            {
                let other = if channels == 0 { 2 } else { 0 };
                return Err(if rest[other] == Axis::Fixed(3) {
                    mismatch(
                        "input.layout",
                        input.shape_text(),
                        format!("{:?}", spec.layout),
                    )
                } else {
                    not_image(format!(
                        "input `{}` is {}: {n} channels, an image has 3",
                        input.name,
                        input.shape_text()
                    ))
                });
            }
            let differs =
                |(axis, &want): (&Axis, &usize)| matches!(axis, Axis::Fixed(n) if *n != want);
            if rest.iter().zip(&sample).any(differs) {
                return Err(mismatch(
                    "input.height and input.width",
                    input.shape_text(),
                    format!("{h} high x {w} wide"),
                ));
            }
            if let Axis::Fixed(n) = *batch {
                if let Some(card) = spec.fixed_batch
                    && card != n
                {
                    return Err(mismatch(
                        "input.fixed_batch",
                        n.to_string(),
                        card.to_string(),
                    ));
                }
                fixed_batch = Some(n);
            }
        }
        Ok(ImageInput {
            name: input.name.clone(),
            element,
            sample,
            fixed_batch,
        })
    }

    /// Elements of one picture.
    pub(super) fn sample_len(&self) -> usize {
        self.sample.iter().product()
    }

    /// Shape of a batch.
    pub(super) fn shape(&self, batch: usize) -> [usize; 4] {
        let [a, b, c] = self.sample;
        [batch, a, b, c]
    }

    /// Checks that `input` holds `batch` pictures.
    pub(super) fn check_len(
        &self,
        path: &Path,
        batch: usize,
        input: &[f32],
    ) -> Result<(), RuntimeError> {
        if batch == 0 || input.len() != batch * self.sample_len() {
            return Err(RuntimeError::InputLength {
                path: path.to_path_buf(),
                batch,
                got: input.len(),
                want: batch * self.sample_len(),
            });
        }
        Ok(())
    }
}

fn element_of(data_type: DataType) -> Option<Element> {
    match data_type {
        DataType::Float => Some(Element::F32),
        DataType::Float16 => Some(Element::F16),
        DataType::Uint8 => Some(Element::U8),
        _ => None,
    }
}

/// Writes values as bytes: rounded, and held to 0..=255.
pub(super) fn to_u8(values: &[f32], bytes: &mut Vec<u8>) {
    bytes.clear();
    // `as` saturates.
    bytes.extend(values.iter().map(|v| v.round() as u8));
}

/// Writes values as half precision.
pub(super) fn to_f16(values: &[f32], halves: &mut Vec<half::f16>) {
    halves.clear();
    halves.extend(values.iter().map(|&v| half::f16::from_f32(v)));
}

/// Writes chunk number `index` of a batch, its last picture repeated where the batch ends early.
pub(super) fn chunk_input(
    input: &[f32],
    len: usize,
    chunk: usize,
    index: usize,
    padded: &mut Vec<f32>,
) {
    let start = index * chunk * len;
    let end = (start + chunk * len).min(input.len());
    padded.clear();
    padded.extend_from_slice(&input[start..end]);
    while padded.len() < chunk * len {
        padded.extend_from_slice(&input[end - len..end]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_chunk_is_filled_up_with_the_last_picture() {
        let input: Vec<f32> = (0..10).map(|v| v as f32).collect();
        let mut padded = Vec::new();
        chunk_input(&input, 2, 3, 0, &mut padded);
        assert_eq!(padded, input[..6]);
        chunk_input(&input, 2, 3, 1, &mut padded);
        assert_eq!(padded, [6.0, 7.0, 8.0, 9.0, 8.0, 9.0]);
    }

    #[test]
    fn bytes_are_rounded_and_held_in_range() {
        let mut bytes = vec![9];
        to_u8(&[-3.0, 0.4, 0.6, 254.7, 300.0], &mut bytes);
        assert_eq!(bytes, [0, 0, 1, 255, 255]);
    }
}
