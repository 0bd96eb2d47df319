//! The works `./reid bench train` measures, each in a process of its own so that its memory is its own.
//!
//! Times exclude reading files. Memory is the highest resident set during the work less the one before it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use clap::{Subcommand, ValueEnum};
use reid_models::backbones::{Backbone, BackboneConfig};
use reid_train::clustering::{Dbscan, Jaccard, KReciprocal, UnitRows, Weights, knn, npy};
use reid_train::eval::rank::{Embeddings, Labels, evaluate, evaluate_scores};
use reid_train::nn::optim::{Adam, AdamConfig, ParamGroup};
use reid_train::nn::profile::{self, Direction};
use reid_train::nn::{self, Mode, Net};
use serde_json::{Value, json};

use super::candle;

/// Networks of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Network {
    /// ResNet-50 as published, 256 high x 128 wide, batch 8.
    Resnet50,
    /// ResNet-18 with stages of 16, 32, 64 and 128 channels, last stride 1, 128 high x 64 wide, batch 32.
    Resnet18,
}

impl Network {
    /// Name, as peers.py takes it.
    pub fn name(self) -> &'static str {
        match self {
            Network::Resnet50 => "resnet50",
            Network::Resnet18 => "resnet18",
        }
    }

    fn config(self) -> (usize, BackboneConfig) {
        match self {
            Network::Resnet50 => (
                8,
                BackboneConfig {
                    last_stride: 2,
                    ..BackboneConfig::default()
                },
            ),
            Network::Resnet18 => (
                32,
                BackboneConfig {
                    backbone: Backbone::Resnet18,
                    width: 16,
                    height: 128,
                    input_width: 64,
                    ..BackboneConfig::default()
                },
            ),
        }
    }
}

/// One work.
#[derive(Clone, Debug, Subcommand)]
pub enum Work {
    /// Highest rate of matrix products on all threads
    Peak,
    /// Forward, backward and Adam
    Step {
        /// Network.
        network: Network,
        /// How long.
        seconds: f64,
    },
    /// The same with candle's own operators
    Candle {
        /// Network.
        network: Network,
        /// How long.
        seconds: f64,
    },
    /// Random unit features around common centres, as a matrix in a .npy file
    Features {
        /// File to write.
        file: PathBuf,
        /// Rows.
        rows: usize,
        /// Columns.
        width: usize,
        /// Seed.
        seed: u64,
    },
    /// Jaccard distance (k1 30, k2 6) and DBSCAN (eps 0.5, 4 samples)
    Cluster {
        /// Features (.npy).
        features: PathBuf,
        /// Labels to write (.npy).
        labels: PathBuf,
    },
    /// Market-1501's protocol
    Evaluate {
        /// Features of the queries (.npy).
        query: PathBuf,
        /// Features of the gallery (.npy).
        gallery: PathBuf,
    },
}

/// Parameters of the clustering row.
pub const CLUSTERING: (usize, usize, f32, usize) = (30, 6, 0.5, 4);

impl Work {
    /// Does it and says what was measured.
    ///
    /// # Errors
    /// If a file can't be read or written, or the machine has no /proc.
    pub fn run(&self) -> Result<Value> {
        nn::tune_allocator();
        match self {
            Work::Peak => Ok(json!({"flops_per_second": peak()})),
            Work::Step { network, seconds } => step(*network, *seconds),
            Work::Candle { network, seconds } => {
                let rate = candle::step(*network == Network::Resnet50, *seconds)?;
                Ok(json!({"images_per_second": rate}))
            }
            Work::Features {
                file,
                rows,
                width,
                seed,
            } => features(file, *rows, *width, *seed),
            Work::Cluster { features, labels } => cluster(features, labels),
            Work::Evaluate { query, gallery } => evaluation(query, gallery),
        }
    }
}

/// Resident memory now and at its highest since [`Memory::start`].
struct Memory {
    before: u64,
}

impl Memory {
    fn start() -> Result<Self> {
        fs::write("/proc/self/clear_refs", "5").context("/proc/self/clear_refs")?;
        Ok(Memory {
            before: Self::of("VmRSS")?,
        })
    }

    fn peak(&self) -> Result<u64> {
        Ok(Self::of("VmHWM")?.saturating_sub(self.before))
    }

    fn of(key: &str) -> Result<u64> {
        let status = fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
        let line = status.lines().find(|line| line.starts_with(key));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
            .map(|kib| kib << 10)
            .with_context(|| format!("/proc/self/status has no {key}"))
    }
}

/// The best of several rounds of square products, one per thread.
fn peak() -> f64 {
    const SIDE: usize = 1024;
    let threads = rayon::current_num_threads();
    let (a, b) = (vec![0.5f32; SIDE * SIDE], vec![0.25f32; SIDE * SIDE]);
    let mut best = 0f64;
    for _ in 0..8 {
        let start = Instant::now();
        rayon::broadcast(|_| {
            let mut c = vec![0f32; SIDE * SIDE];
            for _ in 0..8 {
                // SAFETY: three square matrices of this side, row-major.
                unsafe {
                    gemm::gemm(
                        SIDE,
                        SIDE,
                        SIDE,
                        c.as_mut_ptr(),
                        1,
                        SIDE as isize,
                        false,
                        a.as_ptr(),
                        1,
                        SIDE as isize,
                        b.as_ptr(),
                        1,
                        SIDE as isize,
                        0.0,
                        1.0,
                        false,
                        false,
                        false,
                        gemm::Parallelism::None,
                    );
                }
            }
        });
        let flops = (threads * 8 * 2 * SIDE * SIDE * SIDE) as f64;
        best = best.max(flops / start.elapsed().as_secs_f64());
    }
    best
}

