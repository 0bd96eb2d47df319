#![allow(clippy::unwrap_used)]
//! ad hoc
use ort::session::builder::{GraphOptimizationLevel, PrepackedWeights};
use ort::value::TensorRef;
use reid_models::ModelCard;
use reid_models::card::*;
use reid_models::runtime::{self, Backend, RuntimeConfig, library};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

fn status(key: &str) -> f64 {
    let s = std::fs::read_to_string("/proc/self/status").unwrap();
    s.lines()
        .find(|l| l.starts_with(key))
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<f64>()
        .unwrap()
        / 1024.0
}
fn cpu() -> f64 {
    let s = std::fs::read_to_string("/proc/self/schedstat").unwrap();
    s.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e9
}
fn card(model: &Path) -> ModelCard {
    let name = model.file_name().unwrap().to_str().unwrap();
    let raw = |h, w| InputSpec {
        channels: Channels::Bgr,
        range: Range::Byte,
        mean: [0.0; 3],
        std: [1.0; 3],
        ..InputSpec::imagenet(h, w)
    };
    let (input, output) = if name.starts_with("yolox") {
        (
            raw(416, 416),
            OutputSpec::Detect {
                tensor: None,
                decode: Decode::Yolox,
                person_class: 0,
            },
        )
    } else if name.starts_with("reid") {
        (
            InputSpec {
                layout: Layout::Nhwc,
                ..raw(256, 128)
            },
            OutputSpec::Embed {
                tensor: None,
                width: 256,
                normalized: false,
            },
        )
    } else {
        (
            raw(256, 128),
            OutputSpec::Embed {
                tensor: None,
                width: 2048,
                normalized: false,
            },
        )
    };
    ModelCard {
        version: CARD_VERSION,
        name: name.into(),
        input,
        output,
        training: None,
        license: None,
        toolkit: "m".into(),
        thresholds: BTreeMap::new(),
        fingerprint: name.into(),
    }
}
fn shape(card: &ModelCard, batch: usize) -> [usize; 4] {
    match card.input.layout {
        Layout::Nchw => [batch, 3, card.input.height, card.input.width],
        Layout::Nhwc => [batch, card.input.height, card.input.width, 3],
    }
}
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let model = PathBuf::from(&args[1]);
    let mode = args[2].as_str();
    let card = card(&model);
    let cache = std::env::var_os("CACHE").map(PathBuf::from);
    let config = RuntimeConfig {
        backend: Backend::OnnxRuntime,
        cache: if mode.contains("cached") { cache } else { None },
        ..Default::default()
    };
    let batch: usize = args.get(3).map_or(1, |s| s.parse().unwrap());
    let s4 = shape(&card, batch);
    let input: Vec<f32> = (0..s4.iter().product::<usize>())
        .map(|k| ((k * 37) % 255) as f32)
        .collect();
    // the library itself
    {
        let tiny = RuntimeConfig { ..config.clone() };
        let _ = tiny;
    }
    if mode.starts_with("open") || mode.starts_with("two") {
        let before = status("VmRSS");
        let t = Instant::now();
        let c = cpu();
        let n = if mode.starts_with("two") { 2 } else { 1 };
        let mut sessions: Vec<_> = (0..n)
            .map(|_| runtime::open(&model, &card, &config).unwrap())
            .collect();
        let (wall, used) = (t.elapsed().as_secs_f64(), cpu() - c);
        let loaded = status("VmRSS");
        for s in &mut sessions {
            for _ in 0..3 {
                s.run_with(batch, &input, &mut |_| ()).unwrap();
            }
        }
        println!(
            "{:24} {:12} open {wall:.3} s (main thread cpu {used:.3}) rss +{:.1} after runs +{:.1} peak {:.1} hit {:?}",
            card.name,
            mode,
            loaded - before,
            status("VmRSS") - before,
            status("VmHWM"),
            sessions[0].status().cache.map(|c| c.hit)
        );
        return;
    }
    // pure ort
    let lib = library::find(None).unwrap().unwrap();
    let mut ours = (mode == "overhead").then(|| runtime::open(&model, &card, &config).unwrap());
    if mode == "overhead" {
        // alternate rounds of: run_with, run, and the same work in ort through the same open session is not reachable; so ours against ours-with-ort below
        let rounds = 7;
        let per: usize = args.get(4).map_or(60, |s| s.parse().unwrap());
        let s = ours.as_mut().unwrap();
        for _ in 0..5 {
            s.run_with(batch, &input, &mut |_| ()).unwrap();
        }
        let mut best = [f64::MAX; 2];
        let mut sum = 0.0;
        for _ in 0..rounds {
            let c = cpu();
            for _ in 0..per {
                s.run_with(batch, &input, &mut |o| sum += o[0].data[0])
                    .unwrap();
            }
            best[0] = best[0].min((cpu() - c) / per as f64);
            let c = cpu();
            for _ in 0..per {
                let o = s.run(batch, &input).unwrap();
                sum += o[0].1.data[0];
            }
            best[1] = best[1].min((cpu() - c) / per as f64);
        }
        println!(
            "{:24} b{batch} run_with {:.4} ms  run {:.4} ms ({sum})",
            card.name,
            best[0] * 1e3,
            best[1] * 1e3
        );
        return;
    }
    let env = ort::init_from(&lib)
        .unwrap()
        .with_name("m")
        .with_telemetry(false)
        .build()
        .unwrap();
    let build = |level, pre: Option<&PrepackedWeights>, path: &Path| {
        let b = ort::session::Session::builder(&env)
            .unwrap()
            .with_optimization_level(level)
            .unwrap()
            .with_intra_threads(1)
            .unwrap()
            .with_intra_op_spinning(false)
            .unwrap()
            .with_memory_pattern(card.input.fixed_batch.is_some())
            .unwrap()
            .with_execution_providers([ort::ep::CPU::default().with_arena_allocator(true).build()])
            .unwrap();
        let mut b = match pre {
            Some(p) => b.with_prepacked_weights(p).unwrap(),
            None => b,
        };
        b.commit_from_file(path).unwrap()
    };
    if mode == "pure" {
        let per: usize = args.get(4).map_or(60, |s| s.parse().unwrap());
        let mut s = build(GraphOptimizationLevel::All, None, &model);
        let name = s.inputs()[0].name().to_string();
        let mut best = f64::MAX;
        let mut sum = 0.0;
        for round in 0..8 {
            let c = cpu();
            for _ in 0..per {
                let t = TensorRef::from_array_view((s4, &input[..])).unwrap();
                let o = s.run(ort::inputs![name.as_str() => t]).unwrap();
                sum += o[0].try_extract_tensor::<f32>().unwrap().1[0];
            }
            if round > 0 {
                best = best.min((cpu() - c) / per as f64);
            }
        }
        println!(
            "{:24} b{batch} pure ort {:.4} ms ({sum})",
            card.name,
            best * 1e3
        );
        return;
    }
    if mode.starts_with("prepack") {
        let before = status("VmRSS");
        let pre = PrepackedWeights::new();
        let use_pre = mode.contains("with").then_some(&pre);
        let level = if mode.contains("level2") {
            GraphOptimizationLevel::Level2
        } else {
            GraphOptimizationLevel::All
        };
        let a = build(level, use_pre, &model);
        let one = status("VmRSS");
        let b = build(level, use_pre, &model);
        println!(
            "{:24} {mode} one +{:.1} two +{:.1}",
            card.name,
            one - before,
            status("VmRSS") - before
        );
        drop((a, b));
    }
}
