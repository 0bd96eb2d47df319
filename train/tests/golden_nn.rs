//! Operators, a whole network, losses and optimisers against PyTorch, values and gradients.
//!
//! `golden/*.safetensors` were made by the script of the same name beside them.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use candle_core::{DType, Device, Tensor, Var};
use reid_gpu_emulator::Emulator;
use reid_train::nn::gpu::{Gpu, Precision, Settings};
use reid_train::nn::{self, device};

#[path = "golden/backbones.rs"]
mod backbones;
#[path = "golden/more.rs"]
mod more;
#[path = "golden/network.rs"]
mod network;
#[path = "golden/operators.rs"]
mod operators;
#[path = "golden/optimisers.rs"]
mod optimisers;
#[path = "golden/slopes.rs"]
mod slopes;
#[path = "golden/training.rs"]
mod training;

/// Where everything here is computed: the processor; in `golden_gpu`, which takes in this file, an emulated GPU; with
/// REID_TEST_DEVICE=cuda:N, a real one (with REID_TEST_PRECISION, f32 by default).
static DEVICE: LazyLock<Device> = LazyLock::new(|| {
    let wanted = |key| std::env::var(key).ok();
    if env!("CARGO_CRATE_NAME") == "golden_gpu" {
        device::register(Gpu::new(Emulator::new(Settings {
            precision: Precision::F32,
            deterministic: true,
        })));
        return Device::Cpu;
    }
    let Some(spec) = wanted("REID_TEST_DEVICE") else {
        return Device::Cpu;
    };
    let precision = match wanted("REID_TEST_PRECISION").as_deref() {
        None | Some("f32") => Precision::F32,
        Some("tf32") => Precision::Tf32,
        Some("bf16") => Precision::Bf16,
        Some(other) => panic!("REID_TEST_PRECISION={other}: f32, tf32 or bf16"),
    };
    let opened = device::open(spec.parse().unwrap(), Some(precision), true).unwrap();
    println!("on {}", opened.description);
    opened.device
});

/// What a device's number format allows, whatever a test asks for: the processor's sums and a GPU's differ in order.
fn at_least(tolerance: f32) -> f32 {
    let on_gpu = std::env::var("REID_TEST_DEVICE").is_ok_and(|d| d.starts_with("cuda"));
    match std::env::var("REID_TEST_PRECISION").as_deref() {
        Ok("bf16" | "tf32") if on_gpu => tolerance.max(1e-2),
        _ if on_gpu => tolerance.max(1e-4),
        _ => tolerance,
    }
}

const ROLES: [&str; 4] = ["feature_map", "pooled", "neck", "embedding"];

struct Golden(HashMap<String, Tensor>);

impl Golden {
    fn open(name: &str) -> Self {
        // On a machine without the sources REID_GOLDENS says where the goldens were put.
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let folder = std::env::var_os("REID_GOLDENS").map_or(here, PathBuf::from);
        let path = folder.join(format!("{name}.safetensors"));
        Golden(candle_core::safetensors::load(path, &DEVICE).unwrap())
    }

    fn get(&self, name: &str) -> &Tensor {
        self.0
            .get(name)
            .unwrap_or_else(|| panic!("golden has no `{name}`"))
    }

    fn var(&self, name: &str) -> Var {
        Var::from_tensor(self.get(name)).unwrap()
    }

    /// Case names of an operator: `op.CASE.y` gives `op.CASE`.
    fn cases(&self, op: &str) -> Vec<String> {
        let names = self.0.keys();
        let mut cases: Vec<String> = names
            .filter_map(|k| k.strip_suffix(".y"))
            .filter(|k| k.rsplit_once('.').unwrap().0 == op)
            .map(String::from)
            .collect();
        cases.sort();
        assert!(!cases.is_empty(), "golden has no cases of {op}");
        cases
    }

    fn attrs(&self, case: &str) -> Vec<usize> {
        let attrs = self.get(&format!("{case}.attrs")).to_vec1::<i64>().unwrap();
        attrs.into_iter().map(|x| x as usize).collect()
    }

    fn labels(&self, name: &str) -> Vec<u32> {
        self.get(name)
            .to_dtype(DType::U32)
            .unwrap()
            .to_vec1()
            .unwrap()
    }
}

fn flat(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

/// Relative to the largest value of the reference: single small elements are differences of large ones.
#[track_caller]
fn close(what: &str, got: &Tensor, want: &Tensor, tolerance: f32) {
    assert_eq!(got.dims(), want.dims(), "{what}");
    let (got, want) = (flat(got), flat(want));
    let scale = want.iter().fold(1e-3f32, |m, x| m.max(x.abs()));
    let worst = got
        .iter()
        .zip(&want)
        .map(|(g, w)| (g - w).abs())
        .fold(0f32, |m, d| {
            // `max` would drop a NaN.
            if d.is_nan() || d > m { d } else { m }
        });
    assert!(
        worst <= at_least(tolerance) * scale,
        "{what}: off by {worst}, largest value {scale}"
    );
}

const CLOSE: f32 = 2e-6;
/// For a neck over four rows: dividing by the spread of four numbers makes rounding errors large (PyTorch's own f32 is
/// 1.05e-5 away from its f64 here).
const NECK: f32 = 3e-5;

fn random(name: &str, shape: &[usize]) -> Var {
    let mut rng = nn::init::stream(33, name);
    let values = nn::init::normal(&mut rng, 1.0, shape.iter().product());
    Var::from_vec(values, shape, &DEVICE).unwrap()
}
