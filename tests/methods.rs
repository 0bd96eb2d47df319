//! Every method by the programs a user calls: trains, goes on after an interruption as if there had been none, exports, and the
//! file says what the run says.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use reid_tests::programs::{json, run};
use serde_json::Value;

/// A small world, made once.
fn world() -> &'static str {
    static WORLD: OnceLock<(tempfile::TempDir, String)> = OnceLock::new();
    let (_, data) = WORLD.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let crops = dir.path().join("crops").display().to_string();
        let size = ["--ids", "40", "--cameras", "3", "--seed", "5"];
        let arguments = [&["crops", "--out", &crops][..], &size].concat();
        json("reid-world", &arguments).unwrap();
        let data = format!("market1501:{crops}");
        (dir, data)
    });
    data
}

struct Bench {
    dir: tempfile::TempDir,
    method: &'static str,
    preset: &'static str,
}

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn fit(&self, out: &str, epochs: usize, more: &[&str]) -> Value {
        let out = self.path(out).display().to_string();
        let epochs = format!("train.epochs={epochs}");
        let mut arguments = vec![
            "fit",
            "--method",
            self.method,
            "--preset",
            self.preset,
            "--data",
            world(),
            "--out",
            &out,
        ];
        // A radius that finds clusters among 20 identities.
        for set in [
            "train.iterations=4",
            "train.evaluate_every=0",
            "cluster.rho=0",
            "cluster.eps=0.6",
            &epochs,
        ] {
            arguments.extend(["--set", set]);
        }
        arguments.extend(more);
        json("reid-train", &arguments).unwrap()
    }
}

fn whole_life(method: &'static str, preset: &'static str) {
    let bench = Bench {
        dir: tempfile::tempdir().unwrap(),
        method,
        preset,
    };
    let last = bench.fit("whole", 2, &[]);
    assert!(last["map"].as_f64().unwrap() > 0.0, "{last}");
    assert!(last["clusters"].as_u64().unwrap() >= 2, "{last}");
    let terms = last["loss"].as_object().unwrap();
    assert!(!terms.is_empty(), "{last}");

    // One epoch, then the second: the same bits as both in one go.
    bench.fit("halves", 1, &[]);
    let config = bench.path("halves/config.toml");
    let text = fs::read_to_string(&config).unwrap();
    let longer = text.replace("\nepochs = 1\n", "\nepochs = 2\n");
    assert_ne!(text, longer);
    fs::write(&config, longer).unwrap();
    for file in ["model.safetensors", "card.json", "probe.safetensors"] {
        fs::remove_file(bench.path("halves").join(file)).unwrap();
    }
    let out = bench.path("halves").display().to_string();
    let arguments = [
        "fit",
        "--method",
        method,
        "--data",
        world(),
        "--out",
        &out,
        "--resume",
    ];
    json("reid-train", &arguments).unwrap();
    let model = |run: &str| fs::read(bench.path(run).join("model.safetensors")).unwrap();
    assert!(
        model("whole") == model("halves"),
        "{preset}: a resumed run ends elsewhere"
    );

    exports(&bench, "whole", preset);
}

/// What is trained is what is exported.
fn exports(bench: &Bench, run: &str, what: &str) {
    let (folder, onnx) = (
        bench.path(run).display().to_string(),
        bench.path("model.onnx").display().to_string(),
    );
    json("reid-export", &["onnx", "--run", &folder, "--out", &onnx]).unwrap();
    for backend in ["tract", "onnxruntime"] {
        let verified = json("reid-export", &["verify", &onnx, "--backend", backend]).unwrap();
        let least = verified["min_cosine"].as_f64().unwrap();
        assert!(least >= 0.9999, "{what} in {backend}: {verified}");
    }
    let map = |kind: &str, of: &str, more: &[&str]| {
        let arguments = [&["eval", kind, of, "--data", world()], more].concat();
        let result = json("reid-train", &arguments).unwrap();
        result["map"].as_f64().unwrap()
    };
    for more in [&[][..], &["--flip"]] {
        let (by_run, by_file) = (map("--run", &folder, more), map("--onnx", &onnx, more));
        assert!(
            (by_run - by_file).abs() < 1e-3,
            "{what} {more:?}: {by_run} and {by_file}"
        );
    }
}

#[test]
fn other_backbones_train_and_are_exported() {
    let bench = Bench {
        dir: tempfile::tempdir().unwrap(),
        method: "cluster_contrast",
        preset: "cluster_contrast_small",
    };
    for backbone in ["vit_small_16", "se_resnet18", "resnet18_ibn_a"] {
        let sets = [
            format!("model.backbone={backbone}"),
            "model.width=8".into(),
            "model.init=random".into(),
        ];
        let more: Vec<&str> = sets.iter().flat_map(|s| ["--set", s]).collect();
        bench.fit(backbone, 1, &more);
        exports(&bench, backbone, backbone);
    }
}

