use reid_models::Graph;
use reid_models::heads::parts;
use reid_train::methods::ssg::Ssg;
use reid_train::methods::{Batch, Method};
use reid_train::nn::Mode;

use super::harness::*;

/// Stem, body and what the method's own network has after its backbone.
pub fn with_parts(picture: [usize; 3]) -> Graph {
    let (mut graph, map) = trunk(picture);
    parts::append(&mut graph, &map, 16);
    graph
}

pub fn before(golden: &Golden, case: &str, preset: &str, sets: &[String]) -> Ssg {
    let hyper = |name: &str| golden.number(&format!("{case}.hyper.{name}"));
    let mut all = vec![
        format!("loss.triplet_margin={:.6}", hyper("margin")),
        format!("train.instances={}", hyper("instances")),
    ];
    all.extend(sets.iter().cloned());
    let config = config("ssg", preset, &all);
    let graph = with_parts(golden.picture(case));
    let net = net(golden, graph, &format!("{case}.before.student"), 1);
    let mut ssg = Ssg::new(&config, net).unwrap();
    let of = |part: &str| golden.labels(&format!("{case}.batch.labels_{part}"));
    let (full, upper, lower) = (of("full"), of("upper"), of("lower"));
    let labels = (0..full.len()).map(|i| [full[i], upper[i], lower[i]]);
    ssg.set_labels(labels.collect());
    ssg
}

pub fn batch(golden: &Golden, case: &str) -> Batch {
    golden.batch(case, "labels_full", &["view1"])
}

pub const TERMS: [(&str, &str); 4] = [
    ("full", "full"),
    ("upper", "upper"),
    ("lower", "lower"),
    ("x2", "projected"),
];

#[test]
fn steps_of_ssg() {
    let golden = Golden::open("ssg");
    for (case, mining) in [("step", "semi_hard"), ("batch_hard", "batch_hard")] {
        let sets = [format!("loss.triplet_mining={mining}")];
        let mut ssg = before(&golden, case, "ssg", &sets);
        let batch = batch(&golden, case);
        let hyper = |name: &str| golden.number(&format!("{case}.hyper.{name}"));
        let trained = ssg.net().trainable();
        let (loss, grads) = step(&mut ssg, &batch, hyper("lr"), hyper("weight_decay"));
        check_loss(&golden, case, &loss, &TERMS);
        check_gradients(&golden, &format!("{case}.grad.student"), &grads, &trained);
        check_net(&golden, case, "student", ssg.net());
    }
}

#[test]
fn a_part_that_takes_a_batch_for_one_person_teaches_nothing() {
    let golden = Golden::open("ssg");
    for (case, mining) in [("step", "semi_hard"), ("batch_hard", "batch_hard")] {
        let sets = [format!("loss.triplet_mining={mining}")];
        let mut ssg = before(&golden, case, "ssg", &sets);
        let batch = batch(&golden, case);
        let of = |part: &str| golden.labels(&format!("{case}.batch.labels_{part}"));
        let (full, upper) = (of("full"), of("upper"));
        let before = ssg.loss(&batch).unwrap();
        let labels = full.iter().zip(&upper).map(|(f, u)| [*f, *u, Some(3)]);
        ssg.set_labels(labels.collect());
        let after = ssg.loss(&batch).unwrap();
        for ((name, old), (_, new)) in before.terms.iter().zip(&after.terms) {
            let [old, new] = [old, new].map(|t| t.to_scalar::<f32>().unwrap());
            let want = if *name == parts::PARTS[2] { 0.0 } else { old };
            assert!(
                (new - want).abs() < 1e-6,
                "{case}, {name}: {new}, not {want}"
            );
        }
        step(&mut ssg, &batch, 1e-3, 0.0);
    }
}

#[test]
fn features_of_ssg() {
    let golden = Golden::open("ssg");
    let net = net(&golden, with_parts(PICTURE), "features.before.student", 1);
    let images = golden.get("features.batch.images");
    let parts = parts::PARTS;
    let outputs = net.forward_no_grad(images, Mode::Eval, &parts).unwrap();
    for part in parts {
        let want = golden.values(&format!("features.mid.student.{part}"));
        near(part, &flat(&outputs[part]), &want, 2e-6);
    }
}
