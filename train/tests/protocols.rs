//! `reid-train eval` by every protocol, on small data sets made here, against slow and obvious versions.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use image::{Rgb, RgbImage};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reid_train::data::dataset;
use reid_train::data::{PictureStore, Sample};
use reid_train::eval::Labels;
use reid_train::eval::single_shot::{DrawForm, Draws};
use reid_train::extract::features;
use reid_train::fit::load_net;
use reid_train::nn::device::DeviceSpec;
use reid_train::run::RunFolder;
use serde_json::Value;

/// Blocks of colour, most of them the person's, some the camera's and the picture's own.
fn picture(path: &Path, person: u64, camera: u64, number: u64) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut own = ChaCha8Rng::seed_from_u64(1_000_000 * person + 1000 * camera + number);
    let mut of = [person, 77 + camera].map(ChaCha8Rng::seed_from_u64);
    let blocks: Vec<[u8; 3]> = (0..32)
        .map(|_| {
            let person: [u8; 3] = of[0].random();
            let camera: [u8; 3] = of[1].random();
            match own.random_range(0..10) {
                0..4 => person,
                4..7 => camera,
                _ => own.random(),
            }
        })
        .collect();
    RgbImage::from_fn(16, 32, |x, y| Rgb(blocks[(y / 4 * 4 + x / 4) as usize]))
        .save(path)
        .unwrap();
}

/// Eight people in three cameras, two pictures each; with `boxes`, three more in the query's camera.
fn market(root: &Path, boxes: bool) -> String {
    for (person, camera, n) in
        (1..=8).flat_map(|p| (1..=3).flat_map(move |c| (0..2).map(move |n| (p, c, n))))
    {
        let split = match (person, camera, n) {
            (1..=2, ..) => "bounding_box_train",
            (_, 1, 0) => "query",
            _ => "bounding_box_test",
        };
        let name = format!("{split}/{person:04}_c{camera}s1_000001_0{n}.png");
        picture(&root.join(name), person, camera, n);
    }
    for n in 0..3 {
        let name = format!("bounding_box_test/0000_c2s1_000001_0{n}.png");
        picture(&root.join(name), 900 + n, 2, n);
    }
    if boxes {
        for (person, n) in (3..=8).flat_map(|p| (5..8).map(move |n| (p, n))) {
            for camera in [1, 2] {
                let name = format!("gt_bbox/{person:04}_c{camera}s1_000001_0{n}.png");
                picture(&root.join(name), person, camera, n);
            }
        }
    }
    format!("market1501:{}", root.display())
}

/// Ten people, three pictures in each of two cameras; eight of them are tested.
fn cuhk03_classic(root: &Path) -> String {
    let mut sets = String::from("split,pair,person\n");
    for person in 1..=10 {
        for (camera, n) in (1..=2).flat_map(|c| (0..3).map(move |n| (c, n))) {
            let name = format!(
                "images_detected/1_{person:03}_{camera}_{:02}.png",
                5 * camera + n
            );
            picture(&root.join(name), person, camera, n);
        }
        if person > 2 {
            sets += &format!("0,1,{person}\n");
        }
    }
    fs::write(root.join("testsets.csv"), sets).unwrap();
    format!("cuhk03,classic:{}", root.display())
}

fn cuhk01(root: &Path) -> String {
    for (person, n) in (1..=14).flat_map(|p| (1..=4).map(move |n| (p, n))) {
        let name = format!("campus/{person:04}{n:03}.png");
        picture(&root.join(name), person, 1 + (n - 1) / 2, n);
    }
    format!("cuhk01,split=3:{}", root.display())
}

