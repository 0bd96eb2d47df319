//! Losses and optimisers.

use super::*;
use candle_core::{DType, Tensor, Var};
use reid_train::losses::{self, KlDirection, TripletMargin};
use reid_train::nn::optim::{Adam, AdamConfig, ParamGroup, Sgd, SgdConfig, grad_norm};
use reid_train::nn::{self, NnError};

#[test]
fn losses_as_printed_in_the_papers() {
    let golden = Golden::open("losses");
    let check = |case: &str, leaf: &str, tolerance: f32, f: &dyn Fn(&Tensor) -> Tensor| {
        let leaf_var = golden.var(&format!("{case}.{leaf}"));
        let loss = f(&leaf_var);
        close(
            case,
            &loss.reshape(1).unwrap(),
            golden.get(&format!("{case}.loss")),
            tolerance,
        );
        let grads = nn::backward(&loss).unwrap();
        let name = format!("{case}.d{leaf}");
        close(
            &name,
            grads.get(&leaf_var).unwrap(),
            golden.get(&name),
            tolerance,
        );
    };
    for (tag, smoothing) in [("plain", 0.0), ("smooth", 0.1)] {
        let case = format!("cross_entropy.{tag}");
        let labels = golden.labels(&format!("{case}.labels"));
        check(&case, "logits", 1e-5, &|x| {
            losses::cross_entropy(x, &labels, smoothing).unwrap()
        });
    }
    let labels = golden.labels("proxy_nce.ice.labels");
    check("proxy_nce.ice", "f", 1e-5, &|f| {
        losses::proxy_nce(f, golden.get("proxy_nce.ice.p"), &labels, 0.5, 0.1).unwrap()
    });
    let labels = golden.labels("hard_instance.ice.labels");
    check("hard_instance.ice", "f", 1e-5, &|f| {
        losses::hard_instance(
            f,
            golden.get("hard_instance.ice.m"),
            &labels,
            0.1,
            losses::Negatives::All,
        )
        .unwrap()
    });
    for (tag, direction) in [
        ("target_first", KlDirection::TargetFirst),
        ("printed", KlDirection::Printed),
    ] {
        let case = format!("soft_instance.{tag}");
        let (m, w) = (
            golden.get(&format!("{case}.m")),
            golden.get(&format!("{case}.w")),
        );
        check(&case, "f", 1e-5, &|f| {
            losses::soft_instance(f, m, w, 0.4, direction).unwrap()
        });
    }
    for (tag, margin) in [
        ("soft", TripletMargin::Soft),
        ("margin", TripletMargin::Margin(0.3)),
    ] {
        let case = format!("triplet.{tag}");
        let labels = golden.labels(&format!("{case}.labels"));
        check(&case, "f", 1e-5, &|f| {
            losses::triplet(f, &labels, margin).unwrap()
        });
    }
}

/// Gradients as candle's autograd would hand them over.
pub(super) fn gradients(
    golden: &Golden,
    run: &str,
    step: usize,
    params: &[(String, Var)],
) -> candle_core::backprop::GradStore {
    let mut grads = Tensor::zeros((), DType::F32, &DEVICE)
        .unwrap()
        .backward()
        .unwrap();
    for (name, var) in params {
        if let Some(g) = golden.0.get(&format!("{run}.{name}.grad{step}")) {
            grads.insert(var, g.clone());
        }
    }
    grads
}

enum Optimizer {
    Adam(Adam),
    Sgd(Sgd),
}

#[test]
fn optimisers_as_pytorch_with_decay_groups_a_missing_gradient_and_resume() {
    let golden = Golden::open("optim");
    for run in ["adam", "adam_betas", "sgd", "nesterov"] {
        let params: Vec<(String, Var)> = ["a", "b"]
            .map(|n| (n.to_string(), golden.var(&format!("{run}.{n}.start"))))
            .into();
        let make = || {
            let groups = vec![
                ParamGroup {
                    params: params[..1].to_vec(),
                    lr_scale: 1.0,
                    weight_decay: None,
                },
                ParamGroup {
                    params: params[1..].to_vec(),
                    lr_scale: 0.1,
                    weight_decay: Some(0.0),
                },
            ];
            let (beta1, beta2, eps) = if run == "adam_betas" {
                (0.5, 0.99, 1e-6)
            } else {
                (0.9, 0.999, 1e-8)
            };
            if run.starts_with("adam") {
                let config = AdamConfig {
                    beta1,
                    beta2,
                    eps,
                    weight_decay: 5e-2,
                    ..Default::default()
                };
                Optimizer::Adam(Adam::new(groups, config).unwrap())
            } else {
                let config = SgdConfig {
                    momentum: 0.9,
                    nesterov: run == "nesterov",
                    weight_decay: 5e-2,
                    ..Default::default()
                };
                Optimizer::Sgd(Sgd::new(groups, config).unwrap())
            }
        };
        let mut optimizer = make();
        for step in 0..5 {
            let grads = gradients(&golden, run, step, &params);
            // A fresh optimiser with the saved state goes on as if nothing had happened.
            let mut resumed = make();
            match (&mut optimizer, &mut resumed) {
                (Optimizer::Adam(old), Optimizer::Adam(new)) => {
                    new.load_state(&old.state().unwrap()).unwrap();
                    new.step(&grads, 1e-2).unwrap();
                }
                (Optimizer::Sgd(old), Optimizer::Sgd(new)) => {
                    new.load_state(&old.state().unwrap()).unwrap();
                    new.step(&grads, 1e-2).unwrap();
                }
                _ => unreachable!(),
            }
            optimizer = resumed;
            for (name, var) in &params {
                let want = golden.get(&format!("{run}.{name}.after{step}"));
                close(&format!("{run} {name} step {step}"), var, want, 1e-6);
            }
        }
    }
}

#[test]
fn a_gradient_that_is_not_finite_is_named_and_updates_nothing() {
    let golden = Golden::open("optim");
    let params: Vec<(String, Var)> = ["a", "b"]
        .map(|n| (n.to_string(), golden.var(&format!("adam.{n}.start"))))
        .into();
    let mut grads = gradients(&golden, "adam", 0, &params);
    let squares: f32 = params
        .iter()
        .flat_map(|(_, v)| flat(grads.get(v).unwrap()))
        .map(|g| g * g)
        .sum();
    assert!((grad_norm(&grads, &params).unwrap() - f64::from(squares.sqrt())).abs() < 1e-5);
    let mut bad = flat(grads.get(&params[1].1).unwrap());
    bad[3] = f32::NAN;
    grads.insert(&params[1].1, Tensor::from_vec(bad, 7, &DEVICE).unwrap());
    let before = flat(&params[0].1);
    let mut adam = Adam::new(vec![ParamGroup::new(params.clone())], AdamConfig::default()).unwrap();
    let err = adam.step(&grads, 1e-2).unwrap_err();
    assert!(
        matches!(&err, NnError::GradientNotFinite { name } if name == "b"),
        "{err}"
    );
    assert_eq!(flat(&params[0].1), before);
    let loss = Tensor::new(f32::INFINITY, &DEVICE).unwrap();
    assert!(
        nn::finite_loss("ce", &loss)
            .unwrap_err()
            .to_string()
            .contains("`ce` is inf")
    );
    let mut state = adam.state().unwrap();
    state.remove("b.exp_avg");
    assert!(
        adam.load_state(&state)
            .unwrap_err()
            .to_string()
            .contains("b.exp_avg")
    );
}
