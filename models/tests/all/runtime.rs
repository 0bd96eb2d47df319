//! Both engines on the same small files: what they must give, and what they must refuse.

use std::collections::BTreeMap;
use std::path::Path;

use image::RgbImage;
use reid_models::ModelCard;
use reid_models::card::{CARD_VERSION, Channels, Element, InputSpec, Layout, OutputSpec, Range};
use reid_models::picture::Pixels;
use reid_models::preprocess::PixelBox;
use reid_models::runtime::proto::DataType;
use reid_models::runtime::{
    self, Backend, Embedder, Provider, RuntimeConfig, RuntimeError, Session, library,
};

use crate::tiny_onnx::Tiny;

mod borrowed;
mod cache;
mod fallback;
mod memory;

const SIZE: usize = 8;

pub(crate) fn card(width: usize) -> ModelCard {
    ModelCard {
        version: CARD_VERSION,
        name: "tiny".into(),
        input: InputSpec {
            range: Range::Byte,
            mean: [0.0; 3],
            std: [1.0; 3],
            ..InputSpec::imagenet(SIZE, SIZE)
        },
        output: OutputSpec::Embed {
            tensor: Some("y".into()),
            width,
            normalized: false,
        },
        training: None,
        license: None,
        toolkit: "test".into(),
        thresholds: BTreeMap::new(),
        fingerprint: "00".into(),
    }
}

/// Engines of this machine; says so when ONNX Runtime is not one of them.
pub(crate) fn engines(test: &str) -> Vec<RuntimeConfig> {
    let config = |backend, threads| RuntimeConfig {
        backend,
        threads,
        ..Default::default()
    };
    let mut engines = vec![config(Backend::Tract, 1), config(Backend::Tract, 2)];
    if library::find(None).unwrap().is_some() {
        engines.push(config(Backend::OnnxRuntime, 1));
    } else {
        println!("skipped: {test} with ONNX Runtime (no library found, set REID_ONNXRUNTIME)");
    }
    engines
}

/// ONNX Runtime on the processor; `None`, and it is said, where the machine has no library.
pub(crate) fn onnxruntime(test: &str) -> Option<RuntimeConfig> {
    let found = engines(test).into_iter();
    found.rev().find(|c| c.backend == Backend::OnnxRuntime)
}

/// Opens a file that carries its card.
pub(crate) fn opened(
    path: &Path,
    config: &RuntimeConfig,
) -> Result<Box<dyn Session>, RuntimeError> {
    runtime::open(path, &runtime::read_card(path)?, config)
}

fn colours(n: usize) -> Vec<RgbImage> {
    (0..n)
        .map(|i| RgbImage::from_pixel(20, 30, image::Rgb([10 + i as u8, 100, 200 - i as u8])))
        .collect()
}

fn unit(v: [f32; 3]) -> [f32; 3] {
    let norm = v.iter().map(|x| x * x).sum::<f32>().sqrt();
    v.map(|x| x / norm)
}

/// The mean colour as embedding: any slip in layout, channels, batch or order shows.
#[test]
fn batches_of_every_kind_give_the_colours_back() {
    let nchw = InputSpec {
        channels: Channels::Rgb,
        ..card(3).input
    };
    let nhwc_bgr = InputSpec {
        layout: Layout::Nhwc,
        channels: Channels::Bgr,
        ..nchw.clone()
    };
    let to_nchw: (&str, &[(&str, &[i64])]) = ("Transpose", &[("perm", &[0, 3, 1, 2])]);
    for (case, spec, batch, n) in [
        ("dynamic", &nchw, 0, 40),
        ("fixed 1", &nchw, 1, 5),
        ("fixed 4, filled up", &nchw, 4, 6),
        ("fixed 4, whole", &nchw, 4, 8),
        ("NHWC BGR, fixed 1", &nhwc_bgr, 1, 3),
        ("NHWC BGR, dynamic", &nhwc_bgr, 0, 3),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let card = ModelCard {
            input: spec.clone(),
            ..card(3)
        };
        let tiny = match spec.layout {
            Layout::Nchw => Tiny::new(&[batch, 3, SIZE, SIZE], DataType::Float),
            Layout::Nhwc => {
                Tiny::new(&[batch, SIZE, SIZE, 3], DataType::Float).op(to_nchw.0, to_nchw.1)
            }
        };
        let path = tiny.pooled().write(dir.path(), &[batch, 3], Some(&card));
        let pictures = colours(n);
        let crops: Vec<(Pixels, Option<PixelBox>)> =
            pictures.iter().map(|p| (Pixels::from(p), None)).collect();
        for config in engines("batches_of_every_kind_give_the_colours_back") {
            let mut embedder = Embedder::open(&path, &config).unwrap();
            assert_eq!(embedder.backend(), config.backend);
            let got = embedder.embed(&crops).unwrap();
            assert_eq!(got.len(), n);
            for (i, vector) in got.iter().enumerate() {
                let [r, g, b] = [10.0 + i as f32, 100.0, 200.0 - i as f32];
                let want = unit(match spec.channels {
                    Channels::Rgb => [r, g, b],
                    Channels::Bgr => [b, g, r],
                });
                for (x, y) in vector.iter().zip(want) {
                    assert!(
                        (x - y).abs() < 1e-5,
                        "{case}, {}: {i}",
                        embedder.description()
                    );
                }
            }
        }
    }
}

