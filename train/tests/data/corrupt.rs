//! Pictures that cannot be read, where a run tolerates some.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use reid_models::card::InputSpec;
use reid_train::data::loader::{eval_batches, train_batches};
use reid_train::data::{Augment, Batch, Corrupt, LoaderConfig, PictureStore};

use super::{all, load, plan};

/// 24 pictures of 6 people, the files that `broken` names cut short; at most `limit` may be.
fn store(dir: &Path, broken: &[&str], limit: usize) -> Arc<PictureStore> {
    super::store(dir, 24, 0);
    for name in broken {
        let path = dir.join(name);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    }
    let data = load(&format!("folder:{}", dir.display())).unwrap();
    let store = PictureStore::new(data.train, &InputSpec::imagenet(32, 16), 0).unwrap();
    Arc::new(store.tolerating(Arc::new(Corrupt::new(limit))))
}

fn number_of(store: &PictureStore, name: &str) -> usize {
    let named = |path: &Path| path.ends_with(name);
    store.samples().iter().position(|s| named(&s.path)).unwrap()
}

fn views() -> Vec<Augment> {
    vec![Augment::strong(), Augment::weak()]
}

#[test]
fn another_picture_of_the_person_stands_in_and_threads_do_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    let name = "0002_c3_008.png";
    let store = store(dir.path(), &[name], 1);
    let bad = number_of(&store, name);
    let planned = plan(&store, 1, views()).batches;
    let batches = all(&store, plan(&store, 1, views()), 1);
    assert_eq!(batches, all(&store, plan(&store, 1, views()), 4));
    let mut hit = 0;
    for (batch, planned) in batches.iter().zip(&planned) {
        assert_eq!(batch.indices.len(), planned.len());
        assert!(!batch.indices.contains(&bad));
        for (now, then) in batch.indices.iter().zip(planned) {
            assert!(
                now == then || *then == bad,
                "only the broken one is replaced"
            );
            assert_eq!(now / 4, then / 4, "by one of the same person");
        }
        assert_eq!(batch.missing.is_empty(), !planned.contains(&bad));
        hit += batch.missing.len();
        let shown: BTreeSet<_> = batch.views[1].chunks_exact(3 * 32 * 16).map(bits).collect();
        let different: BTreeSet<_> = batch.indices.iter().collect();
        assert_eq!(
            shown.len(),
            different.len(),
            "its picture is the one it names"
        );
    }
    assert!(hit > 0, "the broken picture was never drawn");
    assert_eq!(store.corrupt().unwrap().take_count(), 1);
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn a_person_without_a_readable_picture_makes_room_for_another() {
    let dir = tempfile::tempdir().unwrap();
    let broken = [
        "0002_c1_009.png",
        "0002_c2_010.png",
        "0002_c3_008.png",
        "0002_c3_011.png",
    ];
    let store = store(dir.path(), &broken, 4);
    for batch in all(&store, plan(&store, 1, views()), 2) {
        let people: Vec<&[u32]> = batch.labels.chunks(4).collect();
        assert_eq!(batch.labels.len(), 12);
        assert!(
            people.iter().all(|p| p[0] != 2 && *p == [p[0]; 4]),
            "{people:?}"
        );
        let different: BTreeSet<_> = people.iter().map(|p| p[0]).collect();
        assert_eq!(different.len(), 3, "still three people");
    }
}

#[test]
fn one_too_many_ends_the_epoch_with_all_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let broken = ["0002_c3_008.png", "0004_c2_016.png"];
    let run = |workers| -> Vec<Result<Batch, String>> {
        let store = store(dir.path(), &broken, 1);
        let config = LoaderConfig {
            workers,
            prefetch: 2,
        };
        train_batches(&store, plan(&store, 1, views()), config)
            .map(|b| b.map_err(|e| e.to_string()))
            .collect()
    };
    let alone = run(1);
    let message = alone.last().unwrap().as_ref().unwrap_err();
    for part in ["2 pictures", "data.max_corrupt = 1", broken[0], broken[1]] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(alone, run(4), "threads don't decide which one was too many");
}

#[test]
fn features_are_extracted_of_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let name = "0002_c3_008.png";
    let store = store(dir.path(), &[name], 1);
    let bad = number_of(&store, name);
    let mut missing = Vec::new();
    for batch in eval_batches(&store, 7, LoaderConfig::default()) {
        let batch = batch.unwrap();
        let pictures = batch.pictures.chunks_exact(3 * 32 * 16);
        for (index, picture) in batch.indices.clone().zip(pictures) {
            assert_eq!(picture.iter().all(|v| *v == 0.0), index == bad);
        }
        missing.extend(batch.missing);
    }
    assert_eq!(missing, [bad]);
}
