//! What is wanted of a file beyond its card, and what is refused: at once, or when it has run.

use std::path::{Path, PathBuf};

use reid_edge::detect::{DetectError, OnnxDetector, OnnxOptions};
use reid_models::ModelCard;
use reid_models::card::head::{P5, P6, cells};
use reid_models::card::{Decode, Fit, OutputSpec};
use reid_models::runtime::{Backend, RuntimeConfig};

use crate::onnx::{BLACK, fixed, open};
use crate::tiny_head::{Input, Output, engines, frame, options, write};

fn refusal(path: &Path, classes: Option<Vec<usize>>) -> String {
    let mut wanted = options(RuntimeConfig {
        backend: Backend::Tract,
        ..Default::default()
    });
    wanted.classes = classes;
    match OnnxDetector::open(path, &wanted) {
        Ok(_) => panic!("it was opened"),
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains(&path.display().to_string()), "{text}");
            text
        }
    }
}

fn yolox(dir: &Path, person_class: usize, change: impl Fn(&mut [f32])) -> PathBuf {
    let anchors = cells(P5, (64, 96));
    let mut head = vec![0.0; anchors * 7];
    for (anchor, class, score) in [(20, 0, 0.9), (21, 1, 0.8), (104, 1, 0.6)] {
        let row = &mut head[anchor * 7..][..7];
        row[2..4].copy_from_slice(&[1.0, 1.5]);
        row[4] = 1.0;
        row[5 + class] = score;
    }
    change(&mut head);
    write(
        dir,
        &fixed((64, 96)),
        &[Output::new("output", &[1, anchors as i64, 7], &head)],
        Decode::Yolox,
        person_class,
        Fit::LetterboxTopLeft(114),
    )
}

#[test]
fn classes_scores_and_heights_are_filtered() {
    let dir = tempfile::tempdir().unwrap();
    let path = yolox(dir.path(), 1, |_| {});
    let engine = RuntimeConfig {
        backend: Backend::Tract,
        ..Default::default()
    };
    let frame = frame(0, (96, 64), BLACK);
    let run = |change: &dyn Fn(&mut OnnxOptions)| {
        let mut wanted = options(engine.clone());
        change(&mut wanted);
        let mut detector = OnnxDetector::open(&path, &wanted).unwrap();
        let found = detector.detect(&[&frame]).unwrap().remove(0);
        found
            .iter()
            .map(|d| (d.score * 10.0).round() as u32)
            .collect::<Vec<_>>()
    };
    assert_eq!(run(&|_| {}), [8, 6], "the card's class");
    assert_eq!(
        run(&|o| o.classes = Some(vec![0])),
        [9],
        "the caller's class"
    );
    // Both count as a person, and of two people in one place one is kept.
    let both = |nms: f32| {
        run(&|o| {
            o.classes = Some(vec![0, 1]);
            o.nms = nms;
        })
    };
    assert_eq!(both(0.3), [9, 6]);
    assert_eq!(both(0.9), [9, 8, 6]);
    assert_eq!(run(&|o| o.score = 0.7), [8]);
    // Boxes of stride 8 are e^1.5 * 8 = 36 pixels high, that of stride 16 twice as many, less what the frame cuts off.
    assert_eq!(run(&|o| o.min_height = 40.0), [6]);
    assert_eq!(run(&|o| o.min_height = 64.0), [0u32; 0]);
    let described = OnnxDetector::open(&path, &options(engine.clone())).unwrap();
    assert!(
        described
            .description()
            .starts_with("tiny (tiny.onnx): tract")
    );
    assert_eq!(described.card().name, "tiny");
}

#[test]
fn nan_names_the_file() {
    let test = "nan_names_the_file";
    for at in [3, 4, 200] {
        let dir = tempfile::tempdir().unwrap();
        let path = yolox(dir.path(), 0, |head| head[at] = f32::NAN);
        for engine in engines(test) {
            let mut detector = open(&path, &engine);
            let frame = frame(0, (96, 64), BLACK);
            let error = detector.detect(&[&frame]).unwrap_err();
            assert!(matches!(error, DetectError::NotFinite { .. }), "{error}");
            let text = error.to_string();
            assert!(
                text.contains("tiny.onnx") && text.contains("precision too low"),
                "{text}"
            );
        }
    }
}

