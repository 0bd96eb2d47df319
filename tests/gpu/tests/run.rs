//! A whole training run, from pictures to a finished folder, on the processor and on an emulated GPU.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use image::{Rgb, RgbImage};
use reid_gpu_emulator::Emulator;
use reid_train::fit::{FitOptions, fit};
use reid_train::nn::device::{self, DeviceSpec};
use reid_train::nn::gpu::{Gpu, Precision, Settings};
use serde_json::Value;

/// Six people in two cameras, three pictures each, told apart by the colours of two halves; in Market-1501's layout.
fn world(root: &Path) -> String {
    for (folder, people) in [
        ("bounding_box_train", 1..7),
        ("query", 7..9),
        ("bounding_box_test", 7..9),
    ] {
        fs::create_dir_all(root.join(folder)).unwrap();
        for person in people {
            for camera in 1..3 {
                for shot in 0..3 {
                    let picture = RgbImage::from_fn(16, 32, |x, y| {
                        let half = if y < 16 { 0 } else { 3 };
                        let channel = |c: u32| {
                            let own = person * (53 + 37 * (c + half)) % 200;
                            let noise = (x * 7 + y * 13 + shot * 29 + c * 5) % 23;
                            (own + noise + 12 * camera) as u8
                        };
                        Rgb([channel(0), channel(1), channel(2)])
                    });
                    let name = format!("{person:04}_c{camera}s1_{shot:06}_00.png");
                    picture.save(root.join(folder).join(name)).unwrap();
                }
            }
        }
    }
    format!("market1501:{}", root.display())
}

fn train(method: &str, data: &str, out: &Path) -> Vec<Value> {
    let sets = [
        "model.backbone=resnet18",
        "model.width=8",
        "model.size=16x32",
        "train.epochs=2",
        "train.iterations=4",
        "train.identities=3",
        "train.instances=4",
        "cluster.k1=6",
        "cluster.k2=2",
        "cluster.min_samples=2",
        "train.evaluate_every=1",
    ];
    fit(&FitOptions {
        source: None,
        beside: None,
        method: method.into(),
        data: data.parse().unwrap(),
        out: out.into(),
        preset: None,
        config: None,
        sets: sets.map(String::from).to_vec(),
        init: Some("random".into()),
        device: DeviceSpec::Cpu,
        resume: false,
    })
    .unwrap();
    assert!(out.join("model.safetensors").is_file());
    let rows = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    rows.lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

#[test]
fn a_run_on_an_emulated_gpu_is_the_run_on_the_processor() {
    let dir = tempfile::tempdir().unwrap();
    let data = world(&dir.path().join("data"));
    let methods = ["supervised", "ice"];
    let run = |method: &str, name: &str| train(method, &data, &dir.path().join(name).join(method));
    let processor = methods.map(|m| run(m, "cpu"));
    for (precision, allowed) in [(Precision::F32, 2e-3), (Precision::Bf16, 0.1)] {
        device::register(Gpu::new(Emulator::new(Settings {
            precision,
            deterministic: true,
        })));
        for (method, want) in methods.iter().zip(&processor) {
            let got = run(method, precision.name());
            assert_eq!(got.len(), want.len());
            // The first epoch: later ones start from weights that Adam has moved by the sign of roundings.
            let losses = want[1]["loss"].as_object().unwrap();
            assert!(!losses.is_empty());
            for (name, want) in losses {
                let (got, want) = (
                    got[1]["loss"][name].as_f64().unwrap(),
                    want.as_f64().unwrap(),
                );
                println!("{method} {name} {}: {got} {want}", precision.name());
                assert!(
                    (got - want).abs() < allowed * want.abs().max(0.1),
                    "{method} {name}"
                );
            }
            for row in &got {
                assert!(
                    row["rank1"]
                        .as_f64()
                        .is_some_and(|r| (0.0..=1.0).contains(&r))
                );
            }
        }
    }
}
