//! `reid-train fit`: from a command line to a finished run folder.

use std::path::PathBuf;

use anyhow::{Context, Result};
use candle_core::Tensor;
use reid_models::backbones::BackboneConfig;
use reid_models::card::{CARD_VERSION, InputSpec, OutputSpec, TrainingSpec};
use reid_models::graph::EMBEDDING;
use reid_models::probe::{self, Probe};
use reid_models::weights::fingerprint;
use reid_models::{Graph, ModelCard};
use serde_json::Value;

use crate::capacity;
use crate::clustering::PseudoLabels;
use crate::config::{self, PrecisionConfig, RunConfig, usage};
use crate::data::{Spec, dataset};
use crate::extract::features;
use crate::methods::{self, Extract};
use crate::nn::device::{self, DeviceSpec, Opened};
use crate::nn::{Mode, Net};
use crate::run::RunFolder;
use crate::start::{check_loaded, name_of, starting_weights};
use crate::thresholds;
use crate::trainer::{Extractor, Others, Trainer};

/// What the command line says.
#[derive(Clone, Debug)]
pub struct FitOptions {
    /// Method by name.
    pub method: String,
    /// Training data.
    pub data: Spec,
    /// A labelled data set that the start was trained on: see [`Others`].
    pub source: Option<Spec>,
    /// A data set whose pictures the batch norms see as well.
    pub beside: Option<Spec>,
    /// Run folder to make or to continue.
    pub out: PathBuf,
    /// Preset by name; the method's own if absent.
    pub preset: Option<String>,
    /// Configuration file over the preset.
    pub config: Option<PathBuf>,
    /// `key=value` over both.
    pub sets: Vec<String>,
    /// Starting weights: a file, `zoo:NAME`, `hf:REPO` or `random`; the configuration's `model.init` if absent.
    pub init: Option<String>,
    /// Where to compute.
    pub device: DeviceSpec,
    /// Continue a run that was interrupted.
    pub resume: bool,
}

/// Trains, then writes model, card and probe; returns the last row of metrics.
///
/// # Errors
/// A usage error before anything is written, or the failure that stopped the training.
pub fn fit(options: &FitOptions) -> Result<Value> {
    let about = methods::find(&options.method)?;
    let (run, config) = if options.resume {
        let run = RunFolder::open(&options.out)?;
        let config = run.config()?;
        if config.method != options.method {
            return Err(usage(format!(
                "--method {}: the run in {} is of the method {}",
                options.method,
                options.out.display(),
                config.method
            )));
        }
        (Some(run), config)
    } else {
        let preset = options.preset.as_deref();
        let config = config::load(
            &options.method,
            preset,
            options.config.as_deref(),
            &options.sets,
        )?;
        (None, config)
    };
    let dataset = dataset::load(&options.data)?;
    if let Some(verdict) = &dataset.verdict {
        tracing::info!("{verdict}");
    }
    let graph = config.model.graph()?;
    let other = |spec: &Option<Spec>| spec.as_ref().map(dataset::load).transpose();
    let (source, beside) = (other(&options.source)?, other(&options.beside)?);
    let others = Others::of(&config, source.as_ref(), beside.as_ref())?;
    require_memory(&graph)?;
    let opened = open_device(options.device, &config)?;
    tracing::info!("computing on {}", opened.description);
    let init = options.init.as_deref().unwrap_or(&config.model.init);
    // A resumed run has its weights in the checkpoint; a run that died before its first checkpoint starts over.
    let start = starting_weights(init)?;
    let (method, report) = (about.build)(&config, &opened.device, graph.clone(), start.as_ref())?;
    if start.is_some() {
        check_loaded(init, &graph, &report)?;
    }
    let run = match run {
        Some(run) => run,
        None => RunFolder::create(&options.out, &config, &graph)?,
    };
    let mut trainer = Trainer::new(
        config.clone(),
        run.clone(),
        method,
        dataset,
        others,
        name_of(init),
    )?;
    if options.resume {
        trainer.resume()?;
    }
    let last = trainer.fit()?;
    finish(&run, &config, &graph, &mut trainer)?;
    Ok(last)
}

/// Refuses a network whose parameters alone would not fit. What a batch needs on top depends on much more.
fn require_memory(graph: &Graph) -> Result<()> {
    let count: u64 = graph
        .params
        .iter()
        .map(|p| {
            p.shape
                .iter()
                .fold(1u64, |n, d| n.saturating_mul(*d as u64))
        })
        .fold(0, u64::saturating_add);
    // The parameters, their gradients and Adam's two moments, 4 bytes each.
    Ok(capacity::require(
        &format!(
            "the {:.1} million parameters of {}, with gradients and moments,",
            count as f64 / 1e6,
            graph.name
        ),
        count.saturating_mul(4 * 4),
        "lower model.width or choose a smaller model.backbone",
    )?)
}

