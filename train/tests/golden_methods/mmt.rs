use candle_core::Device;
use reid_train::clustering::PseudoLabels;
use reid_train::methods::mmt::Mmt;
use reid_train::methods::{Features, Method};

use super::harness::*;

const STUDENTS: [&str; 2] = ["student1", "student2"];
const TEACHERS: [&str; 2] = ["teacher1", "teacher2"];

/// The sets of a configuration that a case asks for.
pub fn sets(golden: &Golden, case: &str) -> Vec<String> {
    let hyper = |name: &str| golden.number(&format!("{case}.hyper.{name}"));
    let (w_c, w_t) = (hyper("w_c"), hyper("w_t"));
    vec![
        format!("loss.smoothing={:.6}", hyper("smoothing")),
        format!("loss.identity_weight={:.6}", 1.0 - w_c),
        format!("loss.soft_identity_weight={w_c:.6}"),
        format!("loss.triplet_weight={:.6}", 1.0 - w_t),
        format!("loss.soft_triplet_weight={w_t:.6}"),
        format!("train.ema={:.6}", hyper("ema_plateau")),
    ]
}

/// A method in the state that `case` begins with.
pub fn before(golden: &Golden, case: &str, preset: &str, sets: &[String]) -> Mmt {
    let hyper = |name: &str| golden.number(&format!("{case}.hyper.{name}"));
    let config = config("mmt", preset, sets);
    assert!(config.train.ema_ramp);
    let groups = if golden.has(&format!("{case}.hyper.groups")) {
        hyper("groups") as usize
    } else {
        1
    };
    let pairs = [0, 1].map(|i: usize| {
        let names = [STUDENTS[i], TEACHERS[i]].map(|n| format!("{case}.before.{n}"));
        let graph = tiny(Pool::Average, golden.picture(case));
        pair(golden, &graph, [&names[0], &names[1]], groups)
    });
    let mut mmt = Mmt::new(&config, pairs).unwrap();
    let classifier = |name: &str| golden.get(&format!("{case}.before.{name}.classifier.weight"));
    mmt.classify_by(classifier(STUDENTS[0])).unwrap();
    for (i, [student, teacher]) in mmt.classifiers().unwrap().iter().enumerate() {
        student.set(classifier(STUDENTS[i])).unwrap();
        teacher.set(classifier(TEACHERS[i])).unwrap();
    }
    mmt.set_steps(hyper("ema_step") as u64);
    mmt
}

/// Everything of the students and teachers after a step.
#[track_caller]
pub fn check(golden: &Golden, case: &str, mmt: &Mmt) {
    for i in [0, 1] {
        let pair = &mmt.pairs()[i];
        check_net(golden, case, STUDENTS[i], &pair.student);
        check_net(golden, case, TEACHERS[i], &pair.teacher);
        let [student, teacher] = &mmt.classifiers().unwrap()[i];
        for (name, var) in [(STUDENTS[i], student), (TEACHERS[i], teacher)] {
            check_var(
                golden,
                &format!("{case}.after.{name}.classifier.weight"),
                var,
            );
        }
    }
}

/// Trained parameters of a student, its classifier among them.
pub fn trained(mmt: &Mmt, i: usize) -> Vec<(String, candle_core::Var)> {
    let mut all = mmt.pairs()[i].student.trainable();
    let [student, _] = &mmt.classifiers().unwrap()[i];
    all.push(("classifier.weight".into(), student.clone()));
    all
}

pub const TERMS: [(&str, &str); 4] = [
    ("ce1+ce2", "identity"),
    ("sce1+sce2", "soft_identity"),
    ("st1+st2", "triplet"),
    ("sst1+sst2", "soft_triplet"),
];

#[test]
fn steps_of_mmt() {
    let golden = Golden::open("mmt");
    for case in ["step", "step_first", "step_groups"] {
        let mut mmt = before(&golden, case, "mmt", &sets(&golden, case));
        let batch = golden.batch(case, "labels", &["view1", "view2"]);
        let hyper = |name: &str| golden.number(&format!("{case}.hyper.{name}"));
        let trained = [trained(&mmt, 0), trained(&mmt, 1)];
        let (loss, grads) = step(&mut mmt, &batch, hyper("lr"), hyper("weight_decay"));
        check_loss(&golden, case, &loss, &TERMS);
        for (name, own) in STUDENTS.iter().zip(&trained) {
            check_gradients(&golden, &format!("{case}.grad.{name}"), &grads, own);
        }
        check(&golden, case, &mmt);
    }
}

#[test]
fn classifiers_of_mmt() {
    let golden = Golden::open("mmt");
    let teacher = |name: &str| Features {
        rows: golden.values(&format!("relabel.batch.{name}")),
        width: 16,
        missing: Vec::new(),
    };
    let labels = golden.labels("relabel.batch.labels");
    let labels = PseudoLabels {
        clusters: labels.iter().flatten().max().unwrap().wrapping_add(1) as usize,
        labels,
    };
    let both = vec![teacher("teacher1"), teacher("teacher2")];
    let (feature, centres) = Mmt::centres(both, &labels, &Device::Cpu).unwrap();
    near(
        "feature",
        &feature.rows,
        &golden.values("relabel.mid.feature"),
        1e-6,
    );
    for name in STUDENTS.iter().chain(&TEACHERS) {
        check_var(
            &golden,
            &format!("relabel.after.{name}.classifier.weight"),
            &centres,
        );
    }
    // The next step may have another number of clusters.
    let mut mmt = before(&golden, "step", "mmt", &sets(&golden, "step"));
    mmt.classify_by(&centres).unwrap();
    let mut batch = golden.batch("step", "labels", &["view1", "view2"]);
    batch.labels.iter_mut().for_each(|l| *l %= 5);
    mmt.loss(&batch).unwrap();
}
