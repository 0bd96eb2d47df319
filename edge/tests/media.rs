//! Real footage, where `REID_MEDIA` names a folder with it. Skipped by name where not.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use reid_edge::config::EdgeConfig;
use reid_edge::detect;
use reid_edge::engine::{Engine, Next, Purpose};
use reid_edge::ingest::open_files_in_step;
use reid_edge::types::{Detection, Frame, Ltrb};
use reid_models::card::{Channels, Decode, Fit, InputSpec, Layout, ModelCard, OutputSpec, Range};
use reid_models::distance::dot;
use reid_models::picture::Pixels;
use reid_models::runtime::{Embedder, RuntimeConfig};

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
        let mut reference = detect::open(&with_model.detector).unwrap();
        let mut motion = detect::open(&with_motion.detector).unwrap();
        let mut agreement = Agreement::default();
        for step in open_files_in_step(&with_motion).unwrap().take(frames) {
            for frame in step.unwrap() {
                let wanted: Vec<Ltrb> = reference.detect(&[&frame]).unwrap()[0]
                    .iter()
                    .map(|d| d.ltrb)
                    .collect();
                let found = motion.detect(&[&frame]).unwrap().remove(0);
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
    let mut engine = Engine::start(&config, Purpose::Replay, false, || {
        Ok(Box::new(open_files_in_step(&config)?))
    })
    .unwrap();
    let (mut boxes, mut ids, mut looks) = (0, std::collections::BTreeSet::new(), 0);
    let mut steps = 0;
    while steps < 300 {
        let out = match engine.next(Duration::from_secs(10)).unwrap() {
            Next::Step(out) => out,
            other => panic!("{other:?}"),
        };
        steps += 1;
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

/// The embedder with its card beside it.
fn retail(media: &Path, dir: &Path) -> PathBuf {
    let model = dir.join("retail.onnx");
    std::fs::copy(media.join("reid-retail-0248.onnx"), &model).unwrap();
    let card = ModelCard {
        version: reid_models::card::CARD_VERSION,
        name: "reid-retail-0248".into(),
        input: InputSpec {
            layout: Layout::Nhwc,
            channels: Channels::Bgr,
            range: Range::Byte,
            mean: [0.0; 3],
            std: [1.0; 3],
            fixed_batch: Some(1),
            ..InputSpec::imagenet(256, 128)
        },
        output: OutputSpec::Embed {
            tensor: None,
            width: 256,
            normalized: false,
        },
        training: None,
        license: Some("Apache-2.0".into()),
        toolkit: "test".into(),
        thresholds: Default::default(),
        fingerprint: "retail".into(),
    };
    card.write(&ModelCard::path_beside(&model)).unwrap();
    model
}

/// Every hundredth frame of a source.
fn some_frames(dir: &Path, source: &str) -> Vec<Frame> {
    let text = format!(
        "[[camera]]\nname = \"a\"\nsource = {source:?}\nreal_time = false\n[embedder]\nkind = \"histogram\"\n"
    );
    let config = EdgeConfig::parse(&text, &dir.join("edge.toml")).unwrap();
    open_files_in_step(&config)
        .unwrap()
        .flat_map(|step| step.unwrap())
        .filter(|frame| frame.number % 100 == 50)
        .collect()
}

#[test]
fn an_embedding_from_planes_is_the_one_from_rgb() {
    let Some(media) = media("an_embedding_from_planes_is_the_one_from_rgb") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let detector = format!(
        "kind = \"onnx\"\nmodel = \"{}\"\nscore = 0.4\nmin_height = 48.0",
        yolox(&media, dir.path()).display()
    );
    let plaza = media.join("plaza.mp4");
    let config = config(dir.path(), &plaza, &detector);
    let mut detector = detect::open(&config.detector).unwrap();
    let model = retail(&media, dir.path());
    let mut embedder = Embedder::open(&model, &RuntimeConfig::default()).unwrap();
    // The same decoder each time, and GStreamer's own converter. By the short way to RGB it repeats chroma samples, which
    // blurs colours; by way of 16 bits it interpolates them.
    let chain = |formats: &[&str]| {
        let mut chain = format!(
            "pipeline:filesrc location={} ! qtdemux ! h264parse ! avdec_h264",
            plaza.display()
        );
        for format in formats {
            chain.push_str(&format!(
                " ! videoconvert dither=none ! video/x-raw,format={format}"
            ));
        }
        chain
    };
    let rgb = some_frames(dir.path(), &chain(&["AYUV64", "ARGB64", "RGB"]));
    assert!(rgb.len() >= 7);
    for format in ["I420", "NV12"] {
        let planes = some_frames(dir.path(), &chain(&[format]));
        assert_eq!(planes.len(), rgb.len());
        let (mut worst, mut people) = (1.0f32, 0);
        for (a, b) in planes.iter().zip(&rgb) {
            assert_eq!(a.number, b.number);
            let found = detector.detect(&[b]).unwrap().remove(0);
            let crops = |frame: &Frame| -> Vec<Vec<f32>> {
                let crops: Vec<_> = found
                    .iter()
                    .map(|d| (Pixels::from(&*frame.picture), Some(d.ltrb.pixels())))
                    .collect();
                embedder.embed(&crops).unwrap()
            };
            let mut crops = crops;
            for (x, y) in crops(a).iter().zip(&crops(b)) {
                worst = worst.min(dot(x, y));
                people += 1;
            }
        }
        println!("{format}: {people} people, worst cosine {worst:.5}");
        assert!(people > 30 && worst >= 0.995, "{format}: {worst}");
    }
}
