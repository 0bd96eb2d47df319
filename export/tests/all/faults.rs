//! Everything that can be wrong with a run or a file: one clear error, nothing left behind.

use std::fs;
use std::path::Path;

use reid_export::ExportError;
use reid_export::verify::verify;
use reid_export::write::{ExportOptions, export};
use reid_models::ModelCard;
use reid_models::probe::Probe;
use reid_models::weights::Weights;

use crate::run_folder;

/// Exports after `damage`; the error must name `names`, and no file may be left.
fn refused(damage: impl Fn(&Path), names: &[&str]) -> ExportError {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let out = dir.path().join("out");
    fs::create_dir(&run).unwrap();
    fs::create_dir(&out).unwrap();
    run_folder::write_small(&run);
    damage(&run);
    let err = export(&run, &out.join("model.onnx"), &ExportOptions::default()).unwrap_err();
    let text = err.to_string();
    for name in names {
        assert!(text.contains(name), "`{name}` is not in: {text}");
    }
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0, "something was left");
    err
}

fn change_weights(run: &Path, change: impl Fn(&mut Weights)) {
    let path = run.join("model.safetensors");
    let mut weights = Weights::read(&path).unwrap();
    change(&mut weights);
    weights.write(&path).unwrap();
}

fn change_card(run: &Path, change: impl Fn(&mut ModelCard)) {
    let path = run.join("card.json");
    let mut card = ModelCard::read(&path).unwrap();
    change(&mut card);
    card.write(&path).unwrap();
}

#[test]
fn a_run_without_one_of_its_files() {
    for file in [
        "graph.json",
        "model.safetensors",
        "card.json",
        "probe.safetensors",
    ] {
        refused(
            |run| fs::remove_file(run.join(file)).unwrap(),
            &[file, "is missing", "reid-train fit"],
        );
    }
}

#[test]
fn broken_files_of_a_run() {
    refused(
        |run| fs::write(run.join("graph.json"), "{").unwrap(),
        &["graph.json", "not a graph"],
    );
    refused(
        |run| fs::write(run.join("model.safetensors"), "weights").unwrap(),
        &["model.safetensors", "not a safetensors file"],
    );
    refused(
        |run| fs::write(run.join("card.json"), "{}").unwrap(),
        &["card.json", "not a model card"],
    );
    refused(
        |run| fs::write(run.join("probe.safetensors"), "").unwrap(),
        &["probe.safetensors"],
    );
}

#[test]
fn weights_that_do_not_fit_the_graph() {
    refused(
        |run| {
            change_weights(run, |w| {
                w.tensors.remove("bn1.bias");
            });
        },
        &["model.safetensors", "graph.json", "bn1.bias is missing"],
    );
    refused(
        |run| {
            change_weights(run, |w| {
                w.tensors
                    .insert("conv1.weight".into(), (vec![2, 2], vec![0.0; 4]));
            });
        },
        &["conv1.weight", "[2, 2]", "[4, 3, 7, 7]"],
    );
    // A whole other network: the message stays readable.
    let err = refused(
        |run| change_weights(run, |w| w.tensors.clear()),
        &["and 101 more"],
    );
    assert!(err.to_string().len() < 400);
}

#[test]
fn a_card_of_another_run() {
    let err = refused(
        |run| change_weights(run, |w| w.tensors.get_mut("bn1.bias").unwrap().1[0] += 1.0),
        &["card.json", "fingerprint", "model.safetensors"],
    );
    assert!(matches!(err, ExportError::CardDiffers { .. }));
    refused(
        |run| change_card(run, |card| card.input.height = 128),
        &["card.json", "128 x 32", "64 x 32"],
    );
}

/// The file is right but the trainer's numbers are not those of this network: it must not be kept.
#[test]
fn a_file_with_other_embeddings_is_not_kept() {
    let err = refused(
        |run| {
            let path = run.join("probe.safetensors");
            let mut probe = Probe::read(&path).unwrap();
            probe.embeddings.swap(3, 9);
            probe.write(&path).unwrap();
        },
        &["model.onnx", "was not kept", "0.9999"],
    );
    assert!(matches!(err, ExportError::NotTheSame { .. }));
}

#[test]
fn a_refused_export_leaves_the_older_file() {
    let dir = tempfile::tempdir().unwrap();
    run_folder::write_small(dir.path());
    let out = dir.path().join("model.onnx");
    export(dir.path(), &out, &ExportOptions::default()).unwrap();
    let before = fs::read(&out).unwrap();
    fs::remove_file(dir.path().join("probe.safetensors")).unwrap();
    export(dir.path(), &out, &ExportOptions::default()).unwrap_err();
    assert_eq!(fs::read(&out).unwrap(), before);
}

#[test]
fn diverged_weights_are_named() {
    refused(
        |run| {
            change_weights(run, |w| {
                w.tensors.get_mut("bn1.bias").unwrap().1[0] = f32::NAN
            });
            let weights = Weights::read(&run.join("model.safetensors")).unwrap();
            change_card(run, |card| {
                card.fingerprint = reid_models::weights::fingerprint(&weights, &card.input);
            });
        },
        &["bn1", "NaN", "diverged"],
    );
}

#[test]
fn an_output_folder_that_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    run_folder::write_small(dir.path());
    // A folder that does not exist, and one that nobody, root included, can write to.
    for folder in ["/nowhere/at/all", "/proc"] {
        let out = Path::new(folder).join("model.onnx");
        let err = export(dir.path(), &out, &ExportOptions::default()).unwrap_err();
        let text = err.to_string();
        assert!(
            text.contains("cannot write") && text.contains(folder),
            "{text}"
        );
    }
}

#[test]
fn verify_refuses_what_it_cannot_compare() {
    let dir = tempfile::tempdir().unwrap();
    run_folder::write_small(dir.path());
    let out = dir.path().join("model.onnx");
    export(dir.path(), &out, &ExportOptions::default()).unwrap();
    let whole = fs::read(&out).unwrap();
    let bad = dir.path().join("bad.onnx");
    let text = |bytes: &[u8]| {
        fs::write(&bad, bytes).unwrap();
        verify(&bad, None).unwrap_err().to_string()
    };
    for bytes in [&whole[..whole.len() / 2], b"not an onnx file", b""] {
        let text = text(bytes);
        assert!(text.contains("bad.onnx") && text.contains("ONNX"), "{text}");
    }
    let missing = verify(Path::new("/nowhere/model.onnx"), None).unwrap_err();
    assert!(missing.to_string().contains("/nowhere/model.onnx"));
}
