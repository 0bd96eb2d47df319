//! Networks, neighbours and evaluation with an emulated GPU in the processor's place.
//!
//! One test, in a process of its own: what takes the processor's place does so for all threads.
#![allow(clippy::unwrap_used)]

use candle_core::Device;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reid_gpu_emulator::Emulator;
use reid_gpu_emulator::twins::network::{NETWORKS, Trained, train};
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

fn all() -> Vec<Trained> {
    let one = |(_, backbone, pooling): &_| train(&Device::Cpu, *backbone, *pooling).unwrap();
    NETWORKS.iter().map(one).collect()
}

fn rows(count: usize, width: usize) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(9);
    let mut rows: Vec<f32> = (0..count * width)
        .map(|_| random.random::<f32>() - 0.5)
        .collect();
    for row in rows.chunks_mut(width) {
        let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        row.iter_mut().for_each(|x| *x /= norm);
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
    let (trained, near, ranking) = (all(), nearest(&unit, 20), evaluate(&side, &side).unwrap());

    // Small blocks, so that there are several.
    emulate(Precision::F32, 1 << 20);
    assert!(device::gpu().is_some());
    for ((name, ..), (a, b)) in NETWORKS.iter().zip(all().iter().zip(&trained)) {
        let (off, cosine) = a.distance(b);
        println!("{name}: f32 off by {off:.1e}, cosine {cosine:.7}");
        // Adam divides by the root of squared gradients: where these are rounding, so is the step.
        assert!(off < 2e-3 && cosine > 0.9999, "{name}: {off} {cosine}");
    }
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
    let first = all();
    for ((name, ..), (a, b)) in NETWORKS.iter().zip(first.iter().zip(&trained)) {
        let (off, cosine) = a.distance(b);
        println!("{name}: bf16 off by {off:.1e}, cosine {cosine:.5}");
        assert!(off < 0.1 && cosine > 0.98, "{name}: {off} {cosine}");
    }
    assert_eq!(first, all(), "the same bits again");
}