/// Numbers in -1..1 that need no generator.
fn scramble(i: u64) -> f32 {
    let mut x = i.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x ^= x >> 29;
    x = x.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x ^= x >> 32;
    (x >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

fn step(network: Network, seconds: f64) -> Result<Value> {
    let (batch, config) = network.config();
    let memory = Memory::start()?;
    let net = Net::new(config.build()?, 1, &Device::Cpu)?;
    let mut adam = Adam::new(
        vec![ParamGroup::new(net.trainable())],
        AdamConfig::default(),
    )?;
    let values = |len: usize| (0..len as u64).map(scramble).collect::<Vec<_>>();
    let shape = (batch, 3, config.height, config.input_width);
    let len = batch * 3 * config.height * config.input_width;
    let images = Tensor::from_vec(values(len), shape, &Device::Cpu)?;
    let mut one = || -> Result<()> {
        let y = net.forward(&images, Mode::Train, &["neck"])?;
        let neck = &y["neck"];
        let target = Tensor::from_vec(values(neck.elem_count()), neck.shape(), &Device::Cpu)?;
        let grads = nn::backward(&(neck * target)?.mean_all()?)?;
        profile::timed("adam", Direction::Backward, || adam.step(&grads, 1e-5))?;
        Ok(())
    };
    for _ in 0..3 {
        one()?;
    }
    // A few steps with the profile on say how much work one is.
    profile::start();
    for _ in 0..2 {
        one()?;
    }
    let rows = profile::finish();
    let flops = rows.iter().map(|r| r.flops).sum::<f64>() / (2 * batch) as f64;
    let (start, mut done) = (Instant::now(), 0);
    while start.elapsed().as_secs_f64() < seconds {
        one()?;
        done += 1;
    }
    let took = start.elapsed().as_secs_f64();
    Ok(json!({
        "images_per_second": (done * batch) as f64 / took,
        "own_bytes": memory.peak()?,
        "flops_per_image": flops,
    }))
}

/// One person in seventeen rows, as Market-1501 has; some images show them well, others hardly.
fn features(out: &Path, rows: usize, width: usize, seed: u64) -> Result<Value> {
    use rayon::prelude::*;
    let people = (rows / 17).max(1);
    let mut data = vec![0f32; rows * width];
    data.par_chunks_mut(width).enumerate().for_each(|(i, row)| {
        let value = |kind: u64, item: usize, j: usize| {
            scramble((seed << 40) ^ (kind << 56) ^ ((item * width + j) as u64))
        };
        let noise = 1.5 + value(3, i, 0);
        for (j, v) in row.iter_mut().enumerate() {
            *v = value(1, i % people, j) + noise * value(2, i, j);
        }
        // Finite and not zero by construction.
        let _ = reid_models::distance::normalize(row);
    });
    npy::write_matrix(out, &data, width)?;
    Ok(json!({}))
}

fn cluster(path: &Path, labels: &Path) -> Result<Value> {
    let matrix = npy::read_matrix(path)?;
    let (k1, k2, eps, samples) = CLUSTERING;
    let memory = Memory::start()?;
    let start = Instant::now();
    let rows = UnitRows::new(&matrix.data, matrix.width)?;
    let near = knn::nearest(&rows, k1);
    let neighbours = start.elapsed().as_secs_f64();
    let encoded =
        KReciprocal::from_neighbours(&rows, &near, &Jaccard::new(k1, k2, Weights::Softmax)?);
    let distances = encoded.distances_within(eps);
    let found = Dbscan::new(eps, samples)?.cluster(&distances);
    let whole = start.elapsed().as_secs_f64();
    let own = memory.peak()?;
    npy::write_labels(labels, &found.to_i64())?;
    Ok(json!({
        "neighbours_seconds": neighbours,
        "rest_seconds": whole - neighbours,
        "own_bytes": own,
        "clusters": found.clusters,
    }))
}

fn evaluation(query: &Path, gallery: &Path) -> Result<Value> {
    let (q, g) = (npy::read_matrix(query)?, npy::read_matrix(gallery)?);
    let labels = |count: usize| -> (Vec<i64>, Vec<i64>) {
        (0..count as i64)
            .map(|i| (i % 750 + 1, i / 750 % 6))
            .unzip()
    };
    let ((q_pids, q_cams), (g_pids, g_cams)) = (labels(q.rows()), labels(g.rows()));
    let (q_labels, g_labels) = (
        Labels {
            pids: &q_pids,
            cameras: &q_cams,
        },
        Labels {
            pids: &g_pids,
            cameras: &g_cams,
        },
    );
    let memory = Memory::start()?;
    let start = Instant::now();
    let found = evaluate(
        &Embeddings {
            features: &q.data,
            width: q.width,
            labels: q_labels,
        },
        &Embeddings {
            features: &g.data,
            width: g.width,
            labels: g_labels,
        },
    )?;
    let whole = start.elapsed().as_secs_f64();
    let own = memory.peak()?;
    // The ranking alone: scores that are there already, handed over block by block.
    let (queries, count) = (q.rows(), g.rows());
    let scores: Vec<f32> = (0..(queries * count) as u64).map(scramble).collect();
    let start = Instant::now();
    evaluate_scores(q_labels, g_labels, |rows, out| {
        out.copy_from_slice(&scores[rows.start * count..rows.end * count]);
    })?;
    let ranking = start.elapsed().as_secs_f64();
    Ok(json!({
        "whole_seconds": whole,
        "ranking_seconds": ranking,
        "own_bytes": own,
        "map": found.result.map,
        "rank1": found.result.rank1,
    }))
}
