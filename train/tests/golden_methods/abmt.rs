use candle_core::{Device, Tensor};
use reid_models::Graph;
use reid_models::ops::Op;
use reid_train::clustering::PseudoLabels;
use reid_train::clustering::SparseDistances;
use reid_train::clustering::source::farness;
use reid_train::methods::abmt::Abmt;
use reid_train::methods::supervised::Supervised;
use reid_train::methods::{Features, Method, pseudo};
use reid_train::nn::Mode;

use super::harness::*;

/// A shared stem and two branches, the second deeper and with maxima.
fn branches() -> Graph {
    let mut graph = Graph::new("tiny_branches", [3, 16, 8]);
    let input = graph.input.clone();
    let stem = block(&mut graph, &input, "stem", ["conv", "bn"], [3, 8, 2]);
    let a = block(&mut graph, &stem, "branch_a", ["conv", "bn"], [8, 16, 1]);
    let b = block(&mut graph, &stem, "branch_b", ["conv", "bn"], [8, 16, 1]);
    let b = block(&mut graph, &b, "branch_b", ["conv2", "bn2"], [16, 16, 1]);
    let mut necks = Vec::new();
    for (name, map, pool) in [("a", a, Op::GlobalAvgPool), ("b", b, Op::GlobalMaxPool)] {
        let pooled = graph.push(format!("pooled_{name}"), pool, &[&map], &[]);
        graph.outputs.insert(pooled.clone(), pooled.clone());
        let neck = norm_of(&mut graph, &pooled, &format!("neck_{name}"), 16, true);
        graph.outputs.insert(neck.clone(), neck.clone());
        necks.push(neck);
    }
    let both = [necks[0].as_str(), necks[1].as_str()];
    let both = graph.push("necks", Op::Concat { axis: 0 }, &both, &[]);
    let unit = Op::L2Normalize { eps: 1e-12 };
    let embedding = graph.push("embedding", unit, &[&both], &[]);
    graph.outputs.insert("embedding".into(), embedding);
    graph
}

fn before(golden: &Golden, case: &str) -> Abmt {
    let hyper = |name: &str| golden.number(&format!("{case}.hyper.{name}"));
    let mut sets = vec![
        format!("loss.identity_weight={:.6}", hyper("weight_ce")),
        format!("loss.soft_identity_weight={:.6}", hyper("weight_sce")),
        format!("loss.soft_triplet_weight={:.6}", hyper("weight_sst")),
        format!("loss.smoothing={:.6}", hyper("smoothing")),
        format!("train.ema={:.6}", hyper("ema_plateau")),
    ];
    if case == "adapt_sums" {
        sets.push("loss.branches=sum".into());
    }
    let config = config("abmt", "abmt", &sets);
    let names = ["student", "teacher"].map(|n| format!("{case}.before.{n}"));
    let nets = pair(golden, &branches(), [&names[0], &names[1]], 1);
    let mut abmt = Abmt::new(&config, nets).unwrap();
    let classifier = |net: &str, branch: &str| {
        golden.get(&format!("{case}.before.{net}.classifier_{branch}.weight"))
    };
    let students = ["a", "b"].map(|b| classifier("student", b));
    abmt.classify_by(&students).unwrap();
    for (branch, [_, teacher]) in ["a", "b"].iter().zip(abmt.classifiers().unwrap()) {
        teacher.set(classifier("teacher", branch)).unwrap();
    }
    abmt.set_steps(hyper("ema_step") as u64);
    abmt
}

#[test]
fn steps_of_abmt() {
    let golden = Golden::open("abmt");
    for case in ["adapt", "adapt_sums"] {
        let mut abmt = before(&golden, case);
        let batch = golden.batch(case, "labels", &["view1"]);
        let hyper = |name: &str| golden.number(&format!("{case}.hyper.{name}"));
        let mut trained = abmt.nets().student.trainable();
        for (branch, [student, _]) in ["a", "b"].iter().zip(abmt.classifiers().unwrap()) {
            trained.push((format!("classifier_{branch}.weight"), student.clone()));
        }
        let (loss, grads) = step(&mut abmt, &batch, hyper("lr"), hyper("weight_decay"));
        let terms = [
            ("ce_a+ce_b", "identity"),
            ("sce_a+sce_b", "soft_identity"),
            ("sst_a+sst_b", "soft_triplet"),
        ];
        check_loss(&golden, case, &loss, &terms);
        check_gradients(&golden, &format!("{case}.grad.student"), &grads, &trained);
        check_net(&golden, case, "student", &abmt.nets().student);
        check_net(&golden, case, "teacher", &abmt.nets().teacher);
        for (branch, both) in ["a", "b"].iter().zip(abmt.classifiers().unwrap()) {
            for (net, var) in ["student", "teacher"].iter().zip(both) {
                let name = format!("{case}.after.{net}.classifier_{branch}.weight");
                check_var(&golden, &name, var);
            }
        }
    }
}

