use candle_core::{Device, Tensor};
use reid_models::distance::normalize;
use reid_train::clustering::PseudoLabels;
use reid_train::methods::ice::Ice;
use reid_train::methods::{Features, Method};

use super::harness::*;

/// A method in the state that `case` begins with.
fn before(golden: &Golden, case: &str) -> Ice {
    changed(golden, case, &[])
}

/// The same with other settings.
fn changed(golden: &Golden, case: &str, more: &[&str]) -> Ice {
    let hyper = |name: &str| golden.number(&format!("{case}.hyper.{name}"));
    let aware = golden.has(&format!("{case}.hyper.tau_cross"));
    let printed = case.contains("printed");
    let mut sets = vec![
        format!("loss.proxy_temperature={}", hyper("tau_agnostic")),
        format!("loss.hard_temperature={}", hyper("tau_h")),
        format!("loss.soft_temperature={}", hyper("tau_s")),
        format!("loss.hard_weight={:.3}", hyper("weight_h")),
        format!("loss.soft_weight={:.3}", hyper("weight_s")),
        format!("loss.smoothing={:.6}", hyper("smoothing")),
        format!("train.ema={:.6}", hyper("ema_alpha")),
    ];
    if aware {
        sets.push(format!("loss.cross_negatives={}", hyper("negatives")));
        if printed {
            sets.push("loss.cross_form=printed".into());
        }
    } else if printed {
        sets.push("loss.soft_direction=printed".into());
    }
    sets.extend(more.iter().map(ToString::to_string));
    let config = config("ice", if aware { "ice_aware" } else { "ice" }, &sets);
    if aware {
        // The preset's own.
        assert_eq!(config.loss.cross_weight, hyper("weight_cross"));
        assert!((config.loss.cross_temperature - hyper("tau_cross")).abs() < 1e-6);
    }
    let prefixes = ["student", "teacher"].map(|n| format!("{case}.before.{n}"));
    let groups = hyper("groups") as usize;
    let nets = pair(
        golden,
        &tiny(Pool::Average, PICTURE),
        [&prefixes[0], &prefixes[1]],
        groups,
    );
    let mut ice = Ice::new(&config, nets).unwrap();
    let memory = |name: &str| format!("{case}.before.memory.{name}");
    let cameras = aware.then(|| {
        (
            golden.get(&memory("camera_proxies")).clone(),
            golden.numbers(&memory("proxy_clusters")),
            golden.numbers(&memory("proxy_cameras")),
        )
    });
    ice.set_proxies(golden.get(&memory("cluster_proxies")).clone(), cameras);
    let orders = ["view2", "weak"].map(|view| format!("{case}.batch.order_{view}"));
    if golden.has(&orders[0]) {
        ice.set_teacher_orders(orders.map(|name| golden.numbers(&name)));
    }
    ice
}

#[test]
fn steps_of_ice() {
    let golden = Golden::open("ice");
    for case in [
        "agnostic",
        "agnostic_groups",
        "agnostic_shuffled",
        "agnostic_printed",
        "aware",
        "aware_few",
        "aware_printed",
    ] {
        let mut ice = before(&golden, case);
        let batch = golden.batch(case, "labels", &["view1", "view2", "weak"]);
        let hyper = |name: &str| golden.number(&format!("{case}.hyper.{name}"));
        let student = ice.nets().student.trainable();
        let (loss, grads) = step(&mut ice, &batch, hyper("lr"), hyper("weight_decay"));
        let mut terms = vec![("agnostic", "proxy"), ("h_ins", "hard"), ("s_ins", "soft")];
        if case.starts_with("aware") {
            terms.push(("cross", "cross"));
        }
        check_loss(&golden, case, &loss, &terms);
        check_gradients(&golden, &format!("{case}.grad.student"), &grads, &student);
        check_net(&golden, case, "student", &ice.nets().student);
        check_net(&golden, case, "teacher", &ice.nets().teacher);
    }
}

#[test]
fn proxies_of_ice() {
    let golden = Golden::open("ice");
    let case = "aware";
    let mut ice = before(&golden, case);
    let mut rows = golden.values("proxies.batch.features");
    rows.chunks_exact_mut(16)
        .for_each(|row| normalize(row).unwrap());
    let labels = golden.labels("proxies.batch.labels");
    let labels = PseudoLabels {
        clusters: labels.iter().flatten().max().unwrap().wrapping_add(1) as usize,
        labels,
    };
    let features = Features {
        rows,
        width: 16,
        missing: Vec::new(),
    };
    let cameras = golden.numbers("proxies.batch.cameras");
    ice.remember(&features, &labels, &cameras).unwrap();
    let (clusters, of_cameras) = ice.proxies().unwrap();
    check_var(&golden, "proxies.after.memory.cluster_proxies", clusters);
    let (rows, proxies) = of_cameras.unwrap();
    check_var(&golden, "proxies.after.memory.camera_proxies", rows);
    assert_eq!(
        proxies.clusters,
        golden.numbers("proxies.after.memory.proxy_clusters")
    );
    assert_eq!(
        proxies.cameras,
        golden.numbers("proxies.after.memory.proxy_cameras")
    );
}

#[test]
fn labels_may_be_permuted() {
    // The same step with clusters numbered backwards.
    let golden = Golden::open("ice");
    let one = before(&golden, "aware");
    let mut batch = golden.batch("aware", "labels", &["view1", "view2", "weak"]);
    let a = one.loss(&batch).unwrap();
    let mut two = before(&golden, "aware");
    let (clusters, cameras) = two.proxies().unwrap();
    let count = clusters.dim(0).unwrap() as u32;
    let index: Vec<u32> = (0..count).rev().collect();
    let index = Tensor::new(index, &Device::Cpu).unwrap();
    let clusters = clusters.index_select(&index, 0).unwrap();
    let cameras = cameras.map(|(rows, p)| {
        let own = p.clusters.iter().map(|c| count - 1 - c).collect();
        (rows.clone(), own, p.cameras.clone())
    });
    two.set_proxies(clusters, cameras);
    batch.labels.iter_mut().for_each(|l| *l = count - 1 - *l);
    let b = two.loss(&batch).unwrap();
    near("total", &flat(&b.total), &flat(&a.total), 1e-6);
}

#[test]
fn the_teacher_is_shuffled_where_batch_norms_have_groups() {
    let golden = Golden::open("ice");
    let case = "agnostic_groups";
    let batch = golden.batch(case, "labels", &["view1", "view2", "weak"]);
    let loss = |ice: &Ice| flat(&ice.loss(&batch).unwrap().total)[0];
    let with = |more: &[&str]| loss(&changed(&golden, case, more));
    let plain = with(&["train.norm_groups=2", "loss.teacher_shuffle=false"]);
    assert_eq!(plain, with(&[]));
    let shuffled = with(&["train.norm_groups=2"]);
    assert!((shuffled - plain).abs() > 1e-3, "{shuffled} and {plain}");
    assert_eq!(shuffled, with(&["train.norm_groups=2"]), "the same seed");
    let other = with(&["train.norm_groups=2", "seed=7"]);
    assert!((other - shuffled).abs() > 1e-3, "{other} and {shuffled}");
    // Another order in the next step.
    let mut ice = changed(&golden, case, &["train.norm_groups=2", "train.ema=1.0"]);
    let first = loss(&ice);
    ice.after_step(&batch, &[]).unwrap();
    assert!((loss(&ice) - first).abs() > 1e-3);
}
