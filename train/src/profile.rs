//! `reid-train profile`: where the time of a training step goes, operator by operator.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use candle_core::Tensor;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reid_models::graph::EMBEDDING;
use serde_json::{Value, json};

use crate::config::{self, usage};
use crate::fit::open_device;
use crate::nn::device::DeviceSpec;
use crate::nn::optim::{Adam, AdamConfig, ParamGroup};
use crate::nn::profile::{self, Direction, Row};
use crate::nn::{self, Mode, Net};

/// Options of the command.
#[derive(Clone, Debug, clap::Args)]
pub struct ProfileOptions {
    /// Method whose network is measured (see `reid-train methods`).
    #[arg(long, default_value = "ice")]
    pub method: String,
    /// Preset; the method's own if absent.
    #[arg(long)]
    pub preset: Option<String>,
    /// Configuration file over the preset.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// key=value over both, for example model.size=128x256. May be given several times.
    #[arg(long = "set")]
    pub sets: Vec<String>,
    /// Images of a step; the preset's identities x instances if absent.
    #[arg(long)]
    pub batch: Option<usize>,
    /// Steps measured, after two that are not.
    #[arg(long, default_value_t = 5)]
    pub steps: usize,
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Architecture.
    pub network: String,
    /// Where it was computed, and how.
    pub device: String,
    /// Images of a step.
    pub batch: usize,
    /// Steps.
    pub steps: usize,
    /// Wall time of all of them.
    pub seconds: f64,
    /// Per operator, the most expensive first.
    pub rows: Vec<Row>,
}

/// Forward, backward and Adam on random images.
///
/// # Errors
/// A [`config::UsageError`] for options out of range, or if the network can't be built.
pub fn measure(options: &ProfileOptions, device: DeviceSpec) -> Result<Measured> {
    let preset = options.preset.as_deref();
    let config = config::load(
        &options.method,
        preset,
        options.config.as_deref(),
        &options.sets,
    )?;
    let batch = options
        .batch
        .unwrap_or(config.train.identities * config.train.instances);
    if batch < 2 || options.steps == 0 {
        return Err(usage(
            "--batch must be at least 2 (batch norm needs company) and --steps at least 1",
        ));
    }
    let graph = config.model.graph()?;
    let network = graph.name.clone();
    let [c, h, w] = graph.input_shape;
    let opened = open_device(device, &config)?;
    let net = Net::new(graph, config.seed, &opened.device)?;
    let mut adam = Adam::new(
        vec![ParamGroup::new(net.trainable())],
        AdamConfig::default(),
    )?;
    let mut random = ChaCha8Rng::seed_from_u64(config.seed);
    let values = (0..batch * c * h * w).map(|_| random.random::<f32>() - 0.5);
    let images = Tensor::from_vec(values.collect::<Vec<_>>(), (batch, c, h, w), &opened.device)?;
    let mut one = || -> Result<()> {
        let y = net.forward(&images, Mode::Train, &[EMBEDDING])?;
        let grads = nn::backward(&y[EMBEDDING].sqr()?.mean_all()?)?;
        profile::timed("adam", Direction::Backward, || adam.step(&grads, 1e-5))?;
        Ok(())
    };
    for _ in 0..2 {
        one()?;
    }
    profile::start();
    let start = Instant::now();
    for _ in 0..options.steps {
        one()?;
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(Measured {
        network,
        device: opened.description,
        batch,
        steps: options.steps,
        seconds,
        rows: profile::finish(),
    })
}

impl Measured {
    /// Images per second.
    pub fn rate(&self) -> f64 {
        (self.batch * self.steps) as f64 / self.seconds
    }

    /// For people.
    pub fn text(&self) -> String {
        format!(
            "{}, batch {}: {:.1} images/s on {}\n{}",
            self.network,
            self.batch,
            self.rate(),
            self.device,
            profile::table(&self.rows, self.steps)
        )
    }

    /// For programs: times in seconds, of all steps together.
    pub fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|r| {
                json!({
                    "operator": r.operator,
                    "backward": r.direction == Direction::Backward,
                    "calls": r.calls,
                    "seconds": r.seconds,
                    "flops": r.flops,
                    "bytes": r.bytes,
                })
            })
            .collect();
        json!({
            "network": self.network,
            "device": self.device,
            "batch": self.batch,
            "steps": self.steps,
            "images_per_second": self.rate(),
            "operators": rows,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_operator_of_a_step_is_counted() {
        let options = ProfileOptions {
            method: "ice".into(),
            preset: Some("ice_small".into()),
            config: None,
            sets: vec!["model.width=4".into(), "model.size=16x32".into()],
            batch: Some(4),
            steps: 3,
        };
        let measured = measure(&options, DeviceSpec::Cpu).unwrap();
        let calls = |name: &str, direction| -> u64 {
            let rows = measured.rows.iter();
            rows.filter(|r| r.operator.starts_with(name) && r.direction == direction)
                .map(|r| r.calls)
                .sum()
        };
        // 20 convolutions of a ResNet-18 in each of 3 steps; the largest are forward and backward alike.
        assert_eq!(calls("conv", Direction::Forward), 60);
        assert_eq!(calls("conv", Direction::Backward), 60);
        assert_eq!(calls("adam", Direction::Backward), 3);
        let flops = |direction| -> f64 {
            let rows = measured.rows.iter().filter(|r| r.direction == direction);
            rows.map(|r| r.flops).sum()
        };
        // The way back is twice the work, but for the stem, whose images want no gradient.
        let ratio = flops(Direction::Backward) / flops(Direction::Forward);
        assert!((1.5..2.0).contains(&ratio), "{ratio}");
        assert!(measured.text().contains("conv 7x7/2 3>4 16x8 "));
        let sum: f64 = measured.rows.iter().map(|r| r.seconds).sum();
        assert!(sum <= measured.seconds, "{sum} of {}", measured.seconds);
        let without = ProfileOptions {
            steps: 0,
            ..options
        };
        assert!(
            measure(&without, DeviceSpec::Cpu)
                .unwrap_err()
                .to_string()
                .contains("--steps")
        );
    }
}
