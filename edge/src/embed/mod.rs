//! A crop becomes a vector that is compared between people; which crops are worth it, and how many.

pub mod budget;
pub mod histogram;
pub mod onnx;
pub mod quality;

use std::collections::BTreeMap;
use std::path::PathBuf;

use reid_models::picture::Pixels;
use reid_models::preprocess::PixelBox;
use reid_models::runtime::{RuntimeError, Status};

use crate::config::{EmbedderConfig, EmbedderKind};

/// Embeds crops. Vectors of different fingerprints are never compared.
pub trait Appearance: Send {
    /// One unit vector of [`Appearance::width`] numbers per crop, in order.
    ///
    /// # Errors
    /// If the model fails or gives a number that isn't finite; names it.
    fn embed(
        &mut self,
        crops: &[(Pixels<'_>, Option<PixelBox>)],
    ) -> Result<Vec<Vec<f32>>, EmbedError>;

    /// Identifies model and preprocessing.
    fn fingerprint(&self) -> String;

    /// Length of a vector.
    fn width(&self) -> usize;

    /// Thresholds measured for this very model, by name (`match`, `margin`, `mint`, `enrich`); may be empty.
    fn thresholds(&self) -> BTreeMap<String, f32>;

    /// What it is and what runs it, for people.
    fn description(&self) -> String;

    /// Most crops that are worth running at once; 1 where more gain nothing.
    fn most(&self) -> usize {
        usize::MAX
    }

    /// What the runtime says of itself now; `None` without a model file.
    fn status(&self) -> Option<Status> {
        None
    }
}

/// An embedder that cannot be opened or has failed.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// The model; the error names the file.
    #[error("embedder.model = {model}: {source}")]
    Runtime {
        /// The file.
        model: PathBuf,
        /// Why.
        source: RuntimeError,
    },
    /// A vector with NaN or infinity.
    #[error(
        "embedder {model}: crop {crop} of {of} gave a number that isn't finite: the file is damaged, or its precision too low for this device"
    )]
    NotFinite {
        /// The model.
        model: String,
        /// Which crop, from 1.
        crop: usize,
        /// Of how many.
        of: usize,
    },
    /// The configuration names no model.
    #[error("embedder.model is absent: kind = \"onnx\" needs an ONNX file")]
    NoModel,
    /// The colour histogram met a crop without area.
    #[error("histogram embedder: a crop of {width} x {height} pixels has no area")]
    Empty {
        /// Width.
        width: usize,
        /// Height.
        height: usize,
    },
}

/// Opens the embedder of a configuration as often as it is to run side by side.
///
/// # Errors
/// As [`open`].
pub fn open_all(config: &EmbedderConfig) -> Result<Vec<Box<dyn Appearance>>, EmbedError> {
    let first = open(config)?;
    let mut all = vec![first];
    for _ in 1..config.sessions() {
        all.push(open(config)?);
    }
    Ok(all)
}

/// Opens the embedder of a configuration.
///
/// # Errors
/// If the model has no card, isn't one, does not embed, or the engine refuses it.
pub fn open(config: &EmbedderConfig) -> Result<Box<dyn Appearance>, EmbedError> {
    match config.kind {
        EmbedderKind::Histogram => Ok(Box::new(histogram::Histogram::default())),
        EmbedderKind::Onnx => {
            let model = config.model.as_ref().ok_or(EmbedError::NoModel)?;
            Ok(Box::new(onnx::Onnx::open(model, config)?))
        }
    }
}

/// Refuses vectors with NaN or infinity.
fn all_finite(model: &str, embeddings: &[Vec<f32>]) -> Result<(), EmbedError> {
    match embeddings
        .iter()
        .position(|e| e.iter().any(|v| !v.is_finite()))
    {
        None => Ok(()),
        Some(i) => Err(EmbedError::NotFinite {
            model: model.to_owned(),
            crop: i + 1,
            of: embeddings.len(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nan_names_model_and_crop() {
        let err = all_finite("m.onnx", &[vec![0.1, 0.2], vec![f32::NAN, 0.0]]);
        let text = err.map_or_else(|e| e.to_string(), |()| String::new());
        assert!(
            text.contains("m.onnx") && text.contains("crop 2 of 2"),
            "{text}"
        );
        assert!(all_finite("m.onnx", &[vec![0.0]]).is_ok());
    }
}
