//! A whole ResNet-18, teacher and student, determinism, and how fast a training step is.

use super::*;
use candle_core::{DType, Tensor, Var};
use reid_models::Graph;
use reid_models::backbones::{Backbone, BackboneConfig};
use reid_models::weights::Weights;
use reid_train::losses;
use reid_train::nn::optim::{Adam, AdamConfig, ParamGroup};
use reid_train::nn::{self, Mode, Net, NnError, RunningFrom, ops};
use std::collections::BTreeMap;

fn resnet18(width: usize, height: usize, input_width: usize) -> Graph {
    BackboneConfig {
        backbone: Backbone::Resnet18,
        width,
        last_stride: 1,
        height,
        input_width,
        ..Default::default()
    }
    .build()
    .unwrap()
}

fn golden_net(golden: &Golden) -> Net {
    let mut net = Net::new(resnet18(4, 48, 32), 3, &DEVICE).unwrap();
    let mut weights = Weights::default();
    for (name, t) in &golden.0 {
        if let Some(name) = name.strip_prefix("weight.") {
            weights
                .tensors
                .insert(name.into(), (t.dims().to_vec(), flat(t)));
        }
    }
    let report = net.load(&weights).unwrap();
    assert_eq!(report.loaded.len(), net.params().len());
    assert!(
        report.missing.is_empty() && report.unused.is_empty(),
        "{report:?}"
    );
    assert_eq!(net.to_weights().unwrap(), weights);
    net
}

#[test]
fn resnet18_as_torchvision() {
    let golden = Golden::open("resnet");
    let net = golden_net(&golden);
    let images = golden.var("input");
    let folded = net.forward_no_grad(&images, Mode::Eval, &ROLES).unwrap();
    let plain = net.forward(&images, Mode::Eval, &ROLES).unwrap();
    for role in ROLES {
        let want = golden.get(&format!("eval.{role}"));
        close(&format!("folded {role}"), &folded[role], want, 1e-5);
        close(&format!("eval {role}"), &plain[role], want, 1e-5);
    }
    let outputs = net.forward(&images, Mode::Train, &ROLES).unwrap();
    let mut loss = Tensor::zeros((), DType::F32, &DEVICE).unwrap();
    for role in ROLES {
        close(
            role,
            &outputs[role],
            golden.get(&format!("train.{role}")),
            NECK,
        );
        let term = (&outputs[role] * golden.get(&format!("cotangent.{role}"))).unwrap();
        loss = (loss + term.sum_all().unwrap()).unwrap();
    }
    let grads = nn::backward(&loss).unwrap();
    close(
        "input",
        grads.get(&images).unwrap(),
        golden.get("grad_input"),
        5e-5,
    );
    for (name, var) in net.trainable() {
        close(
            &name,
            grads.get(&var).unwrap(),
            golden.get(&format!("grad.{name}")),
            5e-5,
        );
    }
    assert!(
        grads.get(net.param("neck.bias").unwrap()).is_none(),
        "frozen"
    );
    for (name, var) in net.params() {
        if name.contains("running") {
            close(name, var, golden.get(&format!("after.{name}")), 1e-5);
        }
    }
}

#[test]
fn a_teacher_in_training_mode_moves_its_own_statistics() {
    let golden = Golden::open("resnet");
    let net = golden_net(&golden);
    let images = golden.get("input");
    let outputs = net.forward_no_grad(images, Mode::Train, &["neck"]).unwrap();
    close("neck", &outputs["neck"], golden.get("train.neck"), NECK);
    let name = "layer4.1.bn2.running_var";
    close(
        name,
        net.param(name).unwrap(),
        golden.get(&format!("after.{name}")),
        1e-5,
    );
}

#[test]
fn a_loss_through_two_passes_adds_gradients_and_a_pass_is_used_once() {
    let golden = Golden::open("resnet");
    let net = golden_net(&golden);
    let images = golden.get("input");
    let loss = |net: &Net| {
        let y = net.forward(images, Mode::Eval, &["pooled"]).unwrap();
        y["pooled"].sum_all().unwrap()
    };
    let weight = net.param("layer3.0.conv2.weight").unwrap();
    let once = nn::backward(&loss(&net)).unwrap();
    let twice = nn::backward(&(loss(&net) + loss(&net)).unwrap()).unwrap();
    let doubled = (once.get(weight).unwrap() * 2.0).unwrap();
    close("sum", twice.get(weight).unwrap(), &doubled, 1e-6);
    let used = loss(&net);
    nn::backward(&used).unwrap();
    let err = nn::backward(&used).unwrap_err().to_string();
    assert!(err.contains("run forward again"), "{err}");
    let err = loss(&net).backward().unwrap_err().to_string();
    assert!(err.contains("nn::backward"), "{err}");
}

