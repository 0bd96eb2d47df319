//! What a training run left behind.

use std::path::{Path, PathBuf};

use reid_models::card::OutputSpec;
use reid_models::files;
use reid_models::graph::EMBEDDING;
use reid_models::probe::Probe;
use reid_models::weights::{self, Weights};
use reid_models::{Graph, ModelCard};

use crate::ExportError;

/// The files of a run folder that make up its model.
#[derive(Clone, Debug)]
pub struct Run {
    /// `graph.json`.
    pub graph: Graph,
    /// `model.safetensors`: exactly the graph's parameters.
    pub weights: Weights,
    /// `card.json`.
    pub card: ModelCard,
    /// `probe.safetensors`: the trainer's embeddings of the probe's crops.
    pub probe: Probe,
}

impl Run {
    /// Reads a run folder and checks that its files belong together.
    ///
    /// # Errors
    /// Naming the file that is missing, broken, or does not fit the others.
    pub fn read(folder: &Path) -> Result<Self, ExportError> {
        let graph_path = present(folder, "graph.json", "when training starts")?;
        let weights_path = present(folder, "model.safetensors", "at the end of every epoch")?;
        let card_path = present(folder, "card.json", "with the weights")?;
        let probe_path = present(folder, "probe.safetensors", "with the weights")?;

        let graph = Graph::from_json(&files::read_text(&graph_path)?).map_err(|source| {
            ExportError::Graph {
                path: graph_path.clone(),
                source,
            }
        })?;
        let (weights, report) = weights::select(&graph, &Weights::read(&weights_path)?);
        let mut problems = report.reshaped_refused;
        problems.extend(
            report
                .missing
                .iter()
                .map(|name| format!("{name} is missing")),
        );
        if !problems.is_empty() {
            return Err(ExportError::Weights {
                weights: weights_path,
                graph: graph_path,
                problems: shortened(&problems),
            });
        }
        for name in &report.unused {
            tracing::warn!(tensor = %name, file = %weights_path.display(), "not part of the graph, left out");
        }
        let card = ModelCard::read(&card_path)?;
        let run = Run {
            graph,
            weights,
            card,
            probe: Probe::read(&probe_path)?,
        };
        run.check(&card_path, &graph_path)?;
        Ok(run)
    }

    fn check(&self, card_path: &Path, graph_path: &Path) -> Result<(), ExportError> {
        let differs = |key, got: String, other: String| ExportError::CardDiffers {
            path: card_path.to_path_buf(),
            key,
            got,
            other,
        };
        let graph_error = |source| ExportError::Graph {
            path: graph_path.to_path_buf(),
            source,
        };
        let input = &self.card.input;
        let [channels, height, width] = self.graph.input_shape;
        if (channels, height, width) != (3, input.height, input.width) {
            return Err(differs(
                "input",
                format!("{} x {} pixels", input.height, input.width),
                format!("graph.json takes {channels} channels of {height} x {width} pixels"),
            ));
        }
        let got = self.graph.width(EMBEDDING).map_err(graph_error)?;
        match &self.card.output {
            OutputSpec::Embed { width, .. } if *width == got => {}
            OutputSpec::Embed { width, .. } => {
                return Err(differs(
                    "output.width",
                    width.to_string(),
                    format!("the graph's embedding has width {got}"),
                ));
            }
            _ => {
                return Err(differs(
                    "output.task",
                    "not `embed`".into(),
                    "a run's graph makes embeddings".into(),
                ));
            }
        }
        let probe_width = self.probe.embeddings.first().map_or(0, Vec::len);
        if probe_width != got {
            return Err(differs(
                "output.width",
                got.to_string(),
                format!("the embeddings in probe.safetensors have width {probe_width}"),
            ));
        }
        let fingerprint = weights::fingerprint(&self.weights, input);
        if self.card.fingerprint != fingerprint {
            return Err(differs(
                "fingerprint",
                self.card.fingerprint.clone(),
                format!("that of model.safetensors with this input is {fingerprint}"),
            ));
        }
        Ok(())
    }
}

fn present(folder: &Path, file: &'static str, when: &'static str) -> Result<PathBuf, ExportError> {
    let path = folder.join(file);
    if path.is_file() {
        Ok(path)
    } else {
        Err(ExportError::RunFile { path, file, when })
    }
}

/// The first few problems; a wrong file has hundreds of them.
fn shortened(problems: &[String]) -> String {
    const SHOWN: usize = 3;
    let mut text = problems
        .iter()
        .take(SHOWN)
        .cloned()
        .collect::<Vec<_>>()
        .join("; ");
    if problems.len() > SHOWN {
        text.push_str(&format!("; and {} more", problems.len() - SHOWN));
    }
    text
}
