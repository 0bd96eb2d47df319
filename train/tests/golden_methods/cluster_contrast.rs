use reid_models::distance::normalize;
use reid_train::clustering::PseudoLabels;
use reid_train::methods::cluster_contrast::ClusterContrast;
use reid_train::methods::{Features, Method};

use super::harness::*;

fn before(golden: &Golden, case: &str, update: &str) -> ClusterContrast {
    let hyper = |name: &str| golden.number(&format!("{case}.hyper.{name}"));
    let sets = [
        format!("memory.temperature={:.6}", hyper("tau")),
        format!("memory.momentum={:.6}", hyper("momentum")),
        format!("memory.update={update}"),
    ];
    let config = config("cluster_contrast", "cluster_contrast", &sets);
    let net = net(
        golden,
        tiny(Pool::Gem, PICTURE),
        &format!("{case}.before.student"),
        1,
    );
    let mut method = ClusterContrast::new(&config, net).unwrap();
    let rows = golden.values(&format!("{case}.before.memory.centroids"));
    method.set_memory(rows, 16).unwrap();
    method
}

#[test]
fn steps_of_cluster_contrast() {
    let golden = Golden::open("cluster_contrast");
    for (case, update) in [
        ("plain", "each"),
        ("hard", "hardest"),
        ("camera_aware", "camera_aware"),
    ] {
        let mut method = before(&golden, case, update);
        let batch = golden.batch(case, "labels", &["view1"]);
        let hyper = |name: &str| golden.number(&format!("{case}.hyper.{name}"));
        let trained = method.net().trainable();
        let (loss, grads) = step(&mut method, &batch, hyper("lr"), hyper("weight_decay"));
        check_loss(&golden, case, &loss, &[]);
        check_gradients(&golden, &format!("{case}.grad.student"), &grads, &trained);
        check_net(&golden, case, "student", method.net());
        let memory = method.memory().unwrap().tensor();
        check_var(&golden, &format!("{case}.after.memory.centroids"), memory);
    }
}

#[test]
fn the_memory_begins_with_unit_means() {
    let golden = Golden::open("cluster_contrast");
    let mut method = before(&golden, "plain", "each");
    let mut rows = golden.values("memory.batch.features");
    rows.chunks_exact_mut(16)
        .for_each(|row| normalize(row).unwrap());
    let labels = golden.labels("memory.batch.labels");
    let labels = PseudoLabels {
        clusters: labels.iter().flatten().max().unwrap().wrapping_add(1) as usize,
        labels,
    };
    let features = Features {
        rows,
        width: 16,
        missing: Vec::new(),
    };
    method.remember(&features, &labels).unwrap();
    let memory = method.memory().unwrap().tensor();
    check_var(&golden, "memory.after.memory.centroids", memory);
}
