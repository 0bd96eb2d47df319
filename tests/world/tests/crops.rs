//! The crops command from outside: layout, determinism, truth, errors.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use reid_world::crops::{CropsConfig, Labels, Plan, Split, make};
use reid_world::market::{Label, parse_name};
use reid_world::{Domain, WORLD_VERSION};

fn small(seed: u64) -> CropsConfig {
    let mut config = CropsConfig::preset("bench", Domain::Street, seed).unwrap();
    config.ids = 24;
    config.cameras = 4;
    config.twins = 0.3;
    config
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for split in ["bounding_box_train", "query", "bounding_box_test"] {
        for entry in fs::read_dir(dir.join(split)).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{split}/{}", path.file_name().unwrap().to_string_lossy());
            all.insert(name, fs::read(path).unwrap());
        }
    }
    for name in ["keypoints.jsonl", "world.json"] {
        all.insert(name.to_owned(), fs::read(dir.join(name)).unwrap());
    }
    all
}

fn world(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_reid-world"))
        .args(args)
        .output()
        .unwrap()
}

#[test]
fn same_seed_same_bytes_whatever_the_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str, threads: usize, seed: u64| {
        let out = dir.path().join(name);
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap()
            .install(|| make(&small(seed), &out, &|| {}))
            .unwrap();
        files(&out)
    };
    let one = run("one", 1, 5);
    assert!(one == run("three", 3, 5));
    let other = run("other", 2, 6);
    assert!(one != other);
}

#[test]
fn nobody_is_seen_by_more_cameras_than_asked() {
    let mut config = small(3);
    let most = |config: &CropsConfig| {
        let plan = Plan::new(config);
        let seen = plan.identities.iter().map(|i| i.cameras.len());
        (seen.clone().min().unwrap(), seen.max().unwrap())
    };
    assert_eq!(most(&config), (2, 4), "all four cameras");
    config.seen_by = 2;
    assert_eq!(most(&config), (2, 2));
    config.seen_by = 1;
    let error = config.check().unwrap_err().to_string();
    assert!(error.contains("--seen-by"), "{error}");
}

#[test]
fn the_layout_holds() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("w");
    let config = small(1);
    let report = make(&config, &out, &|| {}).unwrap();
    let mut labels: BTreeMap<&str, Vec<Label>> = BTreeMap::new();
    for (name, bytes) in files(&out) {
        let Some((split, file)) = name.split_once('/') else {
            continue;
        };
        let label = parse_name(file).unwrap_or_else(|| panic!("{name}"));
        let size = image::load_from_memory(&bytes).unwrap();
        assert_eq!((size.width(), size.height()), (64, 128), "{name}");
        assert!((1..=4).contains(&label.camera), "{name}");
        let split = ["bounding_box_train", "query", "bounding_box_test"]
            .into_iter()
            .find(|s| *s == split)
            .unwrap();
        labels.entry(split).or_default().push(label);
    }
    let pids = |split: &str| {
        labels[split]
            .iter()
            .map(|l| l.pid)
            .collect::<BTreeSet<i32>>()
    };
    let (train, query, gallery) = (
        pids("bounding_box_train"),
        pids("query"),
        pids("bounding_box_test"),
    );
    assert_eq!(train.len(), 12);
    assert_eq!(query.len(), 12);
    assert!(train.is_disjoint(&gallery) && train.is_disjoint(&query));
    assert!(query.is_subset(&gallery));
    assert!(gallery.contains(&0) && gallery.contains(&-1));
    assert!(train.iter().chain(&query).all(|pid| *pid > 0));
    // One query for each identity and camera, and a right answer in another camera for each.
    let mut seen = BTreeSet::new();
    for label in &labels["query"] {
        assert!(seen.insert((label.pid, label.camera)), "{label:?} twice");
        assert!(
            labels["bounding_box_test"]
                .iter()
                .any(|g| g.pid == label.pid && g.camera != label.camera)
        );
    }
    assert_eq!(report.train, labels["bounding_box_train"].len());
    assert_eq!(report.query, labels["query"].len());
    assert_eq!(report.gallery, labels["bounding_box_test"].len());
    let truth: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("world.json")).unwrap()).unwrap();
    assert_eq!(truth["version"], WORLD_VERSION);
    assert_eq!(truth["parameters"]["seed"], 1);
    assert_eq!(truth["parameters"]["domain"], "street");
    assert_eq!(truth["people"].as_array().unwrap().len(), 24);
}

#[test]
fn attributes_are_shared_by_many_and_tell_nobody_apart() {
    let mut config = CropsConfig::preset("bench", Domain::Mall, 101).unwrap();
    let people = Plan::new(&config);
    config.labels = Labels::Attributes;
    let plan = Plan::new(&config);
    let mut sizes = BTreeMap::<i32, usize>::new();
    for identity in &plan.identities {
        let (number, words) = identity.attributes.as_ref().unwrap();
        assert!(words.contains(" above "), "{words}");
        *sizes.entry(*number).or_default() += 1;
    }
    assert!((20..=70).contains(&sizes.len()), "{} classes", sizes.len());
    assert!(*sizes.values().max().unwrap() >= 20, "{sizes:?}");
    // The same pictures in the same order, under the other names, none twice.
    assert_eq!(plan.jobs.len(), people.jobs.len());
    let mut names = BTreeSet::new();
    for (job, person) in plan.jobs.iter().zip(&people.jobs) {
        assert_eq!((job.split, job.camera), (person.split, person.camera));
        let want = match usize::try_from(person.pid) {
            Ok(pid @ 1..) => plan.identities[pid - 1].attributes.as_ref().unwrap().0,
            _ => person.pid,
        };
        assert_eq!(job.pid, want);
        assert!(names.insert((format!("{:?}", job.split), job.file_name())));
    }
}

