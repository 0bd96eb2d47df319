//! Every operator of a GPU against its twin on the processor, on the same numbers.
//!
//! The same cases run on the emulator, wherever the tests run, and on a GPU (`reid-gpu check`).

mod cases;
pub mod network;

use candle_core::{DType, Device, Result, Tensor};
use half::bf16;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reid_models::distance;
use reid_train::clustering::UnitRows;
use reid_train::clustering::knn::{Neighbours, nearest_here, nearest_on};
use reid_train::nn::cpu::Cpu;
use reid_train::nn::gpu::{Gpu, Precision};
use reid_train::nn::kernels::Kernels;

/// How an operator compared.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Operator, and the variant of it that ran.
    pub operator: &'static str,
    /// How maps were kept.
    pub dtype: DType,
    /// Largest difference over all results, relative to the largest value of each.
    pub error: f64,
    /// What is allowed.
    pub tolerance: f64,
}

impl Comparison {
    /// Whether the results are near enough.
    pub fn holds(&self) -> bool {
        self.error <= self.tolerance
    }
}

/// One side of a comparison: operators, and where their tensors live.
struct Side<'a> {
    kernels: &'a dyn Kernels,
    device: Device,
    map_dtype: DType,
    /// Both sides draw the same numbers.
    random: ChaCha8Rng,
    results: Vec<(&'static str, Vec<f32>)>,
}

impl<'a> Side<'a> {
    fn new(kernels: &'a dyn Kernels, device: &Device) -> Self {
        Side {
            kernels,
            device: device.clone(),
            map_dtype: kernels.map_dtype(),
            random: ChaCha8Rng::seed_from_u64(11),
            results: Vec::new(),
        }
    }

    /// Numbers in -1..1 that bf16 holds exactly, so that rounding the input makes no difference.
    fn numbers(&mut self, count: usize) -> Vec<f32> {
        (0..count)
            .map(|_| bf16::from_f32(self.random.random::<f32>() * 2.0 - 1.0).to_f32())
            .collect()
    }

    /// A map.
    fn map(&mut self, shape: &[usize]) -> Result<Tensor> {
        let values = self.numbers(shape.iter().product());
        self.map_of(values, shape)
    }

    fn map_of(&self, values: Vec<f32>, shape: &[usize]) -> Result<Tensor> {
        Tensor::from_vec(values, shape, &Device::Cpu)?
            .to_dtype(self.map_dtype)?
            .to_device(&self.device)
    }

    /// A vector, parameter or statistic.
    fn vector(&mut self, shape: &[usize]) -> Result<Tensor> {
        let values = self.numbers(shape.iter().product());
        Tensor::from_vec(values, shape, &self.device)
    }

    /// As [`Side::vector`] in 0.5..1.5.
    fn positive(&mut self, shape: &[usize]) -> Result<Tensor> {
        let values = self.numbers(shape.iter().product());
        let values: Vec<f32> = values.iter().map(|v| 1.0 + 0.5 * v).collect();
        Tensor::from_vec(values, shape, &self.device)
    }

    /// Keeps a result for the comparison.
    fn result(&mut self, name: &'static str, t: &Tensor) -> Result<()> {
        let t = t.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        self.results.push((name, t.flatten_all()?.to_vec1()?));
        Ok(())
    }
}

/// Compares every operator, in the precision the GPU is set to.
///
/// # Errors
/// If one of them fails.
pub fn compare(gpu: &Gpu) -> Result<Vec<Comparison>> {
    let mut comparisons = Vec::new();
    for (operator, run) in cases::ALL {
        let mut ours = Side::new(gpu, gpu.device());
        let mut twin = Side::new(&Cpu, &Device::Cpu);
        for side in [&mut ours, &mut twin] {
            run(side).map_err(|e| candle_core::Error::Msg(format!("{operator}: {e}")))?;
        }
        gpu.synchronize()?;
        comparisons.push(Comparison {
            operator,
            dtype: gpu.map_dtype(),
            error: difference(operator, &ours.results, &twin.results)?,
            tolerance: match gpu.settings().precision {
                Precision::F32 => 1e-4,
                Precision::Tf32 => 3e-3,
                Precision::Bf16 => 1e-2,
            },
        });
    }
    comparisons.push(neighbours(gpu)?);
    Ok(comparisons)
}

