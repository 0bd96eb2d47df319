use std::collections::BTreeMap;

use candle_core::{Device, Tensor, Var};
use reid_models::Graph;
use reid_models::graph::{Init, ParamKind};
use reid_models::heads::partitions::{self, PYRAMID};
use reid_models::ops::Op;
use reid_models::weights::Weights;
use reid_train::methods::scr::Scr;
use reid_train::methods::{Group, Method, Rate, Rule};
use reid_train::nn::{Mode, Net, RunningFrom};
use reid_train::optimisers::Optimisers;

use super::harness::*;

/// The golden's names of the vectors, in our order.
const VECTORS: [&str; 13] = [
    "g1", "g2", "s2_1", "s2_2", "c2_1", "c2_2", "g3", "s3_1", "s3_2", "s3_3", "c3_1", "c3_2",
    "c3_3",
];

/// Our name of a parameter.
fn renamed(name: &str) -> String {
    for (i, vector) in VECTORS.iter().enumerate() {
        if let Some(rest) = name.strip_prefix(&format!("reduce_{vector}.")) {
            return format!("reduce.{i}.{}", rest.replace("conv.weight", "weight"));
        }
        if name == format!("classifier_{vector}.weight") {
            return format!("classifier.{i}.weight");
        }
    }
    name.to_owned()
}

/// What the golden has under a prefix, by our names and in our shapes: a 1x1 convolution of vectors is a matrix.
fn under(golden: &Golden, prefix: &str) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let all = golden.under(prefix).tensors.into_iter();
    all.map(|(name, (shape, values))| {
        let name = renamed(&name);
        let matrix = name.starts_with("reduce.") && shape.len() == 4;
        (
            name,
            (if matrix { shape[..2].to_vec() } else { shape }, values),
        )
    })
    .collect()
}

fn network(golden: &Golden) -> Net {
    let mut graph = Graph::new("tiny_partitions", [3, 12, 6]);
    let input = graph.input.clone();
    let stem = block(&mut graph, &input, "stem", ["conv", "bn"], [3, 4, 2]);
    let maps: Vec<(String, usize)> = (1..=3)
        .map(|i| {
            let name = format!("branch_{i}.conv");
            let weight = graph.param(
                format!("{name}.weight"),
                &[32, 4, 1, 1],
                ParamKind::Trainable,
                Init::KaimingNormalFanOut,
            );
            let conv = Op::Conv2d {
                out_channels: 32,
                kernel: [1; 2],
                stride: [1; 2],
                padding: [0; 2],
                dilation: [1; 2],
                groups: 1,
                bias: false,
            };
            let x = graph.push(&name, conv, &[&stem], &[&weight]);
            let x = norm_of(&mut graph, &x, &format!("branch_{i}.bn"), 32, false);
            (
                graph.push(format!("branch_{i}.relu"), Op::Relu, &[&x], &[]),
                32,
            )
        })
        .collect();
    partitions::append(&mut graph, &maps, &PYRAMID, 4);
    let mut net = Net::new(graph, 1, &Device::Cpu).unwrap();
    let tensors = under(golden, "step.before.student");
    let report = net.load(&Weights { tensors }).unwrap();
    assert_eq!(report.missing, [""; 0]);
    net.set_norm_groups(1, RunningFrom::Mean);
    net
}

#[test]
fn a_step_of_scr() {
    let golden = Golden::open("scr");
    let hyper = |name: &str| golden.number(&format!("step.hyper.{name}"));
    let sets = [
        format!("loss.identity_weight={:.6}", hyper("lambda")),
        format!("loss.triplet_margin={:.6}", hyper("margin")),
    ];
    let config = config("scr", "scr", &sets);
    let mut scr = Scr::new(&config, network(&golden)).unwrap();
    let before = under(&golden, "step.before.student");
    let classifiers: Vec<Tensor> = (0..13)
        .map(|i| {
            let (shape, values) = &before[&format!("classifier.{i}.weight")];
            Tensor::from_slice(values, shape.as_slice(), &Device::Cpu).unwrap()
        })
        .collect();
    scr.set_classifiers(&classifiers).unwrap();
    let labels = golden.numbers("step.batch.labels");
    let batch = reid_train::methods::Batch {
        indices: (0..labels.len()).collect(),
        cameras: vec![0; labels.len()],
        labels,
        views: vec![golden.get("step.batch.view1").clone()],
        beside: None,
    };
    let trained: Vec<(String, Var)> = scr
        .groups()
        .into_iter()
        .flat_map(|g| g.parameters)
        .collect();
    let (loss, grads) = step(&mut scr, &batch, hyper("lr"), hyper("weight_decay"));
    check_loss(
        &golden,
        "step",
        &loss,
        &[("ce", "identity"), ("triplet", "triplet")],
    );
    let wanted = under(&golden, "step.grad.student");
    let after = under(&golden, "step.after.student");
    for (name, var) in &trained {
        let (_, want) = &wanted[name];
        let norm = want.iter().map(|x| x * x).sum::<f32>().sqrt();
        let got = flat(grads.get(var).unwrap());
        for (g, w) in got.iter().zip(want) {
            assert!(
                (g - w).abs() <= 3e-4 * norm + 1e-7,
                "{name}: {g}, PyTorch {w}"
            );
        }
        near(name, &flat(var), &after[name].1, 2e-6);
    }
    assert_eq!(trained.len(), wanted.len());
    for (name, var) in scr.net().params() {
        near(name, &flat(var), &after[name].1, 2e-6);
    }
}

#[test]
fn features_of_scr() {
    let golden = Golden::open("scr");
    let net = network(&golden);
    let images = golden.get("test.batch.images");
    let outputs = net
        .forward_no_grad(images, Mode::Eval, &["embedding"])
        .unwrap();
    let mut want = golden.values("test.mid.thesis");
    want.chunks_exact_mut(52)
        .for_each(|row| reid_models::distance::normalize(row).unwrap());
    near("embedding", &flat(&outputs["embedding"]), &want, 2e-6);
}

#[test]
fn thirty_steps_of_amsgrad() {
    let golden = Golden::open("scr");
    let hyper = |name: &str| golden.number(&format!("amsgrad.hyper.{name}"));
    let weight = Var::from_tensor(golden.get("amsgrad.before.weight")).unwrap();
    let mut optimisers = Optimisers::default();
    let group = Group {
        rule: Rule::Adam { amsgrad: true },
        rate: Rate::Scheduled(1.0),
        ..Group::adam("net", vec![("weight".into(), weight.clone())])
    };
    optimisers
        .prepare(vec![group], hyper("weight_decay"))
        .unwrap();
    let gradients = golden.get("amsgrad.batch.gradients");
    for i in 0..gradients.dim(0).unwrap() {
        let gradient = gradients.get(i).unwrap();
        let loss = (weight.as_tensor() * gradient).unwrap().sum_all().unwrap();
        let grads = loss.backward().unwrap();
        for norm in optimisers.step_later(&grads, hyper("lr")).unwrap() {
            norm.read().unwrap();
        }
        let want = golden.get("amsgrad.mid.weight").get(i).unwrap();
        near(&format!("step {i}"), &flat(&weight), &flat(&want), 2e-5);
    }
}
