//! Operators, a whole network, losses and optimisers against PyTorch, values and gradients.
//!
//! `golden/*.safetensors` were made by the script of the same name beside them.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor, Var};
use reid_train::nn;

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

const CPU: &Device = &Device::Cpu;
const ROLES: [&str; 4] = ["feature_map", "pooled", "neck", "embedding"];

struct Golden(HashMap<String, Tensor>);

impl Golden {
    fn open(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let path = folder.join(format!("{name}.safetensors"));
        Golden(candle_core::safetensors::load(path, CPU).unwrap())
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
        worst <= tolerance * scale,
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
    Var::from_vec(values, shape, CPU).unwrap()
}