#[test]
fn ghost_batch_norm() {
    let golden = Golden::open("resnet");
    let images = golden.get("input");
    let mut net = golden_net(&golden);
    net.set_norm_groups(2, RunningFrom::First);
    let outputs = net.forward(images, Mode::Train, &["neck"]).unwrap();
    // The first group is what a network sees that is given the first half only.
    let half = golden_net(&golden);
    let first = half
        .forward(&images.narrow(0, 0, 2).unwrap(), Mode::Train, &["neck"])
        .unwrap();
    close(
        "first half",
        &outputs["neck"].narrow(0, 0, 2).unwrap(),
        &first["neck"],
        1e-6,
    );
    let name = "layer2.0.bn1.running_mean";
    close(
        name,
        net.param(name).unwrap(),
        half.param(name).unwrap(),
        1e-6,
    );
    // So are its gradients, with both halves adding up.
    let grads = nn::backward(&outputs["neck"].sqr().unwrap().sum_all().unwrap()).unwrap();
    let second = half
        .forward(&images.narrow(0, 2, 2).unwrap(), Mode::Train, &["neck"])
        .unwrap();
    let sum = |m: &BTreeMap<String, Tensor>| m["neck"].sqr().unwrap().sum_all().unwrap();
    let halves = nn::backward(&(sum(&first) + sum(&second)).unwrap()).unwrap();
    let name = "layer1.0.bn2.weight";
    let (a, b) = (
        grads.get(net.param(name).unwrap()),
        halves.get(half.param(name).unwrap()),
    );
    close(name, a.unwrap(), b.unwrap(), 1e-3);
    net.set_norm_groups(3, RunningFrom::Mean);
    let err = net.forward(images, Mode::Train, &["neck"]).err().unwrap();
    assert!(matches!(
        err,
        NnError::Groups {
            batch: 4,
            groups: 3,
            ..
        }
    ));
}

#[test]
fn bad_input_is_named() {
    let net = Net::new(resnet18(4, 48, 32), 0, &DEVICE).unwrap();
    let images = Tensor::zeros((2, 3, 32, 48), DType::F32, &DEVICE).unwrap();
    let err = net
        .forward(&images, Mode::Train, &["neck"])
        .unwrap_err()
        .to_string();
    assert!(
        err.contains("[3, 48, 32]") && err.contains("[2, 3, 32, 48]"),
        "{err}"
    );
    let one = Tensor::zeros((1, 3, 48, 32), DType::F32, &DEVICE).unwrap();
    let err = net
        .forward(&one, Mode::Train, &["neck"])
        .unwrap_err()
        .to_string();
    assert!(
        err.contains("`neck`") && err.contains("larger batch"),
        "{err}"
    );
    let before = net.to_weights().unwrap();
    assert!(net.forward(&one, Mode::Train, &["logits"]).is_err());
    assert_eq!(
        before,
        net.to_weights().unwrap(),
        "a failed pass changes nothing"
    );
}

