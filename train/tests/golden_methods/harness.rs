//! The tiny networks of the goldens, and how a step is compared.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use reid_models::Graph;
use reid_models::graph::{Init, ParamKind};
use reid_models::ops::Op;
use reid_models::weights::Weights;
use reid_train::config::{self, RunConfig};
use reid_train::methods::teacher::Pair;
use reid_train::methods::{Batch, LossTerms, Method};
use reid_train::nn::{self, Net, RunningFrom};
use reid_train::optimisers::Optimisers;

/// Relative to the reference's largest value, or absolutely below 1.
const LOSS: f32 = 5e-6;
/// Relative to the norm of a parameter's gradient: methods differ from float64 by up to 1e-4 of it.
const GRADIENT: f32 = 3e-4;
/// After a step of 3.5e-4.
const AFTER: f32 = 2e-6;

pub struct Golden(HashMap<String, Tensor>);

impl Golden {
    pub fn open(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden_methods");
        let path = folder.join(format!("{name}.safetensors"));
        Golden(candle_core::safetensors::load(path, &Device::Cpu).unwrap())
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub fn get(&self, name: &str) -> &Tensor {
        let found = self.0.get(name);
        found.unwrap_or_else(|| panic!("golden has no `{name}`"))
    }

    pub fn values(&self, name: &str) -> Vec<f32> {
        flat(self.get(name))
    }

    pub fn number(&self, name: &str) -> f64 {
        let t = self.get(name).to_dtype(DType::F64).unwrap();
        t.flatten_all().unwrap().to_vec1().unwrap()[0]
    }

    pub fn integers(&self, name: &str) -> Vec<i64> {
        self.get(name).flatten_all().unwrap().to_vec1().unwrap()
    }

    pub fn numbers(&self, name: &str) -> Vec<u32> {
        let all = self.integers(name).into_iter();
        all.map(|i| u32::try_from(i).unwrap()).collect()
    }

    /// Labels with -1 for none.
    pub fn labels(&self, name: &str) -> Vec<Option<u32>> {
        let all = self.integers(name).into_iter();
        all.map(|i| u32::try_from(i).ok()).collect()
    }

    /// Everything whose name begins with `prefix.`, without it.
    pub fn under(&self, prefix: &str) -> Weights {
        let mut weights = Weights::default();
        for (name, tensor) in &self.0 {
            if let Some(rest) = name.strip_prefix(&format!("{prefix}.")) {
                let value = (tensor.dims().to_vec(), flat(tensor));
                weights.tensors.insert(rest.to_owned(), value);
            }
        }
        weights
    }

    /// Shape of a case's pictures.
    pub fn picture(&self, case: &str) -> [usize; 3] {
        let dims = self.get(&format!("{case}.batch.view1")).dims();
        [dims[1], dims[2], dims[3]]
    }

    /// Gives `case` what it leaves out of these parts because it is the same in `other`.
    pub fn share(&mut self, case: &str, other: &str, parts: &[&str]) {
        for part in parts {
            let prefix = format!("{other}.{part}");
            let theirs = self.0.iter().filter(|(name, _)| name.starts_with(&prefix));
            let theirs: Vec<_> = theirs.map(|(n, t)| (n.clone(), t.clone())).collect();
            for (name, tensor) in theirs {
                let own = name.replacen(other, case, 1);
                self.0.entry(own).or_insert(tensor);
            }
        }
    }

    /// A batch of `case` with these views; pictures are numbered in their order.
    pub fn batch(&self, case: &str, labels: &str, views: &[&str]) -> Batch {
        let labels = self.numbers(&format!("{case}.batch.{labels}"));
        let views = views.iter();
        Batch {
            indices: (0..labels.len()).collect(),
            cameras: self.numbers(&format!("{case}.batch.cameras")),
            labels,
            views: views
                .map(|v| self.get(&format!("{case}.batch.{v}")).clone())
                .collect(),
            beside: None,
        }
    }
}

pub fn flat(t: &Tensor) -> Vec<f32> {
    let t = t.to_dtype(DType::F32).unwrap();
    t.flatten_all().unwrap().to_vec1().unwrap()
}

/// What may follow the body.
#[derive(Clone, Copy, PartialEq)]
pub enum Pool {
    Average,
    Gem,
}

/// Convolution, batch norm, ReLU.
pub fn block(
    graph: &mut Graph,
    input: &str,
    name: &str,
    [conv, norm]: [&str; 2],
    [channels, out, stride]: [usize; 3],
) -> String {
    let conv = format!("{name}.{conv}");
    let shape = [out, channels, 3, 3];
    let weight = graph.param(
        format!("{conv}.weight"),
        &shape,
        ParamKind::Trainable,
        Init::KaimingNormalFanOut,
    );
    let op = Op::Conv2d {
        out_channels: out,
        kernel: [3; 2],
        stride: [stride; 2],
        padding: [1; 2],
        dilation: [1; 2],
        groups: 1,
        bias: false,
    };
    let x = graph.push(&conv, op, &[input], &[&weight]);
    let x = norm_of(graph, &x, &format!("{name}.{norm}"), out, false);
    graph.push(format!("{name}.{norm}.relu"), Op::Relu, &[&x], &[])
}

/// A batch norm; `frozen` is its bias.
pub fn norm_of(graph: &mut Graph, input: &str, name: &str, width: usize, frozen: bool) -> String {
    let bias = match frozen {
        true => ParamKind::Frozen,
        false => ParamKind::Trainable,
    };
    let parts = [
        ("weight", ParamKind::Trainable, 1.0),
        ("bias", bias, 0.0),
        ("running_mean", ParamKind::Buffer, 0.0),
        ("running_var", ParamKind::Buffer, 1.0),
    ];
    let params = parts.map(|(part, kind, value)| {
        let name = format!("{name}.{part}");
        graph.param(name, &[width], kind, Init::Constant { value })
    });
    let names: Vec<&str> = params.iter().map(String::as_str).collect();
    let norm = Op::BatchNorm {
        eps: 1e-5,
        momentum: 0.1,
    };
    graph.push(name, norm, &[input], &names)
}

/// Stem and body for pictures of this shape; returns the map (16, H/2, W/2).
pub fn trunk(picture: [usize; 3]) -> (Graph, String) {
    let mut graph = Graph::new("tiny", picture);
    let input = graph.input.clone();
    let x = block(&mut graph, &input, "stem", ["conv", "bn"], [3, 8, 2]);
    let x = block(&mut graph, &x, "body", ["conv", "bn"], [8, 16, 1]);
    (graph, x)
}

/// What most goldens' pictures have.
pub const PICTURE: [usize; 3] = [3, 16, 8];

/// Stem, body, pooling and neck: outputs `pooled`, `neck`, `embedding`.
pub fn tiny(pool: Pool, picture: [usize; 3]) -> Graph {
    let (mut graph, map) = trunk(picture);
    let pooled = match pool {
        Pool::Average => graph.push("pool", Op::GlobalAvgPool, &[&map], &[]),
        Pool::Gem => {
            let value = Init::Constant { value: 3.0 };
            let p = graph.param("pool.p", &[1], ParamKind::Trainable, value);
            graph.push("pool", Op::GemPool { eps: 1e-6 }, &[&map], &[&p])
        }
    };
    let neck = norm_of(&mut graph, &pooled, "neck", 16, true);
    let unit = Op::L2Normalize { eps: 1e-12 };
    let embedding = graph.push("embedding", unit, &[&neck], &[]);
    for (role, tensor) in [("pooled", pooled), ("neck", neck), ("embedding", embedding)] {
        graph.outputs.insert(role.into(), tensor);
    }
    graph
}

/// A network with the parameters that the golden has under `prefix`.
pub fn net(golden: &Golden, graph: Graph, prefix: &str, groups: usize) -> Net {
    let mut net = Net::new(graph, 1, &Device::Cpu).unwrap();
    let report = net.load(&golden.under(prefix)).unwrap();
    assert_eq!(report.missing, [""; 0], "{prefix}");
    net.set_norm_groups(groups, RunningFrom::Mean);
    net
}

pub fn pair(golden: &Golden, graph: &Graph, prefixes: [&str; 2], groups: usize) -> Pair {
    Pair {
        student: net(golden, graph.clone(), prefixes[0], groups),
        teacher: net(golden, graph.clone(), prefixes[1], groups),
    }
}

/// The preset of a method, changed.
pub fn config(method: &str, preset: &str, sets: &[String]) -> RunConfig {
    let mut all = vec!["train.norm_groups=1".to_owned()];
    all.extend(sets.iter().cloned());
    config::load(method, Some(preset), None, &all).unwrap()
}

/// One step of the training loop.
pub fn step(
    method: &mut dyn Method,
    batch: &Batch,
    rate: f64,
    decay: f64,
) -> (LossTerms, GradStore) {
    let mut optimisers = Optimisers::default();
    optimisers.prepare(method.groups(), decay).unwrap();
    let loss = method.loss(batch).unwrap();
    let grads = nn::backward(&loss.total).unwrap();
    for norm in optimisers.step_later(&grads, rate).unwrap() {
        norm.read().unwrap();
    }
    method.after_step(batch, &loss.kept).unwrap();
    (loss, grads)
}

#[track_caller]
pub fn near(what: &str, got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len(), "{what}");
    let scale = want.iter().fold(1f32, |m, w| m.max(w.abs()));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!(
            (g - w).abs() <= tolerance * scale,
            "{what}[{i}]: {g}, PyTorch {w}"
        );
    }
}

