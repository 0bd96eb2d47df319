//! Opening a model through the cache: optimised models for the processor, engines for TensorRT.
//!
//! For the processor ONNX Runtime rewrites the graph at every start: it fuses operators and lays weights out for the
//! vectors of this very processor. The result is kept, and opening it later needs neither that work nor the memory for
//! two copies of the weights.

use std::fs;
use std::path::Path;

use ort::session::builder::GraphOptimizationLevel;

use super::environment::listening;
use super::open::{Attempt, Failure, Opening};
use crate::files::FileError;
use crate::runtime::cache::{Cache, Entry, Key, digest};
use crate::runtime::device::{self, Gpu};
use crate::runtime::tensorrt::{Engine, Folders};
use crate::runtime::{Provider, RuntimeError};

/// The optimised model inside its entry.
const MODEL: &str = "model.onnx";

impl Opening<'_> {
    /// SHA-256 of the model's file.
    pub(super) fn hash(&self) -> Result<String, RuntimeError> {
        let digest = digest(self.model.path);
        digest
            .map(|(_, hash)| hash)
            .map_err(|e| self.load_error(e.to_string()))
    }

    /// On the processor: opens the optimised model, made now if it isn't there. Whatever is wrong with the cache, the
    /// model itself still opens.
    pub(super) fn optimised(
        &self,
        cache: &Cache,
        providers: &[Provider],
    ) -> Result<Attempt, Failure> {
        let hash = self.hash()?;
        let entry = cache.entry(Key::new(
            "optimised",
            &self.model.card.name,
            vec![
                ("fingerprint", self.model.card.fingerprint.clone()),
                ("model", hash.clone()),
                ("processor", device::processor()),
                ("onnxruntime", self.loaded.build.into()),
            ],
        ))?;
        match self.entry(&entry, &hash) {
            Ok(attempt) => Ok(attempt),
            Err(reason) => {
                // If the model itself is at fault, this says so.
                let attempt = self.plain(providers)?;
                tracing::warn!(model = %self.model.path.display(), reason, "the optimised model is not kept");
                let _ = entry.clear();
                Ok(attempt)
            }
        }
    }

    fn entry(&self, entry: &Entry, hash: &str) -> Result<Attempt, String> {
        let text = |e: FileError| e.to_string();
        if entry.is_whole().map_err(text)? {
            match self.open_optimised(entry.folder()) {
                Ok((session, heard)) => return Ok((session, heard, Some(entry.used(true)))),
                Err(reason) => {
                    tracing::warn!(model = %self.model.path.display(), reason, "the optimised model is made anew");
                }
            }
        }
        entry.begin().map_err(text)?;
        let partial = entry
            .folder()
            .join(format!(".{}.partial", std::process::id()));
        let made = self
            .builder(GraphOptimizationLevel::All)
            .and_then(|b| Ok(b.with_optimized_model_path(&partial)?))
            .and_then(|mut builder| listening(|| builder.commit_from_file(self.model.path)).0);
        // The session is closed again: opened from the optimised file it takes half the memory, and a file that does
        // not open is found out now.
        drop(made.map_err(|e| e.to_string())?);
        if self.hash().map_err(|e| e.to_string())? != hash {
            return Err("the model was replaced while it was read".into());
        }
        fs::rename(&partial, entry.folder().join(MODEL)).map_err(|e| e.to_string())?;
        entry.finish().map_err(text)?;
        let (session, heard) = self.open_optimised(entry.folder())?;
        Ok((session, heard, Some(entry.used(false))))
    }

    fn open_optimised(
        &self,
        folder: &Path,
    ) -> Result<(ort::session::Session, Vec<String>), String> {
        let mut builder = self
            .builder(GraphOptimizationLevel::Disable)
            .map_err(|e| e.to_string())?;
        let (session, heard) = listening(|| builder.commit_from_file(folder.join(MODEL)));
        Ok((session.map_err(|e| e.to_string())?, heard))
    }

    /// With TensorRT: takes the engine from the cache, or builds it into the cache.
    pub(super) fn with_engine(
        &self,
        cache: &Cache,
        providers: &[Provider],
    ) -> Result<Attempt, Failure> {
        let hash = self.hash()?;
        let gpu = device::gpu(self.model.config.device);
        let engine = self.engine(&hash, gpu.as_ref());
        let unsuited = |reason| self.refused(Provider::TensorRt, reason);
        let broken = |source| RuntimeError::Cache { source };
        let entry = cache.entry(engine.key().map_err(unsuited)?)?;
        let timings = cache.shared(&self.timings(gpu.as_ref()))?;
        let options = engine
            .options(Some(&Folders {
                engine: entry.folder(),
                timings: &timings,
            }))
            .map_err(unsuited)?;
        let mut whole = entry.is_whole().map_err(broken)?;
        if whole {
            let before = entry.files().map_err(broken)?;
            match self.commit(providers, &options) {
                Ok((session, heard)) => {
                    let used = entry.used(true);
                    if used.files == before {
                        return Ok((session, heard, Some(used)));
                    }
                    // The library found the engine unfit and has built another one.
                    return Ok(self.keep(&entry, session, heard));
                }
                Err(failure) => {
                    let error = failure.error;
                    tracing::warn!(model = %self.model.path.display(), %error, "the engine does not open and is built anew");
                    whole = false;
                }
            }
        }
        debug_assert!(!whole);
        entry.begin().map_err(broken)?;
        if let Some(calibration) = &self.calibration {
            calibration.place(entry.folder()).map_err(broken)?;
        }
        match self.commit(providers, &options) {
            Ok((session, heard)) => Ok(self.keep(&entry, session, heard)),
            Err(failure) => {
                // Timings that were written half would make it fail again.
                let _ = fs::remove_dir_all(&timings);
                let _ = entry.clear();
                Err(failure)
            }
        }
    }

    /// Declares a built engine finished.
    fn keep(&self, entry: &Entry, session: ort::session::Session, heard: Vec<String>) -> Attempt {
        if let Err(error) = entry.finish() {
            tracing::warn!(model = %self.model.path.display(), %error, "the engine is not kept");
        }
        (session, heard, Some(entry.used(false)))
    }

    /// Folder of the kernels' timings, which hold for one GPU and one library.
    fn timings(&self, gpu: Option<&Gpu>) -> String {
        let (name, capability) = gpu.map_or(("unknown", "unknown"), |g| (&g.name, &g.capability));
        let fields = vec![
            ("device", name.to_string()),
            ("capability", capability.to_string()),
            ("onnxruntime", self.loaded.build.into()),
        ];
        Key::new("timings", name, fields).name()
    }

    pub(super) fn engine<'b>(&'b self, model: &'b str, gpu: Option<&'b Gpu>) -> Engine<'b> {
        Engine {
            config: self.model.config,
            card: self.model.card,
            file: self.model.file,
            input: self.model.input,
            model,
            gpu,
            library: self.loaded.build,
            calibration: self.calibration.as_ref(),
        }
    }
}
