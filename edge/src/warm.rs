//! `reid-edge warm`: makes ahead what would make the first start slow: TensorRT engines, optimised models.
//!
//! Every model of a configuration is opened exactly as `reid-edge run` would open it, but without a fallback: what was
//! asked for is built, or the report says why it cannot be.

use std::fmt;
use std::path::PathBuf;
use std::time::Instant;

use reid_models::runtime::{self, Backend, Progress, RuntimeConfig, Session, Status};
use serde::Serialize;

use crate::config::{DetectorKind, EdgeConfig, EmbedderKind};

/// A model that is to be warmed.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Section of the configuration that names it: "detector" or "embedder".
    pub role: &'static str,
    /// ONNX file.
    pub model: PathBuf,
    /// What it runs with.
    pub runtime: RuntimeConfig,
}

/// The models that a configuration names; none for a motion detector and a histogram embedder.
pub fn configured(config: &EdgeConfig) -> Vec<Wanted> {
    let (detector, embedder) = (&config.detector, &config.embedder);
    let detector = (detector.kind == DetectorKind::Onnx)
        .then(|| ("detector", detector.model.clone(), detector.runtime()));
    let embedder = (embedder.kind == EmbedderKind::Onnx)
        .then(|| ("embedder", embedder.model.clone(), embedder.runtime()));
    [detector, embedder]
        .into_iter()
        .flatten()
        .filter_map(|(role, model, runtime)| {
            Some(Wanted {
                role,
                model: model?,
                runtime,
            })
        })
        .collect()
}

/// What became of one model.
#[derive(Clone, Debug, Serialize)]
pub struct Warmed {
    /// Section of the configuration.
    pub role: &'static str,
    /// ONNX file.
    pub model: PathBuf,
    /// Whether it is ready for a quick start.
    pub ok: bool,
    /// Seconds that opening took.
    pub seconds: f64,
    /// Engine, provider and library, for people.
    pub engine: Option<String>,
    /// The same for programs, with what lies in the cache and whether it was there before.
    pub status: Option<Status>,
    /// What is wrong, and the remedy.
    pub error: Option<String>,
}

/// What became of all models.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether all are ready.
    pub ok: bool,
    /// In the order given.
    pub models: Vec<Warmed>,
}

/// Opens every model and says what became of it; one that fails stops none of the others. `progress` is told every few
/// seconds, from another thread, that a long build goes on.
pub fn warm(models: &[Wanted], progress: &(dyn Fn(&Progress) + Sync)) -> Report {
    warm_with(models, &|wanted: &Wanted| {
        let card = runtime::read_card(&wanted.model).map_err(|e| e.to_string())?;
        runtime::open_with_progress(&wanted.model, &card, &wanted.runtime, progress)
            .map_err(|e| e.to_string())
    })
}

fn warm_with(
    models: &[Wanted],
    open: &dyn Fn(&Wanted) -> Result<Box<dyn Session>, String>,
) -> Report {
    let models: Vec<Warmed> = models
        .iter()
        .map(|wanted| {
            // A fallback would hide that the engine was not built.
            let mut wanted = wanted.clone();
            wanted.runtime.fallback = false;
            let begun = Instant::now();
            let opened = open(&wanted);
            let seconds = begun.elapsed().as_secs_f64();
            let (engine, status, error) = match opened {
                Ok(session) => {
                    let status = session.status();
                    let error = (wanted.runtime.cache.is_none()
                        && status.engine == Backend::OnnxRuntime)
                        .then(|| "runtime.cache names no folder, so nothing is kept for the next start: set it".into());
                    (Some(session.description()), Some(status), error)
                }
                Err(error) => (None, None, Some(error)),
            };
            Warmed {
                role: wanted.role,
                model: wanted.model,
                ok: error.is_none(),
                seconds,
                engine,
                status,
                error,
            }
        })
        .collect();
    Report {
        ok: models.iter().all(|m| m.ok),
        models,
    }
}