#[test]
fn the_default_benchmark_has_its_size_and_near_twins_stay_in_one_split() {
    let plan = Plan::new(&CropsConfig::preset("bench", Domain::Street, 1).unwrap());
    let count = |split: Split| plan.jobs.iter().filter(|job| job.split == split).count();
    assert!(
        (3300..=4500).contains(&count(Split::Train)),
        "{}",
        count(Split::Train)
    );
    assert!(
        (500..=750).contains(&count(Split::Query)),
        "{}",
        count(Split::Query)
    );
    assert!(
        (2800..=4000).contains(&count(Split::Gallery)),
        "{}",
        count(Split::Gallery)
    );
    let names: BTreeSet<String> = plan
        .jobs
        .iter()
        .map(|j| format!("{:?}/{}", j.split, j.file_name()))
        .collect();
    assert_eq!(names.len(), plan.jobs.len(), "two pictures of one name");
    let twins: Vec<_> = plan
        .identities
        .iter()
        .filter(|i| i.twin_of.is_some())
        .collect();
    assert!((10..=60).contains(&twins.len()), "{} twins", twins.len());
    for twin in twins {
        let other = plan
            .identities
            .iter()
            .find(|i| Some(i.pid) == twin.twin_of)
            .unwrap();
        assert_eq!(other.split, twin.split);
    }
    assert!(
        plan.identities
            .iter()
            .all(|i| (2..=5).contains(&i.cameras.len()))
    );
}

#[test]
fn keypoints_lie_in_their_pictures_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("w");
    make(&small(2), &out, &|| {}).unwrap();
    let text = fs::read_to_string(out.join("keypoints.jsonl")).unwrap();
    let (mut inside, mut all, mut upright, mut people) = (0, 0, 0, 0);
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let file = line["file"].as_str().unwrap();
        assert!(out.join(file).is_file());
        let read =
            |key: &str| -> Vec<[f64; 3]> { serde_json::from_value(line[key].clone()).unwrap() };
        let (coco, body) = (read("coco"), read("body25"));
        assert_eq!((coco.len(), body.len()), (17, 25));
        for [x, y, seen] in coco.iter().chain(&body) {
            assert!(
                (0.0..=64.0).contains(x) && (0.0..=128.0).contains(y),
                "{file}"
            );
            if *seen == 0.0 {
                assert!(*x == 0.0 && *y == 0.0);
            }
        }
        if file.contains("/-1_") || file.contains("/0000_") {
            continue;
        }
        people += 1;
        all += 17;
        inside += coco.iter().filter(|k| k[2] > 0.0).count();
        let (neck, ankle) = (body[1], body[11]);
        upright += usize::from(neck[2] == 0.0 || ankle[2] == 0.0 || neck[1] < ankle[1]);
    }
    assert!(people > 100);
    assert!(inside as f64 > 0.9 * all as f64, "{inside} of {all}");
    assert_eq!(upright, people);
}

#[test]
fn bad_usage_exits_with_2_and_names_what_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("w");
    let out = out.to_str().unwrap();
    for (args, words) in [
        (
            vec!["--preset", "huge"],
            vec!["--preset huge", "bench, bench-large"],
        ),
        (
            vec!["--domain", "moon"],
            vec!["--domain moon", "street, mall, station"],
        ),
        (vec!["--size", "64"], vec!["--size 64", "WIDTHxHEIGHT"]),
        (
            vec!["--size", "0x0"],
            vec!["--size 0x0", "16x32 to 512x1024"],
        ),
        (vec!["--cameras", "12"], vec!["--cameras 12", "2 to 9"]),
        (vec!["--ids", "1"], vec!["--ids 1", "4 to 9998"]),
        (vec!["--idz", "1"], vec!["--idz"]),
    ] {
        let output = world(&[&["crops", "--out", out][..], &args].concat());
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
        for word in words {
            assert!(message.contains(word), "{args:?}: {message}");
        }
    }
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        0,
        "nothing may be left"
    );
}

#[test]
fn a_place_that_cannot_be_written_exits_with_1_and_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "mine").unwrap();
    // A folder below a file cannot be made by anybody, root included.
    for out in [file.clone(), file.join("below")] {
        let output = world(&["crops", "--out", out.to_str().unwrap(), "--ids", "4"]);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains(out.to_str().unwrap()), "{message}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
}

#[test]
fn baseline_reads_what_crops_wrote_and_probe_writes_sixteen() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("w");
    let path = out.to_str().unwrap();
    let made = world(&["crops", "--out", path, "--ids", "30", "--json"]);
    assert!(made.status.success());
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    let scored = world(&["baseline", "--data", path, "--json"]);
    assert!(scored.status.success());
    let scores: serde_json::Value = serde_json::from_slice(&scored.stdout).unwrap();
    assert_eq!(scores["queries"], made["query"]);
    let rank1 = scores["rank1"].as_f64().unwrap();
    assert!(rank1 > 0.0 && rank1 < 0.9, "{rank1}");

    let missing = world(&["baseline", "--data", dir.path().to_str().unwrap()]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("query"));

    let probe = dir.path().join("probe");
    assert!(
        world(&["probe", "--out", probe.to_str().unwrap()])
            .status
            .success()
    );
    let pictures: Vec<Vec<u8>> = (0..16)
        .map(|i| {
            image::open(probe.join(format!("probe_{i:02}.png")))
                .unwrap()
                .to_rgb8()
                .into_raw()
        })
        .collect();
    assert!(pictures.iter().all(|p| p.len() == 64 * 128 * 3));
    assert_eq!(pictures.iter().collect::<BTreeSet<_>>().len(), 16);
}
