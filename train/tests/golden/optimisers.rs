//! `optim_more.safetensors`: every form of the optimisers, clipping, schedules and moving averages.

use super::training::gradients;
use super::*;
use reid_train::nn::optim::{Adam, AdamConfig, ParamGroup, Sgd, SgdConfig, clip_value, grad_norm};
use reid_train::nn::schedule::{Decay, Schedule};

enum Optimizer {
    Adam(Adam),
    Sgd(Sgd),
}

impl Optimizer {
    fn step(&mut self, grads: &candle_core::backprop::GradStore, lr: f64) -> f64 {
        match self {
            Optimizer::Adam(o) => o.step(grads, lr).unwrap(),
            Optimizer::Sgd(o) => o.step(grads, lr).unwrap(),
        }
    }

    /// What a run that was stopped and taken up again would have.
    fn resumed(&self, mut fresh: Optimizer) -> Optimizer {
        match (self, &mut fresh) {
            (Optimizer::Adam(old), Optimizer::Adam(new)) => {
                new.load_state(&old.state().unwrap()).unwrap()
            }
            (Optimizer::Sgd(old), Optimizer::Sgd(new)) => {
                new.load_state(&old.state().unwrap()).unwrap()
            }
            _ => unreachable!(),
        }
        fresh
    }
}

fn leaves(golden: &Golden, case: &str) -> Vec<(String, Var)> {
    ["a", "b"]
        .map(|n| (n.to_string(), golden.var(&format!("{case}.{n}.start"))))
        .into()
}

fn runs(golden: &Golden, kind: &str) -> Vec<String> {
    let mut runs: Vec<String> = golden
        .0
        .keys()
        .filter(|k| k.starts_with(kind))
        .filter_map(|k| k.strip_suffix(".a.after0"))
        .map(String::from)
        .collect();
    runs.sort();
    assert!(!runs.is_empty(), "{kind}");
    runs
}

fn numbers(golden: &Golden, name: &str) -> Vec<f64> {
    flat(&golden.get(name).to_dtype(DType::F32).unwrap())
        .into_iter()
        .map(f64::from)
        .collect()
}

#[test]
fn every_form_resumed_at_every_step() {
    let golden = Golden::open("optim_more");
    let all = ["sgd.", "adam.", "adamw."]
        .map(|kind| runs(&golden, kind))
        .concat();
    assert!(all.len() >= 20, "{all:?}");
    for run in all {
        let params = leaves(&golden, &run);
        let rows: Vec<Vec<f32>> = golden.get(&format!("{run}.params")).to_vec2().unwrap();
        let rows: Vec<Vec<f64>> = rows
            .into_iter()
            .map(|r| r.into_iter().map(f64::from).collect())
            .collect();
        let attrs = golden
            .get(&format!("{run}.attrs"))
            .to_vec1::<i64>()
            .unwrap();
        let limit = golden
            .0
            .get(&format!("{run}.limit"))
            .map(|t| f64::from(flat(t)[0]));
        let clip_norm = limit.filter(|_| run.ends_with("clip_norm"));
        let lr = rows[0][0];
        let make = || {
            let groups = params
                .iter()
                .zip(&rows)
                .map(|(param, row)| ParamGroup {
                    params: vec![param.clone()],
                    lr_scale: row[0] / lr,
                    weight_decay: row.last().copied(),
                })
                .collect();
            if run.starts_with("sgd") {
                let config = SgdConfig {
                    momentum: rows[0][1],
                    dampening: rows[0][2],
                    nesterov: attrs[0] == 1,
                    weight_decay: 0.0,
                    clip_norm,
                };
                Optimizer::Sgd(Sgd::new(groups, config).unwrap())
            } else {
                let config = AdamConfig {
                    beta1: rows[0][1],
                    beta2: rows[0][2],
                    eps: rows[0][3],
                    weight_decay: 0.0,
                    amsgrad: attrs[0] == 1,
                    decoupled: attrs[1] == 1,
                    clip_norm,
                };
                Optimizer::Adam(Adam::new(groups, config).unwrap())
            }
        };
        let mut optimizer = make();
        for step in 0..12 {
            let mut grads = gradients(&golden, &run, step, &params);
            if run.ends_with("clip_value") {
                clip_value(&mut grads, &params, limit.unwrap()).unwrap();
            }
            optimizer = optimizer.resumed(make());
            let norm = optimizer.step(&grads, lr);
            if clip_norm.is_some() {
                let want = numbers(&golden, &format!("{run}.norms"))[step];
                assert!(
                    (norm - want).abs() < 1e-5 * want,
                    "{run} step {step}: {norm} {want}"
                );
            }
            for (name, var) in &params {
                let want = golden.get(&format!("{run}.{name}.after{step}"));
                close(&format!("{run} {name} step {step}"), var, want, 2e-6);
            }
        }
    }
}