#[test]
fn training_on_a_source() {
    let golden = Golden::open("abmt");
    let case = "pretrain";
    let hyper = |name: &str| golden.number(&format!("{case}.hyper.{name}"));
    let sets = [
        format!("loss.identity_weight={:.6}", 2.0 * hyper("weight_ce")),
        format!("loss.triplet_weight={:.6}", 2.0 * hyper("weight_st")),
        format!("loss.smoothing={:.6}", hyper("smoothing")),
    ];
    // Eq. 4.1: half the sum over two branches is their mean.
    let config = config("supervised", "supervised", &sets);
    let net = net(&golden, branches(), &format!("{case}.before.student"), 1);
    let mut method = Supervised::new(&config, net);
    let classifier = |b: &str| {
        let name = format!("{case}.before.student.classifier_{b}.weight");
        (golden.get(&name).clone(), None)
    };
    method.set_heads(["a", "b"].map(classifier).into()).unwrap();
    let mut batch = golden.batch(case, "labels", &["source"]);
    batch.beside = Some(golden.get(&format!("{case}.batch.target")).clone());
    let renamed = |name: &str| match name {
        "classifier.weight" => "classifier_a.weight".to_owned(),
        "classifier_b.weight" => "classifier_b.weight".to_owned(),
        other => other.to_owned(),
    };
    let trained: Vec<_> = method
        .groups()
        .into_iter()
        .flat_map(|g| g.parameters)
        .map(|(name, var)| (renamed(&name), var))
        .collect();
    let (loss, grads) = step(&mut method, &batch, hyper("lr"), hyper("weight_decay"));
    check_loss(
        &golden,
        case,
        &loss,
        &[("ce_a+ce_b", "identity"), ("st_a+st_b", "triplet")],
    );
    check_gradients(&golden, &format!("{case}.grad.student"), &grads, &trained);
    check_net(&golden, case, "student", method.network());
    for (name, var) in trained.iter().filter(|(n, _)| n.starts_with("classifier")) {
        check_var(&golden, &format!("{case}.after.student.{name}"), var);
    }
}

#[test]
fn classifiers_of_abmt() {
    let golden = Golden::open("abmt");
    let teacher = net(&golden, branches(), "relabel.before.teacher", 1);
    let images = golden.get("relabel.batch.images");
    let roles = ["neck_a", "neck_b", "embedding"];
    let outputs = teacher.forward_no_grad(images, Mode::Eval, &roles).unwrap();
    let feature = &outputs["embedding"];
    near(
        "feature",
        &flat(feature),
        &golden.values("relabel.mid.feature"),
        2e-6,
    );
    let labels = golden.labels("relabel.batch.labels");
    let labels = PseudoLabels {
        clusters: labels.iter().flatten().max().unwrap().wrapping_add(1) as usize,
        labels,
    };
    for branch in ["a", "b"] {
        let neck: &Tensor = &outputs[&format!("neck_{branch}")];
        let mut rows = flat(neck);
        rows.chunks_exact_mut(16)
            .for_each(|row| reid_models::distance::normalize(row).unwrap());
        let features = Features {
            rows,
            width: 16,
            missing: Vec::new(),
        };
        let centres = pseudo::centres(&features, &labels, &Device::Cpu).unwrap();
        for net in ["student", "teacher"] {
            let name = format!("relabel.after.{net}.classifier_{branch}.weight");
            check_var(&golden, &name, &centres);
        }
    }
}

#[test]
fn distance_to_a_source() {
    let golden = Golden::open("abmt");
    let of = |name: &str| golden.values(&format!("source_term.{name}"));
    let own = farness(&of("batch.target"), &of("batch.source"), 16).unwrap();
    near("v", &own, &of("mid.v"), 1e-6);
    let jaccard = of("batch.jaccard");
    let pairs = (0..12usize).flat_map(|i| (i + 1..12).map(move |j| (i, j)));
    let stored = pairs.filter(|(i, j)| jaccard[i * 12 + j] < 1.0);
    let stored = stored.map(|(i, j)| (i, j, jaccard[i * 12 + j]));
    let distances = SparseDistances::from_pairs(12, stored).unwrap();
    let share = golden.number("source_term.hyper.lambda") as f32;
    let blended = distances.clone().blended(&own, share).unwrap();
    let want = of("mid.final");
    for i in 0..12 {
        for (j, d) in blended.row(i) {
            assert!((d - want[i * 12 + j]).abs() < 1e-6, "{i} {j}");
        }
    }
    assert_eq!(blended.entries(), distances.entries());
    assert!(distances.clone().blended(&own[1..], share).is_err());
    assert!(distances.blended(&own, 1.0).is_err());
}
