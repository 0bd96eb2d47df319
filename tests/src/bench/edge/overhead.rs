//! What the pipeline costs beyond decoding and models.
//!
//! The stages overlap, so times of stages cannot be subtracted from the wall time. What can be: processor time. Decoding
//! (the bare decoder into nothing) and models (ONNX Runtime on ready-made tensors, as many runs as the pipeline made, in one
//! thread a core with a session of each, all cores busy) cost so many seconds of processor whoever calls them; spread over
//! the cores without a gap they are the least time the work can take. The row is the share of the pipeline's wall time
//! beyond that least time: its own work (colour, scaling, tracking, association, the gallery) and every moment that a core
//! stood idle.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Bench;
use super::child::words;
use super::report::{Reach, Row, Spread};
use super::site::{BUDGET, EVERY_CROP};

/// Processor time that the work itself takes, seconds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Decoding a frame of the recording.
    decode: f64,
    /// A run of the detector.
    detect: f64,
    /// A run of the embedder.
    embed: f64,
}

impl Limits {
    /// The least wall time of so many frames and crops on so many cores.
    pub fn seconds(&self, frames: f64, crops: f64, cores: usize) -> f64 {
        (frames * (self.decode + self.detect) + crops * self.embed) / cores as f64
    }
}

fn number(value: &Value, key: &str) -> Result<f64> {
    value[key]
        .as_f64()
        .with_context(|| format!("no number `{key}`"))
}

impl Bench {
    /// Measured once: decoder and models alone.
    pub fn limits(&mut self) -> Result<Limits> {
        if let Some(limits) = self.limits {
            return Ok(limits);
        }
        let frames = self.plaza_frames()?;
        let alone = self.alone(frames, 4 * frames)?;
        let limits = Limits {
            decode: number(&alone, "decode_cpu_secs")? / frames as f64,
            detect: number(&alone, "detect_cpu_secs")? / frames as f64,
            embed: number(&alone, "embed_cpu_secs")? / (4 * frames) as f64,
        };
        self.table.say(&format!(
            "Processor time alone, all cores busy: decoding a frame {:.2} ms, a run of YOLOX-nano {:.2} ms, a run of reid-retail-0248 {:.2} ms.",
            1e3 * limits.decode,
            1e3 * limits.detect,
            1e3 * limits.embed
        ));
        self.limits = Some(limits);
        Ok(limits)
    }

    /// Frames of the recording, by reading it.
    fn plaza_frames(&self) -> Result<usize> {
        let config = self.site.plaza_config("plaza-budget.toml", BUDGET)?;
        let read = self.site.measure(&words(&[&"ingest", &config]))?;
        Ok(number(&read, "frames")? as usize)
    }

    /// Decoder and models without a pipeline around them.
    fn alone(&self, frames: usize, crops: usize) -> Result<Value> {
        let decoded = self
            .site
            .measure(&words(&[&"decode", &self.site.plaza()]))?;
        let mut alone = self.site.measure(&words(&[
            &"models",
            &self.site.detector(),
            &self.site.embedder(),
            &frames.to_string(),
            &crops.to_string(),
            &self.cores.to_string(),
        ]))?;
        alone["decode_cpu_secs"] = decoded["decode_cpu_secs"].clone();
        Ok(alone)
    }

    /// One row with the budget, one with every crop.
    pub fn overhead(&mut self) -> Result<()> {
        for (name, crops, title) in [
            ("plaza-budget.toml", BUDGET, "with the embedding budget"),
            ("plaza-every.toml", EVERY_CROP, "every crop embedded"),
        ] {
            let config = self.site.plaza_config(name, crops)?;
            self.overhead_of(&config, title)?;
        }
        Ok(())
    }

    fn overhead_of(&mut self, config: &Path, title: &str) -> Result<()> {
        let mut rounds = Vec::new();
        for _ in 0..self.rounds {
            let whole = self.site.replay(config, &[])?;
            let frames = number(&whole, "frames")?;
            let crops = number(&whole["timings"], "crops")?;
            let alone = self.alone(frames as usize, crops as usize)?;
            let read = self.site.measure(&words(&[&"ingest", &config]))?;
            let (seconds, spent) = (number(&whole, "seconds")?, number(&whole, "cpu_secs")?);
            let decode = number(&alone, "decode_cpu_secs")?;
            let detect = number(&alone, "detect_cpu_secs")?;
            let embed = number(&alone, "embed_cpu_secs")?;
            let least = (decode + detect + embed) / self.cores as f64;
            rounds.push(json!({
                "seconds": seconds, "cpu_secs": spent, "decode": decode, "detect": detect, "embed": embed,
                "least": least, "beyond": 100.0 * (1.0 - least / seconds),
                "own_cpu": 100.0 * (1.0 - least * self.cores as f64 / spent),
                "ingest_cpu": number(&read, "ingest_cpu_secs")?, "models_secs": number(&alone, "models_secs")?,
                "busy": 100.0 * spent / seconds / self.cores as f64,
            }));
        }
        let of = |key: &str| Spread::of(&rounds, key);
        let beyond = of("beyond")?;
        let median = |key: &str| of(key).map(|s| s.median());
        self.table.push(Row {
            work: format!(
                "plaza.mp4, {title}: pipeline beyond decoding and models, % of its wall time"
            ),
            ours: beyond.text(1),
            peer: "0".into(),
            ratio: String::new(),
            reach: Reach::at_most(beyond.median(), 5.0, "5 %"),
            limit: format!(
                "processor: decoder {:.1} s, detector {:.1} s, embedder {:.1} s, over {} cores {:.1} s; the whole takes {:.1} s and {:.1} s of processor, start included (our ingest alone: {:.1} s)",
                median("decode")?,
                median("detect")?,
                median("embed")?,
                self.cores,
                median("least")?,
                median("seconds")?,
                median("cpu_secs")?,
                median("ingest_cpu")?
            ),
            numbers: json!({"rounds": rounds}),
        });
        Ok(())
    }
}
