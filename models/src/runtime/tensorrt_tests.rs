//! Options and keys of TensorRT engines, which no machine without a GPU can try out.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use super::super::Provider;
use super::super::file::Axis;
use super::super::file::TensorInfo;
use super::super::proto::DataType;
use super::*;
use crate::card::{CARD_VERSION, Decode, Element, InputSpec};

fn card() -> ModelCard {
    ModelCard {
        version: CARD_VERSION,
        name: "resnet18".into(),
        input: InputSpec::imagenet(256, 128),
        output: OutputSpec::Embed {
            tensor: None,
            width: 512,
            normalized: true,
        },
        training: None,
        license: None,
        toolkit: "test".into(),
        thresholds: BTreeMap::new(),
        fingerprint: "aa".into(),
    }
}

fn file(batch: Axis) -> OnnxFile {
    OnnxFile {
        ir_version: 8,
        opset: 17,
        producer: String::new(),
        inputs: vec![TensorInfo {
            name: "x".into(),
            element: DataType::Float,
            shape: Some(vec![
                batch,
                Axis::Fixed(3),
                Axis::Fixed(256),
                Axis::Fixed(128),
            ]),
        }],
        outputs: Vec::new(),
        nodes: 1,
        weight_elements: 0,
        bytes: 0,
        metadata: BTreeMap::new(),
        quantized: false,
        external: false,
    }
}

fn dynamic() -> Axis {
    Axis::Dynamic("batch".into())
}

struct Case {
    config: RuntimeConfig,
    card: ModelCard,
    file: OnnxFile,
    input: ImageInput,
    model: String,
    gpu: Option<Gpu>,
    library: String,
    calibration: Option<Calibration>,
}

impl Case {
    fn new() -> Self {
        Case {
            config: RuntimeConfig {
                providers: vec![Provider::TensorRt],
                precision: Precision::Fp16,
                ..Default::default()
            },
            card: card(),
            file: file(dynamic()),
            input: ImageInput {
                name: "x".into(),
                element: Element::F32,
                sample: [3, 256, 128],
                fixed_batch: None,
            },
            model: "0123".into(),
            gpu: Some(Gpu {
                name: "Orin".into(),
                capability: "8.7".into(),
            }),
            library: "1.32".into(),
            calibration: None,
        }
    }

    fn with(change: impl FnOnce(&mut Self)) -> Self {
        let mut case = Case::new();
        change(&mut case);
        case
    }

    fn engine(&self) -> Engine<'_> {
        Engine {
            config: &self.config,
            card: &self.card,
            file: &self.file,
            input: &self.input,
            model: &self.model,
            gpu: self.gpu.as_ref(),
            library: &self.library,
            calibration: self.calibration.as_ref(),
        }
    }

    fn options(&self) -> BTreeMap<&'static str, String> {
        let folders = Folders {
            engine: Path::new("/cache/e"),
            timings: Path::new("/cache/t"),
        };
        self.engine()
            .options(Some(&folders))
            .unwrap()
            .into_iter()
            .collect()
    }
}

fn calibration(native: bool) -> Calibration {
    Calibration {
        bytes: vec![1],
        sha256: format!("table {native}"),
        native,
    }
}

#[test]
fn every_key_and_value() {
    let case = Case::with(|c| c.config.device = 2);
    let name = case.engine().key().unwrap().name();
    assert!(name.starts_with("tensorrt-resnet18-"), "{name}");
    let want: BTreeMap<&str, &str> = [
        ("device_id", "2"),
        ("trt_max_workspace_size", "1073741824"),
        ("trt_fp16_enable", "1"),
        ("trt_int8_enable", "0"),
        ("trt_detailed_build_log", "0"),
        ("trt_dump_subgraphs", "0"),
        ("trt_profile_min_shapes", "x:1x3x256x128"),
        ("trt_profile_opt_shapes", "x:8x3x256x128"),
        ("trt_profile_max_shapes", "x:32x3x256x128"),
        ("trt_engine_cache_enable", "1"),
        ("trt_engine_cache_path", "/cache/e"),
        ("trt_engine_cache_prefix", &name),
        ("trt_timing_cache_enable", "1"),
        ("trt_timing_cache_path", "/cache/t"),
    ]
    .into();
    let options = case.options();
    let got: BTreeMap<&str, &str> = options.iter().map(|(k, v)| (*k, v.as_str())).collect();
    assert_eq!(got, want);
}

#[test]
fn without_a_cache_nothing_is_kept() {
    let case = Case::new();
    let options = case.engine().options(None).unwrap();
    assert!(options.iter().all(|(key, _)| !key.contains("cache")));
    assert!(
        options
            .iter()
            .any(|(key, _)| *key == "trt_profile_max_shapes")
    );
}

#[test]
fn precisions_and_tables() {
    let of = |precision, table: Option<bool>| {
        let case = Case::with(|c| {
            c.config.precision = precision;
            c.calibration = table.map(calibration);
        });
        let options = case.options();
        let get = |key: &str| options.get(key).cloned().unwrap_or_default();
        (
            get("trt_fp16_enable"),
            get("trt_int8_enable"),
            get("trt_int8_calibration_table_name"),
            get("trt_int8_use_native_calibration_table"),
        )
    };
    let want = |fp16: &str, int8: &str, table: &str, native: &str| {
        (fp16.into(), int8.into(), table.into(), native.into())
    };
    assert_eq!(of(Precision::Fp32, None), want("0", "0", "", ""));
    assert_eq!(of(Precision::Fp16, None), want("1", "0", "", ""));
    assert_eq!(of(Precision::Int8, None), want("1", "1", "", ""));
    assert_eq!(
        of(Precision::Int8, Some(true)),
        want("1", "1", "calibration.table", "1")
    );
    assert_eq!(
        of(Precision::Int8, Some(false)),
        want("1", "1", "calibration.table", "0")
    );
}