#[test]
fn byte_and_half_inputs() {
    for (element, data_type) in [
        (Element::U8, DataType::Uint8),
        (Element::F16, DataType::Float16),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut card = card(3);
        card.input.element = element;
        let path = Tiny::new(&[0, 3, SIZE, SIZE], data_type)
            .op("Cast", &[("to", &[1])])
            .pooled()
            .write(dir.path(), &[0, 3], Some(&card));
        let pictures = colours(2);
        for config in engines("byte_and_half_inputs") {
            let got = Embedder::open(&path, &config)
                .unwrap()
                .embed(&[(Pixels::from(&pictures[1]), None)])
                .unwrap();
            let want = unit([11.0, 100.0, 199.0]);
            assert!((got[0][0] - want[0]).abs() < 1e-3, "{element:?} {got:?}");
        }
    }
}

#[test]
fn a_broken_output_is_an_error_that_names_file_and_picture() {
    let dir = tempfile::tempdir().unwrap();
    let mut card = card(3);
    // 1 - x / 100: negative for the second picture, whose square root is NaN.
    card.input.mean = [100.0; 3];
    card.input.std = [-100.0; 3];
    let path = Tiny::new(&[0, 3, SIZE, SIZE], DataType::Float)
        .op("Sqrt", &[])
        .pooled()
        .write(dir.path(), &[0, 3], Some(&card));
    let dark = RgbImage::from_pixel(9, 9, image::Rgb([10, 20, 30]));
    let bright = RgbImage::from_pixel(9, 9, image::Rgb([10, 200, 30]));
    for config in engines("a_broken_output_is_an_error_that_names_file_and_picture") {
        let mut embedder = Embedder::open(&path, &config).unwrap();
        embedder.embed(&[(Pixels::from(&dark), None)]).unwrap();
        let err = embedder
            .embed(&[(Pixels::from(&dark), None), (Pixels::from(&bright), None)])
            .unwrap_err();
        assert!(
            matches!(err, RuntimeError::NotFinite { picture: 1, .. }),
            "{err}"
        );
        assert!(err.to_string().contains("tiny.onnx"), "{err}");
    }
}

/// Everything that must be refused before the first picture, by either engine.
#[test]
fn files_that_do_not_fit_their_card() {
    let good = || Tiny::new(&[0, 3, SIZE, SIZE], DataType::Float).pooled();
    let open = |write: &dyn Fn(&Path) -> std::path::PathBuf| {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path());
        let err = match Embedder::open(&path, &engines("files_that_do_not_fit_their_card")[0]) {
            Ok(_) => panic!("opened"),
            Err(err) => err,
        };
        assert!(err.to_string().contains("tiny.onnx"), "{err}");
        err
    };
    let err = open(&|d| good().write(d, &[0, 3], None));
    assert!(err.to_string().contains("reid-export adopt"), "{err}");

    let err = open(&|d| {
        Tiny::new(&[0, 512], DataType::Float)
            .op("Relu", &[])
            .write(d, &[0, 512], Some(&card(512)))
    });
    assert!(err.to_string().contains("not an image"), "{err}");
    let err = open(&|d| {
        Tiny::new(&[0, 4, SIZE, SIZE], DataType::Float)
            .pooled()
            .write(d, &[0, 4], Some(&card(4)))
    });
    assert!(err.to_string().contains("4 channels"), "{err}");
    let err = open(&|d| {
        Tiny::new(&[0, 3, SIZE, SIZE], DataType::Int64)
            .op("Cast", &[("to", &[1])])
            .pooled()
            .write(d, &[0, 3], Some(&card(3)))
    });
    assert!(err.to_string().contains("Int64"), "{err}");
    let err = open(&|d| good().input("mask", &[1]).write(d, &[0, 3], Some(&card(3))));
    assert!(err.to_string().contains("2 inputs (x, mask)"), "{err}");

    let mut nhwc = card(3);
    nhwc.input.layout = Layout::Nhwc;
    let err = open(&|d| good().write(d, &[0, 3], Some(&nhwc)));
    assert!(err.to_string().contains("input.layout"), "{err}");
    let mut larger = card(3);
    larger.input.height = 16;
    let err = open(&|d| good().write(d, &[0, 3], Some(&larger)));
    assert!(err.to_string().contains("16 high x 8 wide"), "{err}");
    let mut half = card(3);
    half.input.element = Element::F16;
    let err = open(&|d| good().write(d, &[0, 3], Some(&half)));
    assert!(err.to_string().contains("input.element"), "{err}");
    let mut fixed = card(3);
    fixed.input.fixed_batch = Some(2);
    let err = open(&|d| {
        Tiny::new(&[4, 3, SIZE, SIZE], DataType::Float)
            .pooled()
            .write(d, &[4, 3], Some(&fixed))
    });
    assert!(err.to_string().contains("input.fixed_batch"), "{err}");
    let mut renamed = card(3);
    renamed.output = OutputSpec::Embed {
        tensor: Some("z".into()),
        width: 3,
        normalized: false,
    };
    let err = open(&|d| good().write(d, &[0, 3], Some(&renamed)));
    assert!(
        err.to_string().contains("`z`") && err.to_string().contains("(y)"),
        "{err}"
    );
}

