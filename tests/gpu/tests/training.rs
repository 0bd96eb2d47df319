//! Networks, neighbours and evaluation with an emulated GPU in the processor's place.
//!
//! One test, in a process of its own: what takes the processor's place does so for all threads.
#![allow(clippy::unwrap_used)]

use candle_core::Device;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reid_gpu_emulator::Emulator;
use reid_gpu_emulator::twins::network::{NETWORKS, Trained, train};
use reid_gpu_emulator::twins::rounding;
use reid_models::distance;
use reid_train::clustering::UnitRows;
use reid_train::clustering::knn::nearest;
use reid_train::eval::{Embeddings, Labels, evaluate};
use reid_train::nn::device;
use reid_train::nn::gpu::{Gpu, Precision, Settings};

fn emulate(precision: Precision, room: usize) -> &'static Gpu {
    let settings = Settings {
        precision,
        deterministic: true,
    };
    device::register(Gpu::new(Emulator::new(settings)).with_room(room))
}

fn all(nudge: f32) -> Vec<Trained> {
    let one =
        |(_, backbone, pooling): &_| train(&Device::Cpu, (*backbone, *pooling), nudge).unwrap();
    NETWORKS.iter().map(one).collect()
}

/// Holds trainings to `exact`, give or take a few times what `nudged` is off: these networks are steep (GeM over eight pixels
/// near 0 more than any), so a fixed bound would be blind for one or too narrow for another.
fn hold(what: &str, found: &[Trained], exact: &[Trained], nudged: &[Trained]) {
    for (((name, ..), found), (exact, nudged)) in
        NETWORKS.iter().zip(found).zip(exact.iter().zip(nudged))
    {
        let (off, allowed) = (found.distance(exact), nudged.distance(exact));
        println!("{name}: {what} off by {off:?}, a nudge by {allowed:?}");
        for (off, allowed) in off.iter().zip(allowed) {
            assert!(*off < 5.0 * allowed + 1e-5, "{name}: {what}");
        }
    }
}

fn rows(count: usize, width: usize) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(9);
    let mut rows: Vec<f32> = (0..count * width)
        .map(|_| random.random::<f32>() - 0.5)
        .collect();
    for row in rows.chunks_mut(width) {
        distance::normalize(row).unwrap();
    }
    // Two equal rows, far from the first.
    rows.copy_within(5 * width..6 * width, 900 * width);
    rows
}

#[test]
fn an_emulated_gpu_in_the_place_of_the_processor() {
    // Enough work to be given to a GPU.
    let (count, width) = (1100, 900);
    let features = rows(count, width);
    let unit = UnitRows::new(&features, width).unwrap();
    let pids: Vec<i64> = (0..count as i64).map(|i| i % 100).collect();
    let cameras: Vec<i64> = (0..count as i64).map(|i| i / 100 % 3).collect();
    let side = Embeddings {
        features: &features,
        width,
        labels: Labels {
            pids: &pids,
            cameras: &cameras,
        },
    };
    assert!(device::gpu().is_none());
    let trained = all(0.0);
    // What f32 and bf16 round off.
    let nudged = [Precision::F32, Precision::Bf16].map(|p| all(rounding(p)));
    let (near, ranking) = (nearest(&unit, 20), evaluate(&side, &side).unwrap());

    // Small blocks, so that there are several.
    emulate(Precision::F32, 1 << 20);
    assert!(device::gpu().is_some());
    hold("f32", &all(0.0), &trained, &nudged[0]);
    let found = nearest(&unit, 20);
    for i in 0..count {
        let (mut a, mut b) = (found.row(i).to_vec(), near.row(i).to_vec());
        assert_eq!(a[0], i as u32);
        a.sort_unstable();
        b.sort_unstable();
        // The last may be as near as the next one but for rounding.
        let common = a.iter().filter(|j| b.binary_search(j).is_ok()).count();
        assert!(common >= 19, "row {i}: {a:?} {b:?}");
        assert!((found.farthest_similarity(i) - near.farthest_similarity(i)).abs() < 1e-5);
    }
    assert_eq!(found.row(900)[..2], [900, 5]);
    let on_gpu = evaluate(&side, &side).unwrap();
    assert!((on_gpu.result.map - ranking.result.map).abs() < 1e-6);
    assert_eq!(on_gpu.result.rank1, ranking.result.rank1);

    emulate(Precision::Bf16, 1 << 28);
    let first = all(0.0);
    hold("bf16", &first, &trained, &nudged[1]);
    assert_eq!(first, all(0.0), "the same bits again");
}