/// Writes `probe.safetensors`, `card.json` and, last, `model.safetensors`.
fn finish(run: &RunFolder, config: &RunConfig, graph: &Graph, trainer: &mut Trainer) -> Result<()> {
    let backbone = config.model.backbone()?;
    let input = InputSpec::imagenet(backbone.height, backbone.input_width);
    let PseudoLabels { mut labels, .. } = trainer.relabel_finally()?;
    let net = trainer.method().net();
    let rows = features(net, trainer.store())?;
    // True labels know nothing of pictures that cannot be read.
    rows.missing.iter().for_each(|i| labels[*i] = None);
    let cameras: Vec<u32> = trainer.store().samples().iter().map(|s| s.camera).collect();
    let weights = net.to_weights()?;
    let card = ModelCard {
        version: CARD_VERSION,
        name: model_name(&backbone, graph),
        output: OutputSpec::Embed {
            tensor: Some(EMBEDDING.into()),
            width: graph.width(EMBEDDING)?,
            normalized: true,
        },
        training: Some(TrainingSpec {
            method: config.method.clone(),
            data: trainer.data_summary(),
            init: trainer.init().into(),
            epochs: config.train.epochs,
            seed: config.seed,
        }),
        license: None,
        toolkit: env!("CARGO_PKG_VERSION").into(),
        thresholds: thresholds::measure(&rows, &labels, &cameras, config.seed),
        fingerprint: fingerprint(&weights, &input),
        input,
    };
    probe_of(net, &card.input)?.write(&run.file("probe.safetensors"))?;
    card.write(&run.file("card.json"))?;
    weights.write(&run.file("model.safetensors"))?;
    Ok(())
}

fn model_name(backbone: &BackboneConfig, graph: &Graph) -> String {
    format!(
        "{}-w{}-{}x{}",
        graph.name, backbone.width, backbone.height, backbone.input_width
    )
}

/// The embeddings this network gives for the probe's crops.
fn probe_of(net: &Net, input: &InputSpec) -> Result<Probe> {
    let count = probe::crops().len();
    let images = Tensor::from_vec(
        probe::inputs(input),
        (count, 3, input.height, input.width),
        net.device(),
    )?;
    let outputs = net.forward_no_grad(&images, Mode::Eval, &[EMBEDDING])?;
    let embedding = outputs
        .get(EMBEDDING)
        .context("the network has no embedding")?;
    Ok(Probe {
        embeddings: embedding.to_vec2()?,
    })
}

/// Opens the device a configuration asks for; what it can't do is a mistake of the command line or the configuration.
///
/// # Errors
/// A usage error.
pub fn open_device(spec: DeviceSpec, config: &RunConfig) -> Result<Opened> {
    let train = &config.train;
    device::open(spec, train.precision.wanted(), train.deterministic)
        .map_err(|e| usage(e.to_string()))
}

/// Loads the network of a finished run onto a device.
///
/// # Errors
/// If the device can't be opened, the run isn't finished, or graph and weights don't fit.
pub fn load_net(run: &RunFolder, spec: DeviceSpec) -> Result<Net> {
    let mut config = run.config()?;
    if !device::is_gpu(spec) {
        // What was trained in any precision can be run in f32.
        config.train.precision = PrecisionConfig::Auto;
    }
    let opened = open_device(spec, &config)?;
    tracing::info!("computing on {}", opened.description);
    let mut net = Net::new(run.graph()?, 0, &opened.device)?;
    let weights = run.weights()?;
    let report = net.load(&weights)?;
    if let Some(missing) = report.missing.first().or(report.reshaped_refused.first()) {
        anyhow::bail!(
            "{}: does not fit graph.json: {missing}",
            run.file("model.safetensors").display()
        );
    }
    Ok(net)
}

impl Trainer {
    /// Labels by the finished network, for measuring thresholds.
    fn relabel_finally(&mut self) -> Result<PseudoLabels> {
        let epoch = self.config.train.epochs;
        let mut extractor = Extractor {
            store: &self.store,
            dataset: &self.dataset,
            source: self.others.source.as_ref(),
        };
        let extractor: &mut dyn Extract = &mut extractor;
        self.method.relabel(epoch, extractor)
    }

    fn data_summary(&self) -> String {
        let train = self.dataset.describe().train;
        format!(
            "{}: {} pictures, {} cameras",
            self.dataset.name,
            train.images,
            train.cameras.len()
        )
    }
}