#[test]
fn teacher_and_student() {
    let student = Net::new(resnet18(4, 48, 32), 1, &DEVICE).unwrap();
    let teacher = Net::new(resnet18(4, 48, 32), 2, &DEVICE).unwrap();
    let name = "layer1.0.conv1.weight";
    let (s, t) = (
        flat(student.param(name).unwrap()),
        flat(teacher.param(name).unwrap()),
    );
    assert_ne!(s, t);
    let images = Tensor::ones((2, 3, 48, 32), DType::F32, &DEVICE).unwrap();
    student.forward(&images, Mode::Train, &["neck"]).unwrap();
    teacher.ema_update(&student, 0.75).unwrap();
    for ((got, s), t) in flat(teacher.param(name).unwrap()).iter().zip(&s).zip(&t) {
        assert!((got - (0.75 * t + 0.25 * s)).abs() < 1e-6);
    }
    let stat = flat(teacher.param("bn1.running_mean").unwrap());
    assert!(
        stat.iter().all(|x| *x == 0.0),
        "statistics are not averaged"
    );
    teacher.ema_update(&student, 0.0).unwrap();
    assert_eq!(
        flat(teacher.param(name).unwrap()),
        s,
        "alpha 0 copies the student"
    );
    teacher.clone_weights_from(&student).unwrap();
    assert_eq!(teacher.to_weights().unwrap(), student.to_weights().unwrap());
    let other = Net::new(resnet18(8, 48, 32), 2, &DEVICE).unwrap();
    assert!(matches!(
        other.ema_update(&student, 0.9).unwrap_err(),
        NnError::Counterpart { .. }
    ));
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let net = Net::new(resnet18(8, 64, 32), 5, &DEVICE).unwrap();
            let mut rng = nn::init::stream(9, "images");
            let pixels = nn::init::normal(&mut rng, 1.0, 24 * 3 * 64 * 32);
            let images = Tensor::from_vec(pixels, (24, 3, 64, 32), &DEVICE).unwrap();
            let mut adam = Adam::new(
                vec![ParamGroup::new(net.trainable())],
                AdamConfig::default(),
            )
            .unwrap();
            for _ in 0..2 {
                let y = net.forward(&images, Mode::Train, &["neck"]).unwrap();
                let loss = losses::cross_entropy(&y["neck"], &[3; 24], 0.1).unwrap();
                adam.step(&nn::backward(&loss).unwrap(), 1e-3).unwrap();
            }
            net.to_weights().unwrap()
        })
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn a_large_stack_runs_long_chains() {
    let total = nn::with_large_stack(|| {
        let x = Var::new(1f32, &DEVICE).unwrap();
        let mut y = x.as_tensor().clone();
        for _ in 0..20_000 {
            y = (y + 1.0).unwrap();
        }
        let grads = nn::backward(&y).unwrap();
        grads.get(&x).unwrap().to_scalar::<f32>().unwrap()
    });
    assert_eq!(total, 1.0);
}

/// Process CPU seconds: robust to other load on the machine.
#[cfg(unix)]
fn cpu_seconds() -> f64 {
    let mut t = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `t` is a valid place to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut t) };
    t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9
}

/// Prints images per second (by CPU time over threads): `cargo test --release -p reid-train throughput -- --ignored --nocapture`.
#[test]
#[cfg(unix)]
#[ignore = "a measurement, not a check"]
fn throughput() {
    nn::tune_allocator();
    let threads = rayon::current_num_threads() as f64;
    let net = Net::new(resnet18(16, 128, 64), 0, &DEVICE).unwrap();
    let classifier = random("classifier", &[100, 128]);
    let mut params = net.trainable();
    params.push(("classifier".into(), classifier.clone()));
    let mut adam = Adam::new(vec![ParamGroup::new(params)], AdamConfig::default()).unwrap();
    for batch in [32usize, 64] {
        let images = random("images", &[batch, 3, 128, 64]).detach();
        let labels: Vec<u32> = (0..batch as u32).collect();
        let best = |f: &mut dyn FnMut(), repeat: usize| {
            (0..repeat)
                .map(|_| {
                    let start = cpu_seconds();
                    (0..4).for_each(|_| f());
                    batch as f64 * 4.0 * threads / (cpu_seconds() - start)
                })
                .fold(0f64, f64::max)
        };
        let train = best(
            &mut || {
                let y = net.forward(&images, Mode::Train, &["neck"]).unwrap();
                let logits = ops::linear(&y["neck"], &classifier, None).unwrap();
                let loss = losses::cross_entropy(&logits, &labels, 0.1).unwrap();
                adam.step(&nn::backward(&loss).unwrap(), 3.5e-4).unwrap();
            },
            6,
        );
        let forward_train = best(
            &mut || {
                net.forward(&images, Mode::Train, &["neck"]).unwrap();
            },
            4,
        );
        let eval = best(
            &mut || {
                net.forward_no_grad(&images, Mode::Eval, &["neck"]).unwrap();
            },
            4,
        );
        println!(
            "batch {batch}: step {train:.0} img/s, forward (training) {forward_train:.0}, forward (folded) {eval:.0}"
        );
    }
}
