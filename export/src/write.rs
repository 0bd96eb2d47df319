//! From a run folder to a verified file.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use reid_models::card::OutputSpec;
use reid_models::files::Unfinished;
use reid_models::graph::EMBEDDING;
use serde::Serialize;

use crate::ExportError;
use crate::fold::fold;
use crate::onnx::{self, Content};
use crate::run::Run;
use crate::verify::{self, Verification};

/// How many pictures a file takes at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Batch {
    /// Any number.
    #[default]
    Dynamic,
    /// Exactly so many: some accelerators build faster engines for a fixed shape.
    Fixed(usize),
}

impl FromStr for Batch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("dynamic", _) => Ok(Batch::Dynamic),
            (_, Ok(n @ 1..=1024)) => Ok(Batch::Fixed(n)),
            _ => Err(format!(
                "must be `dynamic` or a number from 1 to 1024, got `{text}`"
            )),
        }
    }
}

/// Number format of the weights and of the arithmetic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit float.
    #[default]
    Fp32,
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "fp32" => Ok(Precision::Fp32),
            _ => Err(format!("this build writes fp32, got `{text}`")),
        }
    }
}

/// Choices of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportOptions {
    /// Batch axis.
    pub batch: Batch,
    /// Operator set, one of [`onnx::OPSETS`].
    pub opset: i64,
    /// Number format.
    pub precision: Precision,
}

impl Default for ExportOptions {
    fn default() -> Self {
        ExportOptions {
            batch: Batch::Dynamic,
            opset: *onnx::OPSETS.start(),
            precision: Precision::Fp32,
        }
    }
}

/// What was written.
#[derive(Clone, Debug, Serialize)]
pub struct Exported {
    /// The file.
    pub file: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Operators in it.
    pub nodes: usize,
    /// Batch norms that disappeared into weights.
    pub batch_norms_folded: usize,
    /// Width of the embedding.
    pub width: usize,
    /// Operator set.
    pub opset: i64,
    /// Number format.
    pub precision: Precision,
    /// What the engines gave for the probe.
    #[serde(flatten)]
    pub verification: Verification,
}

/// Writes the embedding network of a run folder as ONNX. The file appears under its name only after every engine of
/// this machine has given the trainer's embeddings for the probe; otherwise nothing is left behind and an older file of
/// that name is untouched.
///
/// # Errors
/// If the run folder is incomplete or contradicts itself, the file can't be written, or an engine gives other embeddings.
pub fn export(run: &Path, out: &Path, options: &ExportOptions) -> Result<Exported, ExportError> {
    let mut run = Run::read(run)?;
    let folded = fold(&run.graph, &run.weights).map_err(graph_error)?;
    let width = run.graph.width(EMBEDDING).map_err(graph_error)?;
    run.card.input.fixed_batch = match options.batch {
        Batch::Dynamic => None,
        Batch::Fixed(n) => Some(n),
    };
    run.card.output = OutputSpec::Embed {
        tensor: Some(onnx::OUTPUT.into()),
        width,
        normalized: true,
    };
    run.card.toolkit = env!("CARGO_PKG_VERSION").into();
    let content = Content {
        card: &run.card,
        probe: &run.probe,
        width,
        opset: options.opset,
    };
    let model = onnx::build(&folded, &content)?;
    let nodes = model.graph.as_ref().map_or(0, |g| g.node.len());
    let bytes = onnx::encode(&model, out)?;

    let mut unfinished = Unfinished::beside(out)?;
    unfinished.fill(|file| file.write_all(&bytes))?;
    let verification = verify::verify(unfinished.path(), None)?;
    if let Some(bad) = verification.backends.iter().find(|v| !v.passed()) {
        return Err(ExportError::NotTheSame {
            path: out.to_path_buf(),
            backend: bad.backend,
            min_cosine: bad.min_cosine,
            max_abs: bad.max_abs,
        });
    }
    unfinished.keep()?;
    Ok(Exported {
        file: out.to_path_buf(),
        bytes: bytes.len() as u64,
        nodes,
        batch_norms_folded: folded.batch_norms_folded,
        width,
        opset: options.opset,
        precision: options.precision,
        verification,
    })
}

fn graph_error(source: reid_models::graph::GraphError) -> ExportError {
    ExportError::Graph {
        path: PathBuf::from("graph.json"),
        source,
    }
}
