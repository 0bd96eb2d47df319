use reid_train::eval::pool::Pooling;
use reid_train::eval::temporal::{even, part_means};
use reid_train::eval::{Embeddings, Labels, evaluate};

use super::harness::*;

fn rows(values: &[f32]) -> Vec<&[f32]> {
    values.chunks_exact(12).collect()
}

#[test]
fn pictures_are_taken_evenly() {
    let golden = Golden::open("temporal");
    let lengths = golden.integers("even.batch.lengths");
    let want = golden.integers("even.mid.indices_centre");
    for (length, want) in lengths.iter().zip(want.chunks_exact(15)) {
        let got: Vec<i64> = even(*length as usize, 15)
            .iter()
            .map(|i| *i as i64)
            .collect();
        assert_eq!(got, want, "{length} pictures");
    }
}

#[test]
fn parts_of_tracklets() {
    let golden = Golden::open("temporal");
    for case in ["exact", "uneven7", "uneven16", "short2", "short1", "equal3"] {
        let frames = golden.values(&format!("{case}.batch.frames"));
        let parts = golden.number(&format!("{case}.hyper.parts")) as usize;
        let got: Vec<f32> = part_means(&rows(&frames), parts)
            .iter()
            .map(|x| *x as f32)
            .collect();
        near(
            case,
            &got,
            &golden.values(&format!("{case}.mid.concatenation")),
            1e-6,
        );
    }
    for (case, frames) in [
        ("uneven7_two", "uneven7"),
        ("uneven7_seven", "uneven7"),
        ("short2_one", "short2"),
    ] {
        let frames = golden.values(&format!("{frames}.batch.frames"));
        let parts = golden.number(&format!("{case}.hyper.parts")) as usize;
        let got: Vec<f32> = part_means(&rows(&frames), parts)
            .iter()
            .map(|x| *x as f32)
            .collect();
        near(
            case,
            &got,
            &golden.values(&format!("{case}.mid.concatenation")),
            1e-6,
        );
    }
    for case in ["long", "middle", "tiny2", "tiny1"] {
        let frames = golden.values(&format!("{case}.batch.frames"));
        let all = vec![(0..frames.len() / 12).collect::<Vec<usize>>()];
        let got = Pooling::EvenParts.pool(&frames, 12, &all);
        near(
            case,
            &got,
            &golden.values(&format!("{case}.mid.feature_centre")),
            1e-6,
        );
    }
}

#[test]
fn tracklets_are_compared() {
    let golden = Golden::open("temporal");
    let side = |name: &str| {
        let of = |what: &str| format!("evaluation.batch.{name}_{what}");
        let frames = golden.values(&of("frames"));
        let mut start = 0;
        let groups: Vec<Vec<usize>> = golden
            .integers(&of("lengths"))
            .into_iter()
            .map(|len| {
                let own = start..start + len as usize;
                start = own.end;
                own.collect()
            })
            .collect();
        let features = Pooling::EvenParts.pool(&frames, 12, &groups);
        let means = Pooling::Even.pool(&frames, 12, &groups);
        (
            features,
            means,
            golden.integers(&of("labels")),
            golden.integers(&of("cameras")),
        )
    };
    let (query, gallery) = (side("query"), side("gallery"));
    near(
        "query",
        &query.0,
        &golden.values("evaluation.mid.query_features"),
        1e-6,
    );
    near(
        "gallery",
        &gallery.0,
        &golden.values("evaluation.mid.gallery_features"),
        1e-6,
    );
    for (form, width) in [("concatenation", 36), ("mean", 12)] {
        let features = |side: &(Vec<f32>, Vec<f32>, Vec<i64>, Vec<i64>)| match form {
            "mean" => side.1.clone(),
            _ => side.0.clone(),
        };
        let (q, g) = (features(&query), features(&gallery));
        let result = evaluate(
            &Embeddings {
                features: &q,
                width,
                labels: Labels {
                    pids: &query.2,
                    cameras: &query.3,
                },
            },
            &Embeddings {
                features: &g,
                width,
                labels: Labels {
                    pids: &gallery.2,
                    cameras: &gallery.3,
                },
            },
        );
        let result = result.unwrap().result;
        let want = golden.number(&format!("evaluation.mid.map_{form}"));
        assert!(
            (result.map - want).abs() < 1e-6,
            "{form}: {} and {want}",
            result.map
        );
    }
}
