//! The gallery: what it keeps, what it refuses, what survives.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use reid_edge::gallery::{Gallery, GalleryConfig, GalleryError, NewPrototype};
use reid_edge::types::{IdentityId, TrackletId};

const WIDTH: usize = 8;

fn config(name: &str) -> GalleryConfig {
    GalleryConfig {
        path: name.into(),
        ..GalleryConfig::default()
    }
}

fn open(dir: &Path) -> Gallery {
    Gallery::open(&config("gallery.db"), dir, "model-a", WIDTH).unwrap()
}

fn axis(i: usize) -> Vec<f32> {
    let mut v = vec![0.1; WIDTH];
    v[i % WIDTH] = 1.0;
    v
}

fn prototype<'a>(embedding: &'a [f32], camera: &'a str, tracklet: u64) -> NewPrototype<'a> {
    NewPrototype {
        embedding,
        camera,
        time: 1.0,
        quality: 0.5,
        tracklet: TrackletId(tracklet),
    }
}

fn person(g: &mut Gallery, i: usize) -> IdentityId {
    let id = g.add_identity(i as f64, None).unwrap();
    g.add_prototype(id, prototype(&axis(i), "door", i as u64))
        .unwrap();
    g.put_sighting(
        id,
        TrackletId(i as u64),
        "door",
        i as f64,
        i as f64 + 2.0,
        "new",
        None,
    )
    .unwrap();
    id
}

#[test]
fn people_survive_closing_and_opening() {
    let dir = tempfile::tempdir().unwrap();
    let ids: Vec<IdentityId> = {
        let mut g = open(dir.path());
        (0..4).map(|i| person(&mut g, i)).collect()
    };
    let g = open(dir.path());
    assert_eq!(g.list().iter().map(|p| p.id).collect::<Vec<_>>(), ids);
    let found = g.search(&axis(2), 2).unwrap();
    assert_eq!(found[0].0, ids[2]);
    assert!(found[0].1 > 0.999 && found[1].1 < 0.5, "{found:?}");
    let seen = g.sightings(ids[1]).unwrap();
    assert_eq!(
        (seen[0].camera.as_str(), seen[0].start, seen[0].end),
        ("door", 1.0, 3.0)
    );
}

#[test]
fn every_camera_keeps_a_part_of_a_full_profile() {
    let dir = tempfile::tempdir().unwrap();
    let mut g = open(dir.path());
    let id = g.add_identity(0.0, Some("Ada")).unwrap();
    g.add_prototype(id, prototype(&axis(0), "door", 0)).unwrap();
    for i in 0..40 {
        let mut v = axis(1);
        v[2] = i as f32 / 40.0;
        g.add_prototype(id, prototype(&v, "hall", 1)).unwrap();
    }
    let profile = g.profile(id).unwrap();
    assert_eq!(profile.prototypes.len(), 8);
    assert_eq!(
        profile
            .prototypes
            .iter()
            .filter(|p| p.camera == "door")
            .count(),
        1
    );
    let again = open(dir.path());
    assert_eq!(again.profile(id).unwrap().prototypes.len(), 8);
    assert_eq!(again.profile(id).unwrap().label.as_deref(), Some("Ada"));
}

#[test]
fn what_is_no_embedding_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut g = open(dir.path());
    let id = g.add_identity(0.0, None).unwrap();
    let mut nan = axis(0);
    nan[3] = f32::NAN;
    for bad in [
        nan,
        vec![0.0; WIDTH],
        vec![f32::INFINITY; WIDTH],
        vec![1.0; 3],
    ] {
        assert!(g.add_prototype(id, prototype(&bad, "door", 0)).is_err());
        assert!(g.search(&bad, 1).is_err());
    }
    assert_eq!(g.prototypes(), 0);
    let stranger = IdentityId(uuid::Uuid::nil());
    assert!(matches!(
        g.add_prototype(stranger, prototype(&axis(0), "door", 0)),
        Err(GalleryError::Unknown(id)) if id == stranger
    ));
}