macro_rules! lives {
    ($($name:ident: $method:literal, $preset:literal;)*) => {
        $(#[test]
        fn $name() {
            whole_life($method, $preset);
        })*

        #[test]
        fn no_method_is_forgotten() {
            let known = json("reid-train", &["methods"]).unwrap();
            let tested = [$($preset),*];
            let presets = known["methods"].as_array().unwrap().iter();
            for preset in presets.flat_map(|m| m["presets"].as_array().unwrap()) {
                let preset = preset.as_str().unwrap();
                assert!(!preset.ends_with("_small") || tested.contains(&preset), "{preset}");
            }
        }
    };
}

lives! {
    abmt: "abmt", "abmt_small";
    canu_mmt: "mmt", "canu_mmt_small";
    canu_ssg: "ssg", "canu_ssg_small";
    cluster_contrast: "cluster_contrast", "cluster_contrast_small";
    ice: "ice", "ice_small";
    ice_aware: "ice", "ice_aware_small";
    mmt: "mmt", "mmt_small";
    scr: "scr", "scr_small";
    spcl: "spcl", "spcl_small";
    ssg: "ssg", "ssg_small";
    supervised: "supervised", "supervised_small";
}

#[test]
fn pictures_without_cameras_name_the_way_without_them() {
    let dir = tempfile::tempdir().unwrap();
    let crops = world().strip_prefix("market1501:").unwrap();
    let folder = dir.path().join("train");
    fs::create_dir(&folder).unwrap();
    let pictures = fs::read_dir(format!("{crops}/bounding_box_train")).unwrap();
    for (i, entry) in pictures.take(60).enumerate() {
        fs::copy(entry.unwrap().path(), folder.join(format!("{i}.png"))).unwrap();
    }
    let data = format!("folder:{}", folder.display());
    for (method, preset, remedy) in [
        ("ice", "ice_aware_small", "loss.cross_weight=0"),
        ("mmt", "canu_mmt_small", "adversary.condition=off"),
        ("ssg", "canu_ssg_small", "adversary.condition=off"),
    ] {
        let out = dir.path().join(preset).display().to_string();
        let arguments = [
            "fit",
            "--method",
            method,
            "--preset",
            preset,
            "--data",
            &data,
            "--out",
            &out,
            "--set",
            "cluster.rho=0",
            "--set",
            "cluster.eps=0.9",
            "--set",
            "cluster.min_samples=2",
        ];
        let finished = run("reid-train", &arguments).unwrap();
        assert_eq!(finished.code, 2, "{preset}: {}", finished.stderr);
        assert!(
            finished.stderr.contains(remedy),
            "{preset}: {}",
            finished.stderr
        );
    }
}

#[test]
fn tracklets_are_pooled_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let tracks = path("tracks");
    let size = [
        "--ids",
        "24",
        "--cameras",
        "3",
        "--frames",
        "8",
        "--seed",
        "5",
    ];
    let made = json(
        "reid-world",
        &[&["tracklets", "--out", &tracks][..], &size].concat(),
    )
    .unwrap();
    let data = format!("mars:{tracks}");
    let described = json("reid-train", &["data", &data]).unwrap().to_string();
    for part in ["train", "query", "gallery"] {
        assert!(
            described.contains(&made[part].to_string()),
            "{part}: {described}"
        );
    }
    let run_folder = path("run");
    let mut arguments = vec![
        "fit",
        "--method",
        "scr",
        "--preset",
        "scr_small",
        "--data",
        &data,
        "--out",
        &run_folder,
    ];
    for set in [
        "train.epochs=1",
        "train.iterations=4",
        "train.evaluate_every=0",
    ] {
        arguments.extend(["--set", set]);
    }
    json("reid-train", &arguments).unwrap();
    for pool in [
        "mean",
        "max",
        "even",
        "even-parts",
        "random",
        "random-parts",
    ] {
        let arguments = [
            "eval",
            "--run",
            &run_folder,
            "--data",
            &data,
            "--pool",
            pool,
        ];
        let result = json("reid-train", &arguments).unwrap();
        assert!(result["map"].as_f64().unwrap() > 0.0, "{pool}: {result}");
    }
    // Pictures without an order cannot be pooled by it.
    let arguments = [
        "eval",
        "--run",
        &run_folder,
        "--data",
        world(),
        "--protocol",
        "multi-query",
        "--pool",
        "even",
    ];
    let finished = run("reid-train", &arguments).unwrap();
    assert_ne!(finished.code, 0);
    assert!(
        finished.stderr.contains("multi-query") || finished.stderr.contains("order"),
        "{}",
        finished.stderr
    );
}
