//! Run folders as the trainer leaves them, made here without training.

use std::collections::BTreeMap;
use std::path::Path;

use reid_models::backbones::{Backbone, BackboneConfig};
use reid_models::card::{CARD_VERSION, InputSpec, OutputSpec, TrainingSpec};
use reid_models::graph::{EMBEDDING, POOLED};
use reid_models::heads::pooling::Pooling;
use reid_models::probe::{self, Probe};
use reid_models::runtime::Backend;
use reid_models::runtime::{RuntimeConfig, library};
use reid_models::weights::{Weights, fingerprint};
use reid_models::{Graph, ModelCard};

use crate::reference;

/// Seeded draws (SplitMix64), the same everywhere.
pub(crate) struct Draw(u64);

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        Draw(seed)
    }

    /// Uniform in 0..1.
    pub(crate) fn uniform(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Roughly normal, standard deviation 1.
    pub(crate) fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }
}

pub(crate) fn network(backbone: Backbone, width: usize, pooling: Pooling) -> Graph {
    BackboneConfig {
        backbone,
        width,
        pooling,
        height: 64,
        input_width: 32,
        ..Default::default()
    }
    .build()
    .unwrap()
}

/// Weights far from their starts, so that no part of the arithmetic cancels.
pub(crate) fn random_weights(graph: &Graph, seed: u64) -> Weights {
    let mut draw = Draw::new(seed);
    let mut weights = Weights::default();
    for param in &graph.params {
        let n: usize = param.shape.iter().product();
        let fan_in: usize = param.shape.iter().skip(1).product();
        let mut value = || match param.shape.len() {
            4 => draw.normal() * (2.0 / fan_in as f32).sqrt(),
            2 => draw.normal() * (1.0 / fan_in as f32).sqrt(),
            _ if param.name == "pool.p" => 3.2,
            _ if param.name == "neck.bias" => 0.0,
            _ if param.name.ends_with("running_var") || param.name.ends_with("weight") => {
                0.5 + draw.uniform()
            }
            _ => 0.2 * draw.normal(),
        };
        let data = (0..n).map(|_| value()).collect();
        weights
            .tensors
            .insert(param.name.clone(), (param.shape.clone(), data));
    }
    weights
}

/// Gives the neck the statistics of the probe, as training would: the embeddings spread over the sphere, and a cosine
/// near 1 means something.
pub(crate) fn settle_neck(graph: &Graph, weights: &mut Weights) {
    let pooled = probe_tensors(graph, weights, POOLED);
    let (n, width) = (pooled.len() as f32, pooled[0].len());
    let mean: Vec<f32> = (0..width)
        .map(|k| pooled.iter().map(|row| row[k]).sum::<f32>() / n)
        .collect();
    let variance = (0..width)
        .map(|k| {
            pooled
                .iter()
                .map(|row| (row[k] - mean[k]).powi(2))
                .sum::<f32>()
                / n
                + 1e-6
        })
        .collect();
    weights.tensors.get_mut("neck.running_mean").unwrap().1 = mean;
    weights.tensors.get_mut("neck.running_var").unwrap().1 = variance;
}

fn probe_tensors(graph: &Graph, weights: &Weights, role: &str) -> Vec<Vec<f32>> {
    let [channels, height, width] = graph.input_shape;
    let inputs = probe::inputs(&InputSpec::imagenet(height, width));
    inputs
        .chunks_exact(channels * height * width)
        .map(|image| reference::run(graph, weights, image, graph.output(role).unwrap()))
        .collect()
}

pub(crate) fn card(graph: &Graph, weights: &Weights) -> ModelCard {
    let input = InputSpec::imagenet(graph.input_shape[1], graph.input_shape[2]);
    ModelCard {
        version: CARD_VERSION,
        name: graph.name.clone(),
        output: OutputSpec::Embed {
            tensor: None,
            width: graph.width(EMBEDDING).unwrap(),
            normalized: true,
        },
        training: Some(TrainingSpec {
            method: "none".into(),
            data: "none".into(),
            init: "drawn".into(),
            epochs: 0,
            seed: 7,
        }),
        license: Some("MIT OR Apache-2.0".into()),
        toolkit: "0.0.0".into(),
        thresholds: BTreeMap::from([("match".into(), 0.61)]),
        fingerprint: fingerprint(weights, &input),
        input,
    }
}

/// Writes the four files of a run whose probe is what the reference executor gives.
pub(crate) fn write(folder: &Path, graph: &Graph, weights: &Weights) {
    let embeddings = probe_tensors(graph, weights, EMBEDDING);
    std::fs::write(folder.join("graph.json"), graph.to_json().unwrap()).unwrap();
    weights.write(&folder.join("model.safetensors")).unwrap();
    card(graph, weights)
        .write(&folder.join("card.json"))
        .unwrap();
    Probe { embeddings }
        .write(&folder.join("probe.safetensors"))
        .unwrap();
}

/// A small run that exports in a moment.
pub(crate) fn write_small(folder: &Path) {
    let graph = network(Backbone::Resnet18, 4, Pooling::Gap);
    let mut weights = random_weights(&graph, 7);
    settle_neck(&graph, &mut weights);
    write(folder, &graph, &weights);
}

/// Engines of this machine; says so when ONNX Runtime is not one of them.
pub(crate) fn engines(test: &str) -> Vec<RuntimeConfig> {
    let mut backends = vec![Backend::Tract];
    if library::find(None).unwrap().is_some() {
        backends.push(Backend::OnnxRuntime);
    } else {
        println!("skipped: {test} with ONNX Runtime (no library found, set REID_ONNXRUNTIME)");
    }
    backends
        .into_iter()
        .map(|backend| RuntimeConfig {
            backend,
            ..Default::default()
        })
        .collect()
}