#[test]
fn a_card_that_does_not_fit_is_refused_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let path = yolox(dir.path(), 0, |_| {});
    let card_path = ModelCard::path_beside(&path);
    let card = ModelCard::read(&card_path).unwrap();
    let with = |output: OutputSpec| {
        let card = ModelCard {
            output,
            ..card.clone()
        };
        card.write(&card_path).unwrap();
        refusal(&path, None)
    };
    let detect = |decode, person_class| OutputSpec::Detect {
        tensor: None,
        decode,
        person_class,
    };
    let text = with(detect(Decode::Ssd, 0));
    assert!(
        text.contains("`output` [1, 126, 7]")
            && text.contains("(1, 1, n, 7)")
            && text.contains("\"yolox\"")
            && text.contains("reid-export adopt"),
        "{text}"
    );
    let text = with(detect(Decode::Yolox, 2));
    assert!(
        text.contains("person_class names class 2") && text.contains("2 apart"),
        "{text}"
    );
    let text = with(OutputSpec::Embed {
        tensor: None,
        width: 7,
        normalized: false,
    });
    assert!(text.contains("[embedder]"), "{text}");
    let text = with(OutputSpec::Pose {
        tensor: None,
        decode: Decode::Movenet,
    });
    assert!(text.contains("poses"), "{text}");
    let text = with(OutputSpec::Detect {
        tensor: Some("boxes".into()),
        decode: Decode::Yolox,
        person_class: 0,
    });
    assert!(
        text.contains("no output named `boxes`") && text.contains("`output`"),
        "{text}"
    );
    card.write(&card_path).unwrap();
    assert!(refusal(&path, Some(vec![])).contains("detector.classes is empty"));
    let text = refusal(&path, Some(vec![0, 5]));
    assert!(text.contains("detector.classes names class 5"), "{text}");
    std::fs::remove_file(card_path).unwrap();
    assert!(refusal(&path, None).contains("reid-export adopt"));
}

/// What a file leaves open is seen when it has run.
#[test]
fn another_shape_than_declared_is_refused_when_it_comes() {
    let test = "another_shape_than_declared_is_refused_when_it_comes";
    let dir = tempfile::tempdir().unwrap();
    let anchors = cells(P6, (64, 96)) as i64;
    let output = Output {
        declared: Some(vec![1, 0, 0]),
        ..Output::new(
            "output",
            &[1, anchors, 33],
            &vec![0.0; 33 * anchors as usize],
        )
    };
    let input = fixed((64, 96));
    let path = write(
        dir.path(),
        &input,
        &[output],
        Decode::Yolox,
        0,
        Fit::Stretch,
    );
    for engine in engines(test) {
        let mut detector = open(&path, &engine);
        let frame = frame(0, (96, 64), BLACK);
        let text = detector.detect(&[&frame]).unwrap_err().to_string();
        assert!(
            text.contains("[1, 128, 33]")
                && text.contains("(batch, 126, 5 + classes)")
                && text.contains("\"nanodet\" would fit"),
            "{text}"
        );
    }
}

/// A torchvision file for two pictures at a time cannot say whose boxes are whose.
#[test]
fn boxes_of_nobody_knows_which_picture_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let outputs = [
        Output::new("boxes", &[-1, 4], &[0.0; 4]),
        Output {
            integer: true,
            ..Output::new("labels", &[-1], &[0.0])
        },
        Output::new("scores", &[-1], &[0.0]),
    ];
    let input = Input {
        batch: 2,
        ..fixed((64, 96))
    };
    let path = write(
        dir.path(),
        &input,
        &outputs,
        Decode::Torchvision,
        1,
        Fit::Stretch,
    );
    assert!(refusal(&path, None).contains("one picture at a time"));
}