/// Two people to train on; six in three cameras to test, a tracklet of three frames each, and a tracklet of junk.
fn mars(root: &Path) -> String {
    let info = root.join("info");
    fs::create_dir_all(&info).unwrap();
    let mut queries = String::new();
    for (half, people) in [("train", 1..=2u64), ("test", 3..=8)] {
        let (mut names, mut tracks, mut row) = (Vec::new(), String::new(), 0);
        let mut add = |who: &str, person: u64, camera: u64, pid: i64| {
            row += 1;
            let first = names.len() + 1;
            for frame in 1..=3 {
                let name = format!("{who}C{camera}T0001F00{frame}.png");
                let path = root.join(format!("bbox_{half}/{who}/{name}"));
                picture(&path, person, camera, frame);
                names.push(name);
            }
            tracks += &format!("{first} {} {pid} {camera}\n", names.len());
            if half == "test" && camera == 1 && pid > 0 {
                queries += &format!("{row}\n");
            }
        };
        if half == "test" {
            add("00-1", 999, 2, -1);
        }
        for (person, camera) in people.flat_map(|p| (1..=3).map(move |c| (p, c))) {
            add(&format!("{person:04}"), person, camera, person as i64);
        }
        fs::write(info.join(format!("{half}_name.txt")), names.join("\n")).unwrap();
        fs::write(info.join(format!("tracks_{half}_info.txt")), tracks).unwrap();
    }
    fs::write(info.join("query_IDX.txt"), queries).unwrap();
    format!("mars:{}", root.display())
}

fn command(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_reid-train"))
        .args(arguments)
        .output()
        .unwrap()
}