#[test]
fn another_models_gallery_is_refused_with_a_way_out() {
    let dir = tempfile::tempdir().unwrap();
    person(&mut open(dir.path()), 0);
    for (fingerprint, width) in [("model-b", WIDTH), ("model-a", 16)] {
        let error = Gallery::open(&config("gallery.db"), dir.path(), fingerprint, width)
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("gallery.db") && error.contains("move this one away"),
            "{error}"
        );
    }
    assert_eq!(open(dir.path()).len(), 1);
}

#[test]
fn unusable_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("text.db"),
        "no database, but long enough to be looked at ".repeat(20),
    )
    .unwrap();
    let error = |c: &GalleryConfig| Gallery::open(c, dir.path(), "m", WIDTH).err().unwrap();
    assert!(matches!(
        error(&config("text.db")),
        GalleryError::Corrupt { .. }
    ));
    assert!(matches!(
        error(&config("/proc/nowhere/g.db")),
        GalleryError::Access { .. }
    ));
    let alien = rusqlite::Connection::open(dir.path().join("alien.db")).unwrap();
    alien
        .execute_batch("CREATE TABLE song(title TEXT)")
        .unwrap();
    assert!(
        error(&config("alien.db"))
            .to_string()
            .contains("another program")
    );
    drop(open(dir.path()));
    let newer = rusqlite::Connection::open(dir.path().join("gallery.db")).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(
        error(&config("gallery.db")),
        GalleryError::Version { found: 99, .. }
    ));
    let none = GalleryConfig {
        max_prototypes: 0,
        ..config("g.db")
    };
    assert!(
        error(&none)
            .to_string()
            .contains("gallery.max_prototypes = 0")
    );
}

#[test]
fn a_damaged_page_is_found_at_opening() {
    let dir = tempfile::tempdir().unwrap();
    {
        let mut g = open(dir.path());
        for i in 0..200 {
            person(&mut g, i);
        }
    }
    let path = dir.path().join("gallery.db");
    let mut bytes = std::fs::read(&path).unwrap();
    for page in bytes.chunks_mut(4096).skip(4) {
        page[..64].fill(0xA5);
    }
    std::fs::write(&path, bytes).unwrap();
    let error = Gallery::open(&config("gallery.db"), dir.path(), "model-a", WIDTH)
        .err()
        .unwrap();
    assert!(matches!(error, GalleryError::Corrupt { .. }), "{error}");
}

#[test]
fn a_failed_batch_leaves_no_trace_in_memory_or_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut g = open(dir.path());
    let known = person(&mut g, 0);
    let failed: Result<(), GalleryError> = g.batch(|g| {
        let id = g.add_identity(5.0, None)?;
        g.add_prototype(id, prototype(&axis(3), "door", 9))?;
        g.add_prototype(known, prototype(&[f32::NAN; WIDTH], "door", 9))
            .map(|_| ())
    });
    assert!(failed.is_err());
    assert_eq!((g.len(), g.prototypes()), (1, 1));
    assert_eq!(g.search(&axis(3), 5).unwrap().len(), 1);
    drop(g);
    assert_eq!(open(dir.path()).len(), 1);
}

#[test]
fn forgetting_proves_that_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let mut g = open(dir.path());
    let (a, b, c) = (person(&mut g, 0), person(&mut g, 1), person(&mut g, 2));
    g.batch(|g| g.merge(b, a)).unwrap();
    assert_eq!(g.resolve(b).unwrap(), Some(a));
    assert_eq!(g.sightings(a).unwrap().len(), 2);
    let proof = g.forget(a).unwrap();
    assert_eq!(
        (proof.prototypes, proof.sightings, proof.rows_left),
        (2, 2, 0)
    );
    for gone in [a, b] {
        assert_eq!(g.rows_about(gone).unwrap(), 0);
        assert_eq!(g.resolve(gone).unwrap(), None);
    }
    assert!(matches!(g.forget(a), Err(GalleryError::Unknown(_))));
    assert_eq!(
        g.search(&axis(0), 9)
            .unwrap()
            .iter()
            .map(|h| h.0)
            .collect::<Vec<_>>(),
        [c]
    );
    // Not a byte of it in the files either.
    let needle: Vec<u8> = a.to_string().into_bytes();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(needle.len()).any(|w| w == needle));
    }
    drop(g);
    assert_eq!(open(dir.path()).len(), 1);
}