#[test]
fn a_wrong_width_is_seen_at_the_first_picture() {
    let dir = tempfile::tempdir().unwrap();
    let path = Tiny::new(&[0, 3, SIZE, SIZE], DataType::Float)
        .pooled()
        .write(dir.path(), &[0, 3], Some(&card(64)));
    for config in engines("a_wrong_width_is_seen_at_the_first_picture") {
        let mut embedder = Embedder::open(&path, &config).unwrap();
        let input = vec![1.0; 3 * SIZE * SIZE];
        let err = embedder.embed_tensor(1, &input).unwrap_err().to_string();
        assert!(err.contains("width 64") && err.contains("[1, 3]"), "{err}");
        let err = embedder.embed_tensor(2, &input).unwrap_err();
        assert!(matches!(err, RuntimeError::InputLength { .. }), "{err}");
    }
}

#[test]
fn damaged_files_are_errors_in_every_engine() {
    let dir = tempfile::tempdir().unwrap();
    let path = Tiny::new(&[0, 3, SIZE, SIZE], DataType::Float)
        .pooled()
        .write(dir.path(), &[0, 3], Some(&card(3)));
    let whole = std::fs::read(&path).unwrap();
    let bad = dir.path().join("bad.onnx");
    for config in engines("damaged_files_are_errors_in_every_engine") {
        for keep in [0, 1, whole.len() / 3, whole.len() - 1] {
            std::fs::write(&bad, &whole[..keep]).unwrap();
            let err = match runtime::open(&bad, &card(3), &config) {
                Ok(_) => panic!("{keep} of {} bytes were taken for a model", whole.len()),
                Err(err) => err.to_string(),
            };
            assert!(err.contains("bad.onnx"), "{err}");
        }
    }
    // An operator that no engine knows.
    let path = Tiny::new(&[0, 3, SIZE, SIZE], DataType::Float)
        .op("NoSuchOperator", &[])
        .write(dir.path(), &[0, 3], Some(&card(3)));
    for config in engines("damaged_files_are_errors_in_every_engine") {
        let err = match Embedder::open(&path, &config) {
            Ok(_) => panic!("opened"),
            Err(err) => err,
        };
        assert!(matches!(err, RuntimeError::Load { .. }), "{err}");
        assert!(
            err.to_string().contains(&config.backend.to_string()),
            "{err}"
        );
    }
}

#[test]
fn a_library_that_is_not_there_is_an_error_and_never_another_engine() {
    let dir = tempfile::tempdir().unwrap();
    let path = Tiny::new(&[0, 3, SIZE, SIZE], DataType::Float)
        .pooled()
        .write(dir.path(), &[0, 3], Some(&card(3)));
    for backend in [Backend::Auto, Backend::OnnxRuntime] {
        let config = RuntimeConfig {
            backend,
            library: Some("/nowhere/libonnxruntime.so.1".into()),
            ..Default::default()
        };
        let err = match Embedder::open(&path, &config) {
            Ok(_) => panic!("opened"),
            Err(err) => err.to_string(),
        };
        assert!(
            err.contains("/nowhere/libonnxruntime.so.1") && err.contains("tract"),
            "{err}"
        );
    }
}

#[test]
fn names_in_configurations() {
    for (text, backend) in [
        ("auto", Backend::Auto),
        ("tract", Backend::Tract),
        ("onnxruntime", Backend::OnnxRuntime),
    ] {
        assert_eq!(text.parse::<Backend>().unwrap(), backend);
        assert_eq!(
            serde_json::to_string(&backend).unwrap(),
            format!("\"{text}\"")
        );
    }
    assert!("ort".parse::<Backend>().unwrap_err().contains("`ort`"));
    let config: RuntimeConfig =
        serde_json::from_str(r#"{"providers": ["tensorrt", "cuda"]}"#).unwrap();
    assert_eq!(config.providers, [Provider::TensorRt, Provider::Cuda]);
    assert!(serde_json::from_str::<RuntimeConfig>(r#"{"thread": 2}"#).is_err());
}