fn json(arguments: &[&str]) -> Value {
    let output = command(&[arguments, &["--json"]].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A network after one step of training on tracklets: its evaluation is by video.
fn trained(folder: &Path) -> String {
    let run = folder.join("run").display().to_string();
    let data = mars(&folder.join("mars"));
    command_ok(&[
        "fit",
        "--method",
        "supervised",
        "--preset",
        "supervised_small",
        "--init",
        "random",
        "--data",
        &data,
        "--out",
        &run,
        "--set",
        "train.epochs=1",
        "--set",
        "train.iterations=1",
    ]);
    run
}

fn command_ok(arguments: &[&str]) -> String {
    let output = command(arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Something with a feature.
#[derive(Clone)]
struct Row {
    feature: Vec<f64>,
    pid: i64,
    camera: i64,
}

/// Features of pictures, in their order.
fn rows(run: &str, samples: &[Sample]) -> Vec<Row> {
    let run = RunFolder::open(Path::new(run)).unwrap();
    let input = run.card().unwrap().input;
    let store = Arc::new(PictureStore::new(samples.to_vec(), &input, 0).unwrap());
    let made = features(&load_net(&run, DeviceSpec::Cpu).unwrap(), &store).unwrap();
    made.rows
        .chunks(made.width)
        .zip(samples)
        .map(|(feature, s)| Row {
            feature: feature.iter().map(|v| f64::from(*v)).collect(),
            pid: s.pid,
            camera: i64::from(s.camera),
        })
        .collect()
}

fn mean<'a>(rows: impl Iterator<Item = &'a Row> + Clone) -> Row {
    let first = rows.clone().next().unwrap().clone();
    let feature = (0..first.feature.len())
        .map(|d| rows.clone().map(|r| r.feature[d]).sum::<f64>() / rows.clone().count() as f64)
        .collect();
    Row { feature, ..first }
}

fn cosine(a: &Row, b: &Row) -> f64 {
    let dot =
        |a: &Row, b: &Row| -> f64 { a.feature.iter().zip(&b.feature).map(|(x, y)| x * y).sum() };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The standard protocol by sorting: rank-1, rank-5, rank-10, mAP, mINP.
fn standard(query: &[Row], gallery: &[Row]) -> [f64; 5] {
    let mut sums = [0.0; 5];
    for q in query {
        let mut list: Vec<&Row> = gallery
            .iter()
            .filter(|g| g.pid != q.pid || g.camera != q.camera)
            .collect();
        list.sort_by(|a, b| cosine(q, b).total_cmp(&cosine(q, a)));
        let ranks: Vec<f64> = (1..)
            .zip(&list)
            .filter(|(_, g)| g.pid == q.pid)
            .map(|(rank, _)| f64::from(rank))
            .collect();
        let right = ranks.len() as f64;
        let precision: f64 = (1..).zip(&ranks).map(|(n, rank)| f64::from(n) / rank).sum();
        for (sum, within) in sums.iter_mut().zip([1.0, 5.0, 10.0]) {
            *sum += f64::from(u8::from(ranks[0] <= within));
        }
        sums[3] += precision / right;
        sums[4] += right / ranks[ranks.len() - 1];
    }
    sums.map(|sum| sum / query.len() as f64)
}

/// Rank-1, rank-5, rank-10 among one drawn picture a person, mean over draws; then mAP and mINP of the whole gallery.
fn drawn(query: &[Row], gallery: &[Row], form: DrawForm, draws: usize, seed: u64) -> [f64; 5] {
    let labels =
        |rows: &[Row]| -> (Vec<i64>, Vec<i64>) { rows.iter().map(|r| (r.pid, r.camera)).unzip() };
    let (q, g) = (labels(query), labels(gallery));
    let drawing = Draws::new(
        form,
        Labels {
            pids: &q.0,
            cameras: &q.1,
        },
        Labels {
            pids: &g.0,
            cameras: &g.1,
        },
        seed,
    );
    let mut sums = [0.0; 3];
    for draw in 0..draws {
        for (n, asking) in query.iter().enumerate() {
            let mut there = Vec::new();
            drawing.rows(draw, n, &mut there);
            there.sort_by(|a, b| {
                cosine(asking, &gallery[*b]).total_cmp(&cosine(asking, &gallery[*a]))
            });
            let place = there
                .iter()
                .position(|g| gallery[*g].pid == asking.pid)
                .unwrap();
            for (sum, within) in sums.iter_mut().zip([1, 5, 10]) {
                *sum += f64::from(u8::from(place < within));
            }
        }
    }
    let ranks = sums.map(|sum| sum / (draws * query.len()) as f64);
    let whole = standard(query, gallery);
    [ranks[0], ranks[1], ranks[2], whole[3], whole[4]]
}

fn found(value: &Value) -> [f64; 5] {
    ["rank1", "rank5", "rank10", "map", "minp"].map(|key| value[key].as_f64().unwrap())
}

fn agree(what: &str, value: &Value, want: [f64; 5]) {
    for (found, want) in found(value).into_iter().zip(want) {
        assert!((found - want).abs() < 1e-9, "{what}: {value} {want:?}");
    }
}

#[test]
fn every_protocol_agrees_with_the_slow_one() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let run = trained(dir.path());
    let eval = |data: &str, more: &[&str]| {
        json(&[&["eval", "--run", &run, "--data", data], more].concat())
    };
    let sides = |data: &str| {
        let data = dataset::load(&data.parse().unwrap()).unwrap();
        (rows(&run, &data.query), rows(&run, &data.gallery), data)
    };

    // MARS: tracklets, in training as afterwards.
    let data = format!("mars:{}", at("mars").display());
    let (query, gallery, set) = sides(&data);
    let tracklets = |rows: &[Row], samples: &[Sample]| -> Vec<Row> {
        let mut of: BTreeMap<u64, Vec<&Row>> = BTreeMap::new();
        for (row, sample) in rows.iter().zip(samples) {
            of.entry(sample.tracklet.unwrap()).or_default().push(row);
        }
        of.into_values()
            .map(|rows| mean(rows.into_iter()))
            .collect()
    };
    let (tq, tg) = (
        tracklets(&query, &set.query),
        tracklets(&gallery, &set.gallery),
    );
    assert_eq!((tq.len(), tg.len(), query.len()), (6, 12, 18));
    let video = eval(&data, &[]);
    agree("video", &video, standard(&tq, &tg));
    assert_eq!(
        (&video["protocol"], &video["queries"]),
        (&"video".into(), &6.into())
    );
    assert_ne!(found(&video), standard(&query, &gallery), "pooling matters");
    let log = fs::read_to_string(Path::new(&run).join("metrics.jsonl")).unwrap();
    let last: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["protocol"], &last["map"]),
        (&video["protocol"], &video["map"])
    );
    let file = at("mars.npz").display().to_string();
    json(&["extract", "--run", &run, "--data", &data, "--out", &file]);
    let ranked = json(&["rank", &file, "--protocol", "video"]);
    assert_eq!(
        found(&ranked),
        found(&video),
        "features on file give the same"
    );

    let page = at("report.html").display().to_string();
    command_ok(&["report", "--run", &run, "--data", &data, "--out", &page]);
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("protocol video: 6 queries against 12 in the gallery"));
    let sheet = at("sheet.png").display().to_string();
    eval(&data, &["--sheet", &sheet]);
    assert!(image::open(sheet).is_ok());

    // Market-1501: single query, and multiple queries of the query's camera or of boxes drawn by hand.
    let plain = market(&at("market"), false);
    let (query, gallery, _) = sides(&plain);
    let single = eval(&plain, &[]);
    agree("market", &single, standard(&query, &gallery));
    assert_eq!(single["protocol"], "market");
    assert!(single.get("draws").is_none());
    let own = |boxes: &[Row]| -> Vec<Row> {
        query
            .iter()
            .map(|q| {
                mean(
                    boxes
                        .iter()
                        .filter(|b| (b.pid, b.camera) == (q.pid, q.camera)),
                )
            })
            .collect()
    };
    let multi = eval(&plain, &["--protocol", "multi-query"]);
    let all = [query.clone(), gallery.clone()].concat();
    agree("multi-query", &multi, standard(&own(&all), &gallery));
    assert_eq!(multi["protocol"], "multi-query");
    let boxed = market(&at("boxed"), true);
    let boxes = sides(&boxed).2.query_boxes().unwrap().unwrap();
    assert_eq!(boxes.len(), 18, "those of other cameras are left out");
    let multi_boxed = eval(&boxed, &["--protocol", "multi-query"]);
    agree(
        "gt_bbox",
        &multi_boxed,
        standard(&own(&rows(&run, &boxes)), &gallery),
    );
    assert_ne!(found(&multi_boxed), found(&multi));
    assert_ne!(found(&multi), found(&single));

    // Classic CUHK03: one camera asks, the other is searched; torchreid takes both on both sides.
    let data = cuhk03_classic(&at("cuhk03"));
    let (all, _, _) = sides(&data);
    let camera =
        |camera: i64| -> Vec<Row> { all.iter().filter(|r| r.camera == camera).cloned().collect() };
    let (one, two) = (camera(1), camera(2));
    let classic = eval(&data, &[]);
    agree(
        "cuhk03",
        &classic,
        drawn(&one, &two, DrawForm::Shared, 10, 1),
    );
    assert_eq!(
        (&classic["protocol"], &classic["draws"]),
        (&"cuhk03".into(), &10.into())
    );
    assert_eq!(classic["queries"], 24);
    let other = eval(&data, &["--draws", "3", "--seed", "5"]);
    agree("draws", &other, drawn(&one, &two, DrawForm::Shared, 3, 5));
    assert_eq!(other["draws"], 3);
    let torchreid = eval(&data, &["--protocol", "cuhk03-torchreid"]);
    agree(
        "torchreid",
        &torchreid,
        drawn(&all, &all, DrawForm::PerQuery, 10, 1),
    );
    assert_eq!(torchreid["queries"], 48);
    let file = at("cuhk03.npz").display().to_string();
    json(&["extract", "--run", &run, "--data", &data, "--out", &file]);
    let ranked = json(&["rank", &file, "--protocol", "cuhk03"]);
    assert_eq!(found(&ranked), found(&classic));

    // CUHK01: both directions count alike.
    let data = cuhk01(&at("cuhk01"));
    let (query, gallery, _) = sides(&data);
    let both = eval(&data, &[]);
    let there = drawn(&query, &gallery, DrawForm::Shared, 10, 1);
    let back = drawn(&gallery, &query, DrawForm::Shared, 10, 1);
    let mut want = there;
    want.iter_mut()
        .zip(back)
        .for_each(|(a, b)| *a = (*a + b) / 2.0);
    agree("cuhk01", &both, want);
    assert_eq!(
        (&both["protocol"], &both["queries"]),
        (&"cuhk01".into(), &28.into())
    );

    // In words, too.
    let text = command_ok(&["eval", "--run", &run, "--data", &data]);
    assert!(
        text.contains("protocol cuhk01 (ranks: mean of 10 draws"),
        "{text}"
    );

    // What makes no sense is refused before anything is computed, and says what would do.
    let mars = format!("mars:{}", at("mars").display());
    for (data, options, message) in [
        (
            &plain,
            "--protocol video",
            "market1501 market is evaluated by market or multi-query",
        ),
        (
            &mars,
            "--protocol market",
            "mars mars is evaluated by video",
        ),
        (
            &data,
            "--protocol multi-query",
            "is evaluated by cuhk01 or market",
        ),
        (&data, "--rerank", "--rerank: a single-shot gallery"),
        (&plain, "--draws 0", "--draws: must be at least 1"),
        (&plain, "--protocol videos", "invalid value 'videos'"),
    ] {
        let more: Vec<&str> = options.split(' ').collect();
        let output = command(
            &[
                &["eval", "--run", "/no/run", "--data", data.as_str()],
                &more[..],
            ]
            .concat(),
        );
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{options}: {error}");
        assert!(error.contains(message), "{options}: {error}");
    }

    // Threshold at a stated false-accept rate: no more impostors reach it than the rate allows.
    let (query, gallery, _) = sides(&plain);
    let (mut genuine, mut impostors) = (Vec::new(), Vec::new());
    for (q, g) in query
        .iter()
        .flat_map(|q| gallery.iter().map(move |g| (q, g)))
    {
        if q.camera != g.camera {
            match q.pid == g.pid {
                true => genuine.push(cosine(q, g)),
                false => impostors.push(cosine(q, g)),
            }
        }
    }
    let file = at("market.npz").display().to_string();
    json(&["extract", "--run", &run, "--data", &plain, "--out", &file]);
    let arguments: [&[&str]; 2] = [&["rank", &file], &["eval", "--run", &run, "--data", &plain]];
    for arguments in arguments {
        let value = json(&[arguments, &["--far", "0.1,0.02"]].concat());
        let open = &value["open_set"];
        assert_eq!(
            (&open["genuine"], &open["impostors"]),
            (&genuine.len().into(), &impostors.len().into())
        );
        for (point, rate) in open["points"].as_array().unwrap().iter().zip([0.1, 0.02]) {
            let threshold = point["threshold"].as_f64().unwrap();
            let passes = |scores: &[f64]| scores.iter().filter(|s| **s >= threshold).count() as f64;
            let accepts = (rate * impostors.len() as f64).floor();
            assert_eq!(
                (passes(&impostors), point["fpr"].as_f64()),
                (accepts, Some(rate))
            );
            let share = passes(&genuine) / genuine.len() as f64;
            assert!(
                (point["tpr"].as_f64().unwrap() - share).abs() < 1e-9,
                "{point}"
            );
        }
        let text = command_ok(&[arguments, &["--fpr", "0.1"]].concat());
        assert!(
            text.contains("at a false-positive rate of 0.1: true-positive rate"),
            "{text}"
        );
    }
}