impl fmt::Display for Warmed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.role, self.model.display())?;
        if let Some(engine) = &self.engine {
            write!(f, "{engine}; {:.1} s", self.seconds)?;
        }
        if let Some(error) = &self.error {
            let gap = if self.engine.is_some() { "; " } else { "" };
            return write!(f, "{gap}{error}");
        }
        let Some(cache) = self.status.as_ref().and_then(|s| s.cache.as_ref()) else {
            return write!(f, "; nothing to keep");
        };
        let was = if cache.hit {
            "was in the cache"
        } else {
            "built into the cache"
        };
        write!(
            f,
            "; {was}, {:.1} MB in {}",
            cache.bytes() as f64 / 1e6,
            cache.entry
        )?;
        for file in &cache.files {
            write!(f, "\n    {} {} bytes", file.name, file.bytes)?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.models.is_empty() {
            return writeln!(f, "the configuration names no model: nothing to warm");
        }
        for model in &self.models {
            writeln!(f, "{} {model}", if model.ok { "ok  " } else { "FAIL" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::RefCell;

    use reid_models::runtime::{CacheUse, CachedFile, Provider, RuntimeError, Tensor};

    use super::*;

    struct Fake(Status);

    impl Session for Fake {
        fn run(&mut self, _: usize, _: &[f32]) -> Result<Vec<(String, Tensor)>, RuntimeError> {
            Ok(Vec::new())
        }
        fn description(&self) -> String {
            "onnxruntime on tensorrt".into()
        }
        fn backend(&self) -> Backend {
            self.0.engine
        }
        fn status(&self) -> Status {
            self.0.clone()
        }
    }

    fn wanted(role: &'static str, model: &str, cache: bool) -> Wanted {
        Wanted {
            role,
            model: model.into(),
            runtime: RuntimeConfig {
                providers: vec![Provider::TensorRt, Provider::Cpu],
                fallback: true,
                cache: cache.then(|| "cache".into()),
                ..Default::default()
            },
        }
    }

    fn status(engine: Backend, hit: Option<bool>) -> Status {
        let mut status = Status::on_processor(engine, vec![Provider::TensorRt]);
        status.cache = hit.map(|hit| CacheUse {
            entry: "tensorrt-m-00".into(),
            hit,
            files: vec![CachedFile {
                name: "m.engine".into(),
                bytes: 2_500_000,
            }],
        });
        status
    }

    #[test]
    fn every_model_is_opened_without_a_fallback_and_none_stops_the_others() {
        let seen = RefCell::new(Vec::new());
        let open = |wanted: &Wanted| -> Result<Box<dyn Session>, String> {
            assert!(
                !wanted.runtime.fallback,
                "an engine that isn't built must show"
            );
            let name = wanted.model.display().to_string();
            seen.borrow_mut().push(name.clone());
            match name.as_str() {
                "bad" => Err("bad: no GPU".into()),
                "hit" => Ok(Box::new(Fake(status(Backend::OnnxRuntime, Some(true))))),
                "tract" => Ok(Box::new(Fake(status(Backend::Tract, None)))),
                _ => Ok(Box::new(Fake(status(Backend::OnnxRuntime, Some(false))))),
            }
        };
        let report = warm_with(
            &[
                wanted("detector", "bad", true),
                wanted("embedder", "built", true),
                wanted("embedder", "hit", true),
                wanted("embedder", "tract", false),
                wanted("embedder", "unkept", false),
            ],
            &open,
        );
        assert_eq!(*seen.borrow(), ["bad", "built", "hit", "tract", "unkept"]);
        let ok: Vec<bool> = report.models.iter().map(|m| m.ok).collect();
        assert_eq!(ok, [false, true, true, true, false]);
        assert!(!report.ok);
        let text = report.to_string();
        for line in [
            "FAIL detector bad: bad: no GPU",
            "ok   embedder built: onnxruntime on tensorrt; ",
            "built into the cache, 2.5 MB in tensorrt-m-00",
            "was in the cache, 2.5 MB",
            "    m.engine 2500000 bytes",
            "nothing to keep",
            "runtime.cache names no folder",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["models"][1]["status"]["cache"]["hit"], false);
        assert_eq!(json["models"][0]["error"], "bad: no GPU");
    }

    #[test]
    fn a_missing_model_and_a_file_that_is_none_are_both_reported() {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().join("text.onnx");
        std::fs::write(&text, "I am no model").unwrap();
        let missing = dir.path().join("missing.onnx");
        let models = [
            wanted("detector", missing.to_str().unwrap(), true),
            wanted("embedder", text.to_str().unwrap(), true),
        ];
        let report = warm(&models, &|_| ());
        for (warmed, name) in report.models.iter().zip(["missing.onnx", "text.onnx"]) {
            assert!(!warmed.ok);
            assert!(warmed.error.as_ref().unwrap().contains(name), "{warmed}");
        }
        assert!(!report.ok);
        assert!(warm(&[], &|_| ()).ok);
    }

    #[test]
    fn a_configuration_without_models_has_nothing_to_warm() {
        let text = "[[camera]]\nname = \"a\"\nsource = \"a.mp4\"\n[detector]\nkind = \"motion\"\n[embedder]\nkind = \"histogram\"\n";
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.mp4"), b"").unwrap();
        let config = EdgeConfig::parse(text, &dir.path().join("edge.toml")).unwrap();
        assert!(configured(&config).is_empty());
        let report = warm(&configured(&config), &|_| ());
        assert!(report.ok && report.to_string().contains("nothing to warm"));
    }
}