#[test]
fn the_graph_answers_as_the_scan_does_when_a_gallery_grows() {
    let dir = tempfile::tempdir().unwrap();
    let small = GalleryConfig {
        exact_below: 20,
        ..config("gallery.db")
    };
    let mut g = Gallery::open(&small, dir.path(), "model-a", WIDTH).unwrap();
    let mut ids = Vec::new();
    g.batch(|g| {
        for i in 0..60 {
            let id = g.add_identity(0.0, None)?;
            let mut v = axis(i);
            v[(i / 8) % WIDTH] += 0.3 + i as f32 * 0.01;
            g.add_prototype(id, prototype(&v, "door", i as u64))?;
            ids.push((id, v));
        }
        Ok::<_, GalleryError>(())
    })
    .unwrap();
    for (id, _) in &ids[..10] {
        g.forget(*id).unwrap();
    }
    let exact = open(dir.path());
    for (_, v) in &ids {
        let (a, b) = (g.search(v, 5).unwrap(), exact.search(v, 5).unwrap());
        assert_eq!(a.len(), 5);
        for (x, y) in a.iter().zip(&b) {
            assert!((x.1 - y.1).abs() < 1e-5);
        }
    }
}

/// Set in the process that is killed below: folder to write to.
const VICTIM: &str = "REID_TEST_GALLERY_VICTIM";

#[test]
fn a_killed_process_loses_nothing_it_acknowledged() {
    use std::io::BufRead;
    if let Ok(dir) = std::env::var(VICTIM) {
        let mut g = open(Path::new(&dir));
        for i in 0.. {
            let id = g
                .batch(|g| {
                    let id = g.add_identity(0.0, None)?;
                    g.add_prototype(id, prototype(&axis(i), "door", 0))
                        .map(|_| id)
                })
                .unwrap();
            println!("kept {id}");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "a_killed_process_loses_nothing_it_acknowledged",
            "--exact",
            "--nocapture",
        ])
        .env(VICTIM, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let mut kept = Vec::new();
    for line in lines {
        // The harness prints in front of the first line.
        if let Some(at) = line.as_ref().unwrap().find("kept ") {
            kept.push(line.unwrap()[at + 5..].to_owned());
        }
        if kept.len() == 25 {
            child.kill().unwrap();
            break;
        }
    }
    child.wait().unwrap();
    let g = open(dir.path());
    for id in &kept {
        let id = IdentityId(uuid::Uuid::parse_str(id).unwrap());
        assert_eq!(g.profile(id).unwrap().prototypes.len(), 1, "{id}");
    }
    assert!(g.list().iter().all(|p| p.prototypes.len() == 1));
}

#[test]
fn a_full_disk_is_an_error_and_what_was_kept_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mut g = open(dir.path());
    person(&mut g, 0);
    // As many pages as there are now, no more: what SQLite sees when a disk is full.
    g.limit_pages().unwrap();
    let mut kept = 1;
    let error = loop {
        match g.batch(|g| g.add_identity(0.0, Some(&"x".repeat(4_000)))) {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 1_000, "the limit has no effect");
    };
    assert!(matches!(error, GalleryError::Full { .. }), "{error}");
    assert_eq!(g.len(), kept);
    drop(g);
    assert_eq!(open(dir.path()).len(), kept);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn reopening_changes_no_answer(
        vectors in prop::collection::vec(prop::collection::vec(-1.0f32..1.0, WIDTH), 1..12),
        query in prop::collection::vec(-1.0f32..1.0, WIDTH),
    ) {
        let norm = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>();
        prop_assume!(norm(&query) > 0.01 && vectors.iter().all(|v| norm(v) > 0.01));
        let dir = tempfile::tempdir().unwrap();
        let mut g = open(dir.path());
        for (i, v) in vectors.iter().enumerate() {
            let id = g.add_identity(i as f64, None).unwrap();
            g.add_prototype(id, prototype(v, "door", 0)).unwrap();
        }
        let before = g.search(&query, 5).unwrap();
        prop_assert!(before.iter().all(|(_, s)| (-1.0..=1.0).contains(s)));
        prop_assert!(before.windows(2).all(|w| w[0].1 >= w[1].1));
        drop(g);
        prop_assert_eq!(open(dir.path()).search(&query, 5).unwrap(), before);
    }
}
