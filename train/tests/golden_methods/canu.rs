use candle_core::{Device, Var};
use reid_train::adversary::Adversary;
use reid_train::methods::camera_game::CameraGame;
use reid_train::methods::{Batch, LossTerms, Method};

use super::harness::*;
use super::{mmt, ssg};

/// Makes a case's discriminators and gives them its parameters and centres.
fn set_game(golden: &Golden, case: &str, game: &mut CameraGame, names: &[&str]) {
    game.make(names, [16, 16], &[0, 1, 2], &Device::Cpu)
        .unwrap();
    for (name, var) in game.adversaries().iter().flat_map(Adversary::parameters) {
        var.set(golden.get(&format!("{case}.before.{name}")))
            .unwrap();
    }
    let centres = names.iter().map(|n| format!("{case}.before.centres{n}"));
    let known = centres.filter(|name| golden.has(name));
    game.set_centres(known.map(|name| golden.get(&name).clone()).collect());
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

/// The loss without the adversaries' part is `identity_part`, theirs the sum of the cross-entropies.
#[track_caller]
fn check_parts(golden: &Golden, case: &str, loss: &LossTerms, cameras: &[&str]) {
    let cameras = cameras
        .iter()
        .map(|n| golden.number(&format!("{case}.loss.{n}")));
    let want: f64 = cameras.sum();
    let (_, got) = loss
        .terms
        .iter()
        .find(|(name, _)| *name == "camera")
        .unwrap();
    near("camera", &flat(got), &[want as f32], 5e-6);
    let identity = golden.number(&format!("{case}.loss.identity_part"));
    near(
        "total",
        &flat(&loss.total),
        &[(want + identity) as f32],
        5e-6,
    );
}

/// Gradients and new values of the discriminators. Biases before a batch norm have no gradient but rounding, and are left out of
/// the golden.
#[track_caller]
fn check_game(
    golden: &Golden,
    case: &str,
    parameters: &[(String, Var)],
    grads: &candle_core::backprop::GradStore,
) {
    let mut compared = 0;
    for (name, var) in parameters {
        let grad = format!("{case}.grad.{name}");
        if golden.has(&grad) {
            compared += 1;
            let want = golden.values(&grad);
            let norm = want.iter().map(|x| x * x).sum::<f32>().sqrt();
            for (g, w) in flat(grads.get(var).unwrap()).iter().zip(&want) {
                assert!(
                    (g - w).abs() <= 3e-4 * norm + 1e-7,
                    "{grad}: {g}, PyTorch {w}"
                );
            }
        }
        let after = format!("{case}.after.{name}");
        if golden.has(&after) {
            check_var(golden, &after, var);
        }
    }
    assert!(
        compared > 0,
        "{case}: no gradient of a discriminator was compared"
    );
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
#[ignore = "reads other names than its golden has"]
fn steps_of_canu_mmt() {
    let golden = Golden::open("canu_mmt");
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
        check_parts(&golden, case, &loss, &["cam1", "cam2"]);
        for (name, own) in ["student1", "student2"].iter().zip(&students) {
            check_gradients(&golden, &format!("{case}.grad.{name}"), &grads, own);
        }
        check_game(&golden, case, &adversaries, &grads);
        mmt::check(&golden, case, &method);
    }
}

#[test]
#[ignore = "reads other names than its golden has"]
fn steps_of_canu_ssg() {
    let golden = Golden::open("canu_ssg");
    for case in ["centroid", "none"] {
        let mut method = ssg::before(&golden, case, "canu_ssg", &sets(&golden, case));
        let parts = ["full", "upper", "lower"];
        set_game(&golden, case, method.game(), &parts);
        let batch = batch_of(ssg::batch(&golden, case));
        let hyper = |name: &str| golden.number(&format!("{case}.hyper.{name}"));
        let trained = method.net().trainable();
        let adversaries = method.game().adversaries().iter();
        let adversaries: Vec<(String, Var)> = adversaries.flat_map(Adversary::parameters).collect();
        let (loss, grads) = step(&mut method, &batch, hyper("lr"), hyper("weight_decay"));
        check_parts(
            &golden,
            case,
            &loss,
            &["cam_full", "cam_upper", "cam_lower"],
        );
        check_gradients(&golden, &format!("{case}.grad.student"), &grads, &trained);
        check_game(&golden, case, &adversaries, &grads);
        check_net(&golden, case, "student", method.net());
    }
}