/// A gradient, judged by its norm.
#[track_caller]
pub fn near_gradient(what: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{what}");
    let norm = want.iter().map(|x| x * x).sum::<f32>().sqrt();
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!(
            (g - w).abs() <= GRADIENT * norm + 1e-7,
            "{what}[{i}]: {g}, PyTorch {w}, norm {norm}"
        );
    }
}

/// The total and the terms: `(name in the golden, name here)`, where the golden's may be several to be summed.
#[track_caller]
pub fn check_loss(golden: &Golden, case: &str, loss: &LossTerms, terms: &[(&str, &str)]) {
    let total = golden.values(&format!("{case}.loss.total"));
    near(&format!("{case}.total"), &flat(&loss.total), &total, LOSS);
    for (theirs, ours) in terms {
        let sum: f32 = theirs
            .split('+')
            .map(|name| golden.values(&format!("{case}.loss.{name}"))[0])
            .sum();
        let own = loss.terms.iter().find(|(name, _)| name == ours);
        let (_, own) = own.unwrap_or_else(|| panic!("{case}: no term `{ours}`"));
        near(&format!("{case}.{ours}"), &flat(own), &[sum], LOSS);
    }
}

/// Every gradient that the golden has under `CASE.grad.NET`.
#[track_caller]
pub fn check_gradients(
    golden: &Golden,
    prefix: &str,
    grads: &GradStore,
    parameters: &[(String, Var)],
) {
    let wanted = golden.under(prefix).tensors;
    assert!(!wanted.is_empty(), "{prefix}");
    let own: BTreeMap<&str, &Var> = parameters.iter().map(|(n, v)| (n.as_str(), v)).collect();
    for (name, (_, want)) in &wanted {
        let var = own.get(name.as_str());
        let var = var.unwrap_or_else(|| panic!("no parameter `{name}` under {prefix}"));
        let got = flat(
            grads
                .get(var)
                .unwrap_or_else(|| panic!("no gradient of {name}")),
        );
        near_gradient(&format!("{prefix}.{name}"), &got, want);
    }
    // Nothing is trained that should not be.
    let trained = parameters.iter().filter(|(_, v)| grads.get(v).is_some());
    assert_eq!(
        trained.count(),
        wanted.len(),
        "{prefix}: parameters with a gradient"
    );
}

/// Every parameter and running statistic of a network after the step. Where the golden has statistics of groups, they are the
/// mean over the groups.
#[track_caller]
pub fn check_net(golden: &Golden, case: &str, name: &str, net: &Net) {
    let after = golden.under(&format!("{case}.after.{name}")).tensors;
    let means = golden.under(&format!("{case}.after_mean.{name}")).tensors;
    for (parameter, var) in net.params() {
        let want = means.get(parameter).or(after.get(parameter));
        let (_, want) = want.unwrap_or_else(|| panic!("{case}.after.{name}.{parameter}"));
        near(
            &format!("{case}.after.{name}.{parameter}"),
            &flat(var),
            want,
            AFTER,
        );
    }
}

#[track_caller]
pub fn check_var(golden: &Golden, name: &str, var: &Tensor) {
    near(name, &flat(var), &golden.values(name), AFTER);
}
