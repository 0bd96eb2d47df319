//! Cards for files made by others.

use std::path::{Path, PathBuf};

use reid_export::ExportError;
use reid_export::adopt::{AdoptOptions, Task, adopt};
use reid_export::write::{ExportOptions, export};
use reid_models::ModelCard;
use reid_models::card::{Channels, Decode, Element, Fit, Layout, OutputSpec, Range};
use reid_models::picture::Pixels;
use reid_models::probe;
use reid_models::runtime::{Backend, Embedder, RuntimeConfig, library};

use crate::run_folder;

/// A copy of a file from the folder REID_MEDIA names, in a folder of its own.
fn media(test: &str, file: &str) -> Option<(tempfile::TempDir, PathBuf)> {
    let Some(folder) = std::env::var_os("REID_MEDIA") else {
        println!("skipped: {test} (REID_MEDIA is not set)");
        return None;
    };
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join(file);
    std::fs::copy(Path::new(&folder).join(file), &copy).unwrap();
    Some((dir, copy))
}

#[test]
fn an_embedder_reads_its_shape_from_the_file() {
    let test = "an_embedder_reads_its_shape_from_the_file";
    let Some((_dir, path)) = media(test, "reid-retail-0248.onnx") else {
        return;
    };
    let options = AdoptOptions {
        channels: Some(Channels::Bgr),
        range: Some(Range::Byte),
        license: Some("Apache-2.0".into()),
        ..AdoptOptions::new(Task::Embed)
    };
    let adopted = adopt(&path, &options).unwrap();
    assert!(adopted.tried_with.is_some(), "{:?}", adopted.warning);
    let input = &adopted.card.input;
    assert_eq!(
        (input.height, input.width, input.layout),
        (256, 128, Layout::Nhwc)
    );
    assert_eq!(
        (input.fixed_batch, input.mean, input.std),
        (Some(1), [0.0; 3], [1.0; 3])
    );
    assert!(matches!(
        adopted.card.output,
        OutputSpec::Embed { width: 256, .. }
    ));
    assert_eq!(adopted.card.fingerprint.len(), 64);
    // The edge opens it from now on without knowing its name.
    let mut embedder = Embedder::open(&path, &RuntimeConfig::default()).unwrap();
    let vectors = embedder
        .embed(&[(Pixels::from(&probe::crops()[0]), None)])
        .unwrap();
    assert_eq!(vectors[0].len(), 256);
}

#[test]
fn a_detector_takes_its_familys_conventions() {
    let test = "a_detector_takes_its_familys_conventions";
    let Some((_dir, path)) = media(test, "yolox_nano_416.onnx") else {
        return;
    };
    let missing = adopt(&path, &AdoptOptions::new(Task::Detect)).unwrap_err();
    assert!(missing.to_string().contains("--decode"), "{missing}");
    let options = |decode| AdoptOptions {
        decode: Some(decode),
        ..AdoptOptions::new(Task::Detect)
    };
    let wrong = adopt(&path, &options(Decode::Ssd)).unwrap_err().to_string();
    assert!(
        wrong.contains("(1, 1, n, 7)") && wrong.contains("3549"),
        "{wrong}"
    );
    assert!(!ModelCard::path_beside(&path).exists());
    let adopted = adopt(&path, &options(Decode::Yolox)).unwrap();
    let input = &adopted.card.input;
    assert_eq!((input.channels, input.range), (Channels::Bgr, Range::Byte));
    assert_eq!((input.height, input.width), (416, 416));
    assert_eq!(input.fit, Fit::LetterboxTopLeft(114));
    assert_eq!(ModelCard::read(&adopted.card_file).unwrap(), adopted.card);
}

#[test]
fn a_pose_model_of_bytes() {
    let test = "a_pose_model_of_bytes";
    let Some((_dir, path)) = media(test, "movenet_lightning_192.onnx") else {
        return;
    };
    let options = AdoptOptions {
        decode: Some(Decode::Movenet),
        ..AdoptOptions::new(Task::Pose)
    };
    let adopted = adopt(&path, &options).unwrap();
    let input = &adopted.card.input;
    assert_eq!((input.element, input.layout), (Element::U8, Layout::Nhwc));
    if library::find(None).unwrap().is_some() {
        assert!(adopted.tried_with.is_some(), "{:?}", adopted.warning);
    }
}

