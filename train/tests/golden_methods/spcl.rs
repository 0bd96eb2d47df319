use reid_train::clustering::PseudoLabels;
use reid_train::methods::reliability::{Threshold, believed};
use reid_train::methods::spcl::Spcl;
use reid_train::methods::{Features, Method};

use super::harness::*;

#[test]
fn steps_of_spcl() {
    let golden = Golden::open("spcl");
    for case in ["step", "step_empty"] {
        let hyper = |name: &str| golden.number(&format!("{case}.hyper.{name}"));
        let sets = [
            format!("memory.temperature={:.6}", hyper("tau")),
            format!("memory.momentum={:.6}", hyper("momentum")),
        ];
        let config = config("spcl", "spcl", &sets);
        let net = net(
            &golden,
            tiny(Pool::Average, PICTURE),
            &format!("{case}.before.student"),
            1,
        );
        let mut spcl = Spcl::new(&config, net).unwrap();
        spcl.remember(Features {
            rows: golden.values(&format!("{case}.before.memory.instances")),
            width: 16,
            missing: Vec::new(),
        });
        let classes = golden.numbers(&format!("{case}.before.memory.classes"));
        let count = golden.get(&format!("{case}.mid.logits")).dim(1).unwrap();
        spcl.set_classes(&classes, count).unwrap();
        let mut batch = golden.batch(case, "labels", &["view1"]);
        let indices = golden.integers(&format!("{case}.batch.indices"));
        batch.indices = indices.into_iter().map(|i| i as usize).collect();
        let trained = spcl.net().trainable();
        let (loss, grads) = step(&mut spcl, &batch, hyper("lr"), hyper("weight_decay"));
        check_loss(&golden, case, &loss, &[("contrast", "contrast")]);
        check_gradients(&golden, &format!("{case}.grad.student"), &grads, &trained);
        check_net(&golden, case, "student", spcl.net());
        let want = golden.values(&format!("{case}.after.memory.instances"));
        near("memory", spcl.memory().unwrap().rows(), &want, 2e-6);
    }
}

#[test]
fn clusters_that_spcl_believes() {
    let golden = Golden::open("spcl");
    for case in ["reliability", "reliability_fixed", "reliability_many"] {
        let labels = |name: &str| {
            let labels = golden.labels(&format!("{case}.batch.{name}"));
            PseudoLabels {
                clusters: labels.iter().flatten().max().map_or(0, |l| *l as usize + 1),
                labels,
            }
        };
        let known = format!("{case}.hyper.threshold");
        let mut threshold = match golden.has(&known) {
            true => Threshold::known(Some(golden.number(&known))),
            false => Threshold::default(),
        };
        let standard = labels("labels");
        let got = believed(
            &standard,
            &labels("labels_tight"),
            &labels("labels_loose"),
            &mut threshold,
        );
        let used = golden.number(&format!("{case}.mid.threshold"));
        assert!((threshold.get().unwrap() - used).abs() < 1e-6, "{case}");
        assert_eq!(
            got.to_i64(),
            golden.integers(&format!("{case}.after.labels")),
            "{case}"
        );
    }
}