/// What is no operator of networks.
const NEIGHBOURS: &str = "neighbours, similarities";

/// Neighbours, least similarities and similarities of random rows.
fn neighbours(gpu: &Gpu) -> Result<Comparison> {
    let (count, width, k) = (700, 40, 12);
    let mut twin = Side::new(&Cpu, &Device::Cpu);
    let mut rows = twin.numbers(count * width);
    for row in rows.chunks_exact_mut(width) {
        distance::normalize(row).map_err(candle_core::Error::wrap)?;
    }
    let unit = UnitRows::new(&rows, width).map_err(candle_core::Error::wrap)?;
    let (here, there) = (nearest_here(&unit, k), nearest_on(gpu, &unit, k)?);
    // Rows as near as each other but for rounding may change places: compare how near they are.
    let dot = |i: usize, j: u32| -> f32 {
        let pairs = unit.row(i).iter().zip(unit.row(j as usize));
        pairs.map(|(a, b)| a * b).sum()
    };
    let near = |found: &Neighbours| -> Vec<f32> {
        let all = (0..count).flat_map(|i| found.row(i).iter().map(move |j| (i, *j)));
        all.map(|(i, j)| dot(i, j)).collect()
    };
    let least = |found: &Neighbours| -> Vec<f32> {
        (0..count).map(|i| found.farthest_similarity(i)).collect()
    };
    let uploaded = gpu.upload(&rows, width)?;
    let exact: Vec<f32> = (3..9)
        .flat_map(|i| (0..count as u32).map(move |j| (i, j)))
        .map(|(i, j)| dot(i, j))
        .collect();
    let ours = [
        ("near", near(&there)),
        ("least", least(&there)),
        (
            "similarities",
            gpu.similarities(&uploaded, 3..9, &uploaded)?,
        ),
    ];
    let twin = [
        ("near", near(&here)),
        ("least", least(&here)),
        ("similarities", exact),
    ];
    Ok(Comparison {
        operator: NEIGHBOURS,
        dtype: DType::F32,
        error: difference(NEIGHBOURS, &ours, &twin)?,
        tolerance: 1e-5,
    })
}

/// The largest difference, relative to the largest value of the result it is in.
fn difference(
    operator: &str,
    ours: &[(&'static str, Vec<f32>)],
    twin: &[(&'static str, Vec<f32>)],
) -> Result<f64> {
    let mut worst = 0f64;
    for ((name, a), (_, b)) in ours.iter().zip(twin) {
        if a.len() != b.len() {
            candle_core::bail!("{operator}: {name} has {} and {} values", a.len(), b.len());
        }
        let scale = b.iter().fold(1e-3f64, |m, v| m.max(f64::from(v.abs())));
        for (a, b) in a.iter().zip(b) {
            let off = f64::from((a - b).abs()) / scale;
            // Also catches NaN.
            if off.is_nan() || off > worst {
                worst = off;
            }
        }
    }
    Ok(worst)
}

/// What a precision rounds off a number of size 1.
pub fn rounding(precision: Precision) -> f32 {
    match precision {
        Precision::F32 => 2e-6,
        Precision::Tf32 => 1.0 / 1024.0,
        Precision::Bf16 => 1.0 / 256.0,
    }
}

/// Names of all operators that are compared.
pub fn operators() -> impl Iterator<Item = &'static str> {
    let cases = cases::ALL.iter().map(|(name, _)| *name);
    cases.chain([NEIGHBOURS])
}