#[test]
fn files_that_need_no_card_or_can_have_none() {
    let dir = tempfile::tempdir().unwrap();
    run_folder::write_small(dir.path());
    let out = dir.path().join("model.onnx");
    export(dir.path(), &out, &ExportOptions::default()).unwrap();
    let embed = AdoptOptions {
        runtime: RuntimeConfig {
            backend: Backend::Tract,
            ..Default::default()
        },
        ..AdoptOptions::new(Task::Embed)
    };
    let err = adopt(&out, &embed).unwrap_err();
    assert!(matches!(err, ExportError::HasCard { .. }), "{err}");

    // The same network without its metadata is a foreign file.
    use prost::Message as _;
    use reid_models::runtime::proto::{DimensionValue, ModelProto};
    let whole = ModelProto::decode(&std::fs::read(&out).unwrap()[..]).unwrap();
    let foreign = dir.path().join("foreign.onnx");
    let write = |change: &dyn Fn(&mut Vec<DimensionValue>)| {
        let mut model = whole.clone();
        model.metadata_props.clear();
        let graph = model.graph.as_mut().unwrap();
        let tensor = graph.input[0].r#type.as_mut().unwrap().tensor_type.as_mut();
        let dims = &mut tensor.unwrap().shape.as_mut().unwrap().dim;
        let mut values: Vec<DimensionValue> =
            dims.iter().map(|d| d.value.clone().unwrap()).collect();
        change(&mut values);
        let one = dims[0].clone();
        *dims = values
            .into_iter()
            .map(|value| {
                let mut dim = one.clone();
                dim.value = Some(value);
                dim
            })
            .collect();
        std::fs::write(&foreign, model.encode_to_vec()).unwrap();
    };
    write(&|_| {});
    let adopted = adopt(&foreign, &embed).unwrap();
    assert!(matches!(
        adopted.card.output,
        OutputSpec::Embed { width: 32, .. }
    ));
    assert_eq!(adopted.card.input.fixed_batch, None);
    let mut embedder = Embedder::open(&foreign, &embed.runtime).unwrap();
    let card = embedder.card().clone();
    let got = embedder
        .embed_tensor(probe::PROBE_CROPS, &probe::inputs(&card.input))
        .unwrap();
    let trained = probe::Probe::read(&dir.path().join("probe.safetensors")).unwrap();
    assert!(trained.compare(&got).min_cosine > 0.9999);
    std::fs::remove_file(adopted.card_file).unwrap();

    let text = |options: &AdoptOptions| adopt(&foreign, options).unwrap_err().to_string();
    write(&|dims| dims.truncate(2));
    assert!(text(&embed).contains("not an image"), "{}", text(&embed));
    write(&|dims| dims[1] = DimensionValue::DimValue(5));
    assert!(text(&embed).contains("3 channels"), "{}", text(&embed));
    write(&|dims| dims[2] = DimensionValue::DimParam("height".into()));
    assert!(text(&embed).contains("--size WxH"), "{}", text(&embed));
    let sized = AdoptOptions {
        size: Some((32, 64)),
        ..embed.clone()
    };
    let adopted = adopt(&foreign, &sized).unwrap();
    assert_eq!(
        (adopted.card.input.height, adopted.card.input.width),
        (64, 32)
    );
    std::fs::remove_file(adopted.card_file).unwrap();
    write(&|_| {});
    let contradiction = AdoptOptions {
        size: Some((128, 256)),
        ..embed.clone()
    };
    assert!(
        text(&contradiction).contains("256 high x 128 wide"),
        "{}",
        text(&contradiction)
    );
    std::fs::write(&foreign, b"not a model").unwrap();
    assert!(text(&embed).contains("foreign.onnx"));
    assert!(!ModelCard::path_beside(&foreign).exists());
}
