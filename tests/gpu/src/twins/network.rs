//! Whole networks: some steps of training as a method makes them, then the network in evaluation.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reid_models::backbones::{Backbone, BackboneConfig};
use reid_models::heads::pooling::Pooling;
use reid_train::nn::optim::{Adam, AdamConfig, ParamGroup};
use reid_train::nn::{Mode, Net, RunningFrom, backward, ops};

/// What came of a training: losses, the gradients' norms and, after the last step, embeddings of both networks.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// One a step.
    pub losses: Vec<f32>,
    /// One a step.
    pub norms: Vec<f64>,
    /// Of the student, then of its moving average; rows of unit length.
    pub embeddings: Vec<f32>,
}

/// The networks that are trained, by name.
pub const NETWORKS: &[(&str, Backbone, Pooling)] = &[
    ("resnet18, mean", Backbone::Resnet18, Pooling::Gap),
    ("resnet50, GeM", Backbone::Resnet50, Pooling::Gem),
    ("resnet50_ibn_a, mean", Backbone::Resnet50IbnA, Pooling::Gap),
];

/// Trains a small network for three steps on `device`: two groups of batch statistics, Adam, a moving average. Every pixel is
/// off by a random factor of up to `1 + nudge`: what rounding of that size does to a network says how much another order of
/// sums may do.
///
/// # Errors
/// If an operator fails.
pub fn train(
    device: &Device,
    (backbone, pooling): (Backbone, Pooling),
    nudge: f32,
) -> Result<Trained> {
    let config = BackboneConfig {
        backbone,
        pooling,
        width: 8,
        height: 64,
        input_width: 32,
        ..BackboneConfig::default()
    };
    let graph = config.build()?;
    let mut student = Net::new(graph.clone(), 5, device)?;
    student.set_norm_groups(2, RunningFrom::Mean);
    let teacher = Net::new(graph, 5, device)?;
    teacher.clone_weights_from(&student)?;
    let group = ParamGroup::new(student.trainable());
    let mut adam = Adam::new(vec![group], AdamConfig::default())?;
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let mut images = |count: usize| {
        let values: Vec<f32> = (0..count * 3 * 64 * 32)
            .map(|_| {
                let value = random.random::<f32>() * 4.0 - 2.0;
                value * (1.0 + nudge * (random.random::<f32>() * 2.0 - 1.0))
            })
            .collect();
        Tensor::from_vec(values, (count, 3, 64, 32), device)
    };
    let classes: Vec<f32> = (0..8 * student.graph().width("neck")?)
        .map(|i| ((i * 7919 % 1009) as f32 / 504.0 - 1.0) * 0.05)
        .collect();
    let classes = Tensor::from_vec(classes, (8, ()), device)?;
    let mut trained = Trained {
        losses: Vec::new(),
        norms: Vec::new(),
        embeddings: Vec::new(),
    };
    for _ in 0..3 {
        let out = student.forward(&images(8)?, Mode::Train, &["neck"])?;
        let logits = ops::linear(&out["neck"], &classes, None)?;
        // Picture i is of class i.
        let own = (Tensor::eye(8, DType::F32, device)? * ops::log_softmax(&logits)?)?;
        let loss = (own.sum_all()?.neg()? / 8.0)?;
        let grads = backward(&loss)?;
        let norm = adam.step_later(&grads, 3.5e-4)?;
        teacher.ema_update(&student, 0.9)?;
        trained.losses.push(loss.to_scalar()?);
        trained.norms.push(norm.read()?);
    }
    let test = images(4)?;
    for net in [&student, &teacher] {
        let out = net.forward_no_grad(&test, Mode::Eval, &["embedding"])?;
        trained
            .embeddings
            .extend(out["embedding"].flatten_all()?.to_vec1::<f32>()?);
    }
    Ok(trained)
}

impl Trained {
    /// How far this is from another: the largest relative difference of losses and norms, and of two embeddings of one
    /// picture (one minus their cosine).
    pub fn distance(&self, other: &Trained) -> [f64; 2] {
        let mut off = 0f64;
        let pairs = self.losses.iter().zip(&other.losses);
        let losses = pairs.map(|(a, b)| (f64::from(*a), f64::from(*b)));
        for (a, b) in losses.chain(self.norms.iter().copied().zip(other.norms.iter().copied())) {
            let d = (a - b).abs() / b.abs();
            if d.is_nan() || d > off {
                off = d;
            }
        }
        let width = self.embeddings.len() / 8;
        let cosine = |(a, b): (&[f32], &[f32])| -> f64 {
            a.iter()
                .zip(b)
                .map(|(a, b)| f64::from(*a) * f64::from(*b))
                .sum()
        };
        let rows = self
            .embeddings
            .chunks(width)
            .zip(other.embeddings.chunks(width));
        let least = rows.map(cosine).fold(1.0, f64::min);
        [off, 1.0 - least]
    }
}
