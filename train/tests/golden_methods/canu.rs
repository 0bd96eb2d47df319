use candle_core::{Device, Var};
use reid_train::adversary::Adversary;
use reid_train::methods::camera_game::CameraGame;
use reid_train::methods::{Batch, LossTerms, Method};

use super::harness::*;
use super::{mmt, ssg};

/// What the golden calls one of our discriminators' parameters.
fn theirs(name: &str) -> String {
    let names = [
        ("adversary1.", "discriminator1."),
        ("adversary2.", "discriminator2."),
        ("adversary", "discriminator_"),
        (".feature.bn.", ".bn_feature."),
        (".condition.bn.", ".bn_condition."),
        (".hidden.bn.", ".bn_hidden."),
        (".feature.", ".fc_feature."),
        (".condition.", ".fc_condition."),
        (".hidden.", ".fc_hidden."),
        (".cameras.", ".fc_out."),
    ];
    let replace = |name: String, (own, their): &(&str, &str)| name.replace(own, their);
    names.iter().fold(name.to_owned(), replace)
}

/// Makes a case's discriminators and gives them its parameters and centres.
fn set_game(golden: &Golden, case: &str, game: &mut CameraGame, names: &[&str]) {
    game.make(names, [16, 16], &[0, 1, 2], &Device::Cpu)
        .unwrap();
    for (name, var) in game.adversaries().iter().flat_map(Adversary::parameters) {
        let value = golden.get(&format!("{case}.before.{}", theirs(&name)));
        var.set(value).unwrap();
    }
    if case == "centroid" {
        game.set_centres(vec![golden.get("centroid.batch.centroids").clone()]);
    }
}

/// Sets of a configuration.
fn sets(golden: &Golden, case: &str) -> Vec<String> {
    let condition = if case == "none" { "none" } else { "centroid" };
    vec![
        format!("adversary.condition={condition}"),
        format!(
            "adversary.weight={:.6}",
            golden.number(&format!("{case}.hyper.mu"))
        ),
        "adversary.hidden=8".into(),
    ]
}

/// Our total is the reversal layer's, `identity + cameras`; the golden's is the network's objective, `identity - mu cameras`.
#[track_caller]
fn check_parts(golden: &Golden, case: &str, loss: &LossTerms, [identity, cameras]: [&str; 2]) {
    let of = |name: &str| golden.number(&format!("{case}.loss.{name}"));
    let sum: f64 = cameras.split('+').map(of).sum();
    let (_, got) = loss
        .terms
        .iter()
        .find(|(name, _)| *name == "camera")
        .unwrap();
    near("camera", &flat(got), &[sum as f32], 5e-6);
    let total = flat(&loss.total);
    near("total", &total, &[(sum + of(identity)) as f32], 5e-6);
    let mu = golden.number(&format!("{case}.hyper.mu"));
    let network = f64::from(total[0]) - (1.0 + mu) * f64::from(flat(got)[0]);
    near("total", &[network as f32], &[of("total") as f32], 5e-6);
}

/// Gradients and new values of the discriminators, all that the golden has.
#[track_caller]
fn check_game(
    golden: &Golden,
    [grad, after]: [&str; 2],
    parameters: &[(String, Var)],
    grads: &candle_core::backprop::GradStore,
) {
    for (name, var) in parameters {
        let name = theirs(name);
        let what = format!("{grad}.{name}");
        let got = flat(grads.get(var).unwrap());
        near_gradient(&what, &got, &golden.values(&what));
        check_var(golden, &format!("{after}.{name}"), var);
    }
    let steps = golden.under(grad).tensors;
    let of_theirs = steps.keys().filter(|n| n.starts_with("discriminator"));
    assert_eq!(parameters.len(), of_theirs.count(), "{grad}");
}

/// With some of every camera.
fn batch_of(batch: Batch) -> Batch {
    let mut seen = batch.cameras.clone();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, [0, 1, 2]);
    batch
}

#[test]
fn steps_of_canu_mmt() {
    let mut golden = Golden::open("canu_mmt");
    golden.share("none", "centroid", &["batch", "before", "hyper"]);
    for case in ["centroid", "none"] {
        let mut all = mmt::sets(&golden, case);
        all.extend(sets(&golden, case));
        let mut method = mmt::before(&golden, case, "canu_mmt", &all);
        set_game(&golden, case, method.game(), &["1", "2"]);
        let batch = batch_of(golden.batch(case, "labels", &["view1", "view2"]));
        let hyper = |name: &str| golden.number(&format!("{case}.hyper.{name}"));
        let students = [mmt::trained(&method, 0), mmt::trained(&method, 1)];
        let adversaries = method.game().adversaries().iter();
        let adversaries: Vec<(String, Var)> = adversaries.flat_map(Adversary::parameters).collect();
        let (loss, grads) = step(&mut method, &batch, hyper("lr"), hyper("weight_decay"));
        check_parts(&golden, case, &loss, ["mmt", "cam1+cam2"]);
        for (name, own) in ["student1", "student2"].iter().zip(&students) {
            check_gradients(&golden, &format!("{case}.grad.{name}"), &grads, own);
        }
        let [grad, after] = ["grad", "after"].map(|part| format!("{case}.{part}"));
        check_game(&golden, [&grad, &after], &adversaries, &grads);
        if case == "centroid" {
            mmt::check(&golden, case, &method);
            continue;
        }
        // What differs from the other case: the trained parameters.
        for (name, own) in ["student1", "student2"].iter().zip(&students) {
            for (parameter, var) in own {
                check_var(&golden, &format!("{after}.{name}.{parameter}"), var);
            }
        }
    }
}

#[test]
fn steps_of_canu_ssg() {
    let golden = Golden::open("canu_ssg");
    // Theirs are stepped by an Adam of their own, or with the network.
    let readings = [("3.5e-4", "after_adam"), ("0", "after")];
    let cases = ["centroid", "none"].map(|case| readings.map(|r| (case, r)));
    for (case, (lr, after)) in cases.into_iter().flatten() {
        let mut all = sets(&golden, case);
        all.push(format!("adversary.lr={lr}"));
        let mut method = ssg::before(&golden, case, "canu_ssg", &all);
        set_game(&golden, case, method.game(), &["full", "upper", "lower"]);
        let batch = batch_of(ssg::batch(&golden, case));
        let hyper = |name: &str| golden.number(&format!("{case}.hyper.{name}"));
        let trained = method.net().trainable();
        let adversaries = method.game().adversaries().iter();
        let adversaries: Vec<(String, Var)> = adversaries.flat_map(Adversary::parameters).collect();
        let (loss, grads) = step(&mut method, &batch, hyper("lr"), hyper("weight_decay"));
        let cameras = "cam_full+cam_upper+cam_lower";
        check_parts(&golden, case, &loss, ["ssg", cameras]);
        check_gradients(&golden, &format!("{case}.grad.student"), &grads, &trained);
        check_net(&golden, case, "student", method.net());
        let [grad, after] = ["grad", after].map(|part| format!("{case}.{part}"));
        check_game(&golden, [&grad, &after], &adversaries, &grads);
    }
}