#[test]
fn clipping_alone() {
    let golden = Golden::open("optim_more");
    for case in [
        "norm_hit",
        "norm_missed",
        "norm_large",
        "none",
        "value",
        "value_missed",
    ] {
        let case = format!("clip.{case}");
        let params: Vec<(String, Var)> = ["a", "b"]
            .map(|n| (n.to_string(), golden.var(&format!("{case}.{n}.grad"))))
            .into();
        let mut grads = Tensor::zeros((), DType::F32, &DEVICE)
            .unwrap()
            .backward()
            .unwrap();
        for (_, var) in &params {
            grads.insert(var, var.as_tensor().clone());
        }
        let limit = numbers(&golden, &format!("{case}.params"))[0];
        if numbers(&golden, &format!("{case}.attrs"))[0] == 0.0 {
            let want = numbers(&golden, &format!("{case}.norm"))[0];
            let norm = grad_norm(&grads, &params).unwrap();
            assert!(
                (norm - want).abs() <= 1e-6 * want.max(1e-3),
                "{case}: {norm} {want}"
            );
            // A step of plain descent from 0 at rate 1 leads to the clipped gradient, turned around.
            let config = SgdConfig {
                momentum: 0.0,
                weight_decay: 0.0,
                clip_norm: Some(limit),
                ..Default::default()
            };
            let mut grads = Tensor::zeros((), DType::F32, &DEVICE)
                .unwrap()
                .backward()
                .unwrap();
            let mut origin = Vec::new();
            for (name, grad) in &params {
                let var = Var::from_tensor(&grad.zeros_like().unwrap()).unwrap();
                grads.insert(&var, grad.as_tensor().clone());
                origin.push((name.clone(), var));
            }
            let groups = vec![ParamGroup::new(origin.clone())];
            Sgd::new(groups, config).unwrap().step(&grads, 1.0).unwrap();
            for (name, var) in &origin {
                let want = golden.get(&format!("{case}.{name}.clipped"));
                close(&case, &var.neg().unwrap(), want, 2e-6);
            }
        } else {
            clip_value(&mut grads, &params, limit).unwrap();
            for (name, var) in &params {
                let want = golden.get(&format!("{case}.{name}.clipped"));
                close(&case, grads.get(var).unwrap(), want, 0.0);
            }
        }
    }
}

#[test]
fn schedules_of_forty_epochs() {
    let golden = Golden::open("optim_more");
    let mut cases: Vec<&str> = golden
        .0
        .keys()
        .filter_map(|k| k.strip_suffix(".rates"))
        .collect();
    cases.sort_unstable();
    assert!(cases.len() >= 12, "{cases:?}");
    for case in cases {
        let base = numbers(&golden, &format!("{case}.base"));
        let attrs: Vec<usize> = golden.attrs(case);
        let p = numbers(&golden, &format!("{case}.params"));
        let multi = |milestones: &[usize]| Decay::MultiStep {
            milestones: milestones.to_vec(),
            gamma: p[0],
        };
        let cosine = |epochs: usize, lr: f64| Decay::Cosine {
            epochs,
            floor: p[0] / lr,
        };
        for (group, lr) in base.iter().enumerate() {
            let (warmup_epochs, warmup_factor, decay) = match case.split('.').nth(1).unwrap() {
                "step" => (
                    0,
                    1.0,
                    Decay::Step {
                        every: attrs[0],
                        gamma: p[0],
                    },
                ),
                "multi_step" => (0, 1.0, multi(&attrs)),
                "warmup" => (attrs[0], p[1], multi(&attrs[1..])),
                "cosine" => (0, 1.0, cosine(attrs[0], *lr)),
                "warmup_cosine" => (attrs[1], p[1], cosine(attrs[0], *lr)),
                other => panic!("{other}"),
            };
            let schedule = Schedule {
                lr: *lr,
                warmup_epochs,
                warmup_factor,
                decay,
            };
            let rates: Vec<Vec<f32>> = golden.get(&format!("{case}.rates")).to_vec2().unwrap();
            for (epoch, row) in rates.iter().enumerate() {
                let (got, want) = (schedule.at(epoch as f64), f64::from(row[group]));
                assert!(
                    (got - want).abs() <= 1e-6 * want.max(1e-6),
                    "{case} {epoch}: {got} {want}"
                );
            }
        }
    }
}
