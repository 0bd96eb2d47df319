//! Real footage, where `REID_MEDIA` names a folder with it. Skipped by name where not.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use reid_edge::config::EdgeConfig;
use reid_edge::detect;
use reid_edge::ingest::open_files_in_step;
use reid_edge::perception::Perception;
use reid_edge::types::{Detection, Ltrb};
use reid_models::card::{Channels, Decode, Fit, InputSpec, ModelCard, OutputSpec, Range};

fn media(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("REID_MEDIA").map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: {test} (REID_MEDIA is not set)");
    }
    folder
}

/// The detector with its card beside it, in a folder that can be written.
fn yolox(media: &Path, dir: &Path) -> PathBuf {
    let model = dir.join("yolox.onnx");
    std::fs::copy(media.join("yolox_nano_416.onnx"), &model).unwrap();
    let card = ModelCard {
        version: reid_models::card::CARD_VERSION,
        name: "yolox-nano".into(),
        input: InputSpec {
            fit: Fit::LetterboxTopLeft(114),
            channels: Channels::Bgr,
            range: Range::Byte,
            mean: [0.0; 3],
            std: [1.0; 3],
            ..InputSpec::imagenet(416, 416)
        },
        output: OutputSpec::Detect {
            tensor: None,
            decode: Decode::Yolox,
            person_class: 0,
        },
        training: None,
        license: Some("Apache-2.0".into()),
        toolkit: "test".into(),
        thresholds: Default::default(),
        fingerprint: "yolox-nano".into(),
    };
    card.write(&ModelCard::path_beside(&model)).unwrap();
    model
}

fn config(dir: &Path, video: &Path, detector: &str) -> EdgeConfig {
    let text = format!(
        "[[camera]]\nname = \"a\"\nsource = \"{}\"\n[detector]\n{detector}\n[embedder]\nkind = \"histogram\"\n",
        video.display()
    );
    EdgeConfig::parse(&text, &dir.join("edge.toml")).unwrap()
}

/// Matches at IoU .5, of all of each.
#[derive(Debug, Default)]
struct Agreement {
    frames: usize,
    hits: usize,
    found: usize,
    wanted: usize,
}

impl Agreement {
    fn add(&mut self, found: &[Detection], wanted: &[Ltrb]) {
        self.frames += 1;
        self.found += found.len();
        self.wanted += wanted.len();
        let mut free = vec![true; found.len()];
        for w in wanted {
            let best = (0..found.len())
                .filter(|&i| free[i])
                .max_by(|&a, &b| found[a].ltrb.iou(w).total_cmp(&found[b].ltrb.iou(w)));
            if let Some(i) = best.filter(|&i| found[i].ltrb.iou(w) >= 0.5) {
                free[i] = false;
                self.hits += 1;
            }
        }
    }
    fn precision(&self) -> f64 {
        self.hits as f64 / self.found.max(1) as f64
    }
    fn recall(&self) -> f64 {
        self.hits as f64 / self.wanted.max(1) as f64
    }
}

#[test]
fn motion_agrees_with_yolox_on_a_real_plaza() {
    let Some(media) = media("motion_agrees_with_yolox_on_a_real_plaza") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let model = yolox(&media, dir.path());
    for (video, frames, least_recall, least_precision) in [
        ("plaza.mp4", 250, 0.7, 0.7),
        ("one-by-one.mp4", 250, 0.8, 0.7),
    ] {
        let by_model = format!(
            "kind = \"onnx\"\nmodel = \"{}\"\nscore = 0.4\nmin_height = 48.0",
            model.display()
        );
        let with_model = config(dir.path(), &media.join(video), &by_model);
        let with_motion = config(dir.path(), &media.join(video), "min_height = 40.0");
        let mut reference = detect::open(&with_model.detector, 1).unwrap().remove(0);
        let mut motion = detect::open(&with_motion.detector, 1).unwrap().remove(0);
        let mut agreement = Agreement::default();
        for step in open_files_in_step(&with_motion).unwrap().take(frames) {
            for frame in step.unwrap() {
                let wanted: Vec<Ltrb> = reference
                    .detect(&frame)
                    .unwrap()
                    .iter()
                    .map(|d| d.ltrb)
                    .collect();
                let found = motion.detect(&frame).unwrap();
                // The background needs a moment.
                if frame.time > 5.0 {
                    agreement.add(&found, &wanted);
                }
            }
        }
        println!(
            "{video}: motion against YOLOX-nano at IoU .5: recall {:.3}, precision {:.3} ({agreement:?})",
            agreement.recall(),
            agreement.precision()
        );
        assert!(agreement.wanted > 100, "{agreement:?}");
        assert!(
            agreement.recall() > least_recall && agreement.precision() > least_precision,
            "{agreement:?}"
        );
    }
}

#[test]
fn people_on_the_plaza_are_followed() {
    let Some(media) = media("people_on_the_plaza_are_followed") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), &media.join("plaza.mp4"), "min_height = 40.0");
    let mut perception = Perception::new(&config).unwrap();
    let (mut boxes, mut ids, mut looks) = (0, std::collections::BTreeSet::new(), 0);
    for step in open_files_in_step(&config).unwrap().take(300) {
        let out = perception.step(step.unwrap()).unwrap();
        looks += out.looks.len();
        for b in out.frames.iter().flat_map(|f| &f.boxes) {
            boxes += 1;
            ids.insert(b.tracklet);
        }
    }
    println!(
        "plaza.mp4, 300 frames: {boxes} boxes of {} tracklets, {looks} looks",
        ids.len()
    );
    assert!(boxes > 900 && looks > 200, "{boxes} boxes, {looks} looks");
    assert!((10..60).contains(&ids.len()), "{} tracklets", ids.len());
}
