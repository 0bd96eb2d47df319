//! An ONNX model as embedder, through the one runtime of the workspace.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use reid_models::picture::Pixels;
use reid_models::preprocess::PixelBox;
use reid_models::runtime::{Embedder, Status};

use super::{Appearance, EmbedError, all_finite};
use crate::config::EmbedderConfig;

/// An embedding model with its session.
pub struct Onnx {
    path: PathBuf,
    name: String,
    embedder: Embedder,
}

impl Onnx {
    /// Opens a file whose card says `task = embed`.
    ///
    /// # Errors
    /// [`EmbedError::Runtime`] naming the file.
    pub fn open(path: &Path, config: &EmbedderConfig) -> Result<Self, EmbedError> {
        let embedder =
            Embedder::open(path, &config.runtime()).map_err(|source| EmbedError::Runtime {
                model: path.to_path_buf(),
                source,
            })?;
        Ok(Onnx {
            path: path.to_path_buf(),
            name: format!(
                "{} ({})",
                embedder.card().name,
                // The name alone: descriptions reach the live page, folders are nobody's business there.
                path.file_name().unwrap_or(path.as_os_str()).display()
            ),
            embedder,
        })
    }
}

impl Appearance for Onnx {
    fn embed(
        &mut self,
        crops: &[(Pixels<'_>, Option<PixelBox>)],
    ) -> Result<Vec<Vec<f32>>, EmbedError> {
        let embeddings = self
            .embedder
            .embed(crops)
            .map_err(|source| EmbedError::Runtime {
                model: self.path.clone(),
                source,
            })?;
        all_finite(&self.name, &embeddings)?;
        Ok(embeddings)
    }

    fn fingerprint(&self) -> String {
        self.embedder.card().fingerprint.clone()
    }

    fn width(&self) -> usize {
        self.embedder.width()
    }

    fn thresholds(&self) -> BTreeMap<String, f32> {
        self.embedder.card().thresholds.clone()
    }

    fn most(&self) -> usize {
        // A file of fixed batch is filled up when it gets fewer: more than that is run one after the other.
        self.embedder.fixed_batch().unwrap_or(usize::MAX)
    }

    fn status(&self) -> Option<Status> {
        Some(self.embedder.status())
    }

    fn description(&self) -> String {
        format!("{}: {}", self.name, self.embedder.description())
    }
}