#[test]
fn ranges_of_shapes_follow_file_and_task() {
    let shapes = |case: &Case| {
        let options = case.options();
        ["min", "opt", "max"].map(|r| options.get(&*format!("trt_profile_{r}_shapes")).cloned())
    };
    let some = |a: &str, b: &str, c: &str| [Some(a.into()), Some(b.into()), Some(c.into())];
    // A file that fixes everything needs no range.
    let fixed = Case::with(|c| {
        c.file = file(Axis::Fixed(4));
        c.input.fixed_batch = Some(4);
    });
    assert_eq!(shapes(&fixed), [None, None, None]);
    // The card fixes the batch of a file that does not.
    let by_card = Case::with(|c| c.input.fixed_batch = Some(4));
    let four = "x:4x3x256x128";
    assert_eq!(shapes(&by_card), some(four, four, four));
    // A detector's batches are smaller.
    let detector = Case::with(|c| {
        c.card.output = OutputSpec::Detect {
            tensor: None,
            decode: Decode::Yolox,
            person_class: 0,
        };
    });
    assert_eq!(
        shapes(&detector),
        some("x:1x3x256x128", "x:2x3x256x128", "x:8x3x256x128")
    );
    // A name that the notation cannot hold.
    for name in ["input:0", "a,b", "a\0"] {
        let case = Case::with(|c| c.input.name = name.into());
        assert!(
            case.engine()
                .options(None)
                .unwrap_err()
                .contains("rename the input")
        );
        assert!(case.engine().key().is_err());
    }
}

#[test]
fn an_engine_is_another_whenever_anything_is() {
    let cases = [
        Case::new(),
        Case::with(|c| c.card.fingerprint = "bb".into()),
        Case::with(|c| c.model = "4567".into()),
        Case::with(|c| c.gpu = None),
        Case::with(|c| c.gpu.as_mut().unwrap().name = "Orin Nano".into()),
        Case::with(|c| c.gpu.as_mut().unwrap().capability = "8.6".into()),
        Case::with(|c| c.config.precision = Precision::Fp32),
        Case::with(|c| c.config.precision = Precision::Int8),
        Case::with(|c| c.calibration = Some(calibration(true))),
        Case::with(|c| c.calibration = Some(calibration(false))),
        Case::with(|c| c.input.sample = [3, 384, 128]),
        Case::with(|c| c.input.name = "images".into()),
        Case::with(|c| c.input.element = Element::F16),
        Case::with(|c| c.input.fixed_batch = Some(1)),
        Case::with(|c| c.library = "1.33".into()),
    ];
    let names: BTreeSet<String> = cases
        .iter()
        .map(|c| c.engine().key().unwrap().name())
        .collect();
    assert_eq!(names.len(), cases.len());
    // The same engine serves whatever threads, fallback or GPU number (of the same kind) the configuration names.
    let same = Case::with(|c| {
        c.config.threads = 4;
        c.config.fallback = true;
        c.config.device = 1;
    });
    assert_eq!(
        same.engine().key().unwrap().name(),
        cases[0].engine().key().unwrap().name()
    );
}

#[test]
fn int8_needs_scales_from_one_place() {
    let dir = tempfile::tempdir().unwrap();
    let table = dir.path().join("table");
    std::fs::write(&table, "TRT-8601-EntropyCalibration2\nx: 3c010a14\n").unwrap();
    let flat = dir.path().join("flat");
    std::fs::write(&flat, [16, 0, 0, 0]).unwrap();
    let read = |precision, table: Option<&Path>, quantized| {
        let config = RuntimeConfig {
            precision,
            calibration: table.map(Path::to_path_buf),
            ..Default::default()
        };
        let file = OnnxFile {
            quantized,
            ..file(dynamic())
        };
        Calibration::read(&config, &file, Path::new("m.onnx")).map_err(|e| e.to_string())
    };
    assert_eq!(read(Precision::Fp16, None, false).unwrap(), None);
    assert_eq!(read(Precision::Int8, None, true).unwrap(), None);
    let err = read(Precision::Int8, None, false).unwrap_err();
    assert!(
        err.contains("m.onnx") && err.contains("`calibration`"),
        "{err}"
    );
    let err = read(Precision::Int8, Some(&table), true).unwrap_err();
    assert!(err.contains("remove the key"), "{err}");
    let err = read(Precision::Int8, Some(Path::new("/nowhere/t")), false).unwrap_err();
    assert!(err.contains("calibration = /nowhere/t"), "{err}");
    let native = read(Precision::Int8, Some(&table), false).unwrap().unwrap();
    let other = read(Precision::Int8, Some(&flat), false).unwrap().unwrap();
    assert!(native.native && !other.native && native.sha256 != other.sha256);
    native.place(dir.path()).unwrap();
    let placed = std::fs::read(dir.path().join("calibration.table")).unwrap();
    assert_eq!(placed, std::fs::read(&table).unwrap());
}

#[test]
fn cuda_is_told_its_device() {
    let config = RuntimeConfig {
        device: 3,
        ..Default::default()
    };
    let options: BTreeMap<_, _> = cuda_options(&config).into_iter().collect();
    assert_eq!(options["device_id"], "3");
    assert_eq!(options["arena_extend_strategy"], "kSameAsRequested");
}
