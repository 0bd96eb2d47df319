use candle_core::Var;
use reid_train::losses::{TripletMargin, soft_triplet, triplet};
use reid_train::nn;

use super::harness::*;

#[test]
fn triplets_of_mmt_and_abmt() {
    let golden = Golden::open("triplet");
    for case in ["hard", "soft"] {
        let of = |name: &str| format!("{case}.{name}");
        let student = Var::from_tensor(golden.get(&of("batch.features"))).unwrap();
        let labels = golden.numbers(&of("batch.labels"));
        let loss = match case {
            "soft" => soft_triplet(&student, golden.get(&of("batch.teacher")), &labels).unwrap(),
            _ => triplet(&student, &labels, TripletMargin::Soft).unwrap(),
        };
        near(case, &flat(&loss), &golden.values(&of("loss.total")), 2e-6);
        let grads = nn::backward(&loss).unwrap();
        let want = golden.values(&of("grad.features"));
        near(case, &flat(grads.get(&student).unwrap()), &want, 2e-6);
    }
}

#[test]
fn equal_distances_give_ln_2_whatever_the_teacher_says() {
    let golden = Golden::open("triplet");
    let student = golden.get("ln2.batch.features");
    let labels = golden.numbers("ln2.batch.labels");
    let hard = triplet(student, &labels, TripletMargin::Soft).unwrap();
    near("hard", &flat(&hard), &golden.values("ln2.loss.hard"), 2e-6);
    let soft = soft_triplet(student, golden.get("ln2.batch.teacher"), &labels).unwrap();
    near("soft", &flat(&soft), &golden.values("ln2.loss.soft"), 2e-6);
}
