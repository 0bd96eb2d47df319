//! What `reid-gpu` measures, each as one JSON object: the other side is `tests/gpu/peers.py`.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use candle_core::Tensor;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reid_models::backbones::BackboneConfig;
use reid_models::card::InputSpec;
use reid_models::distance;
use reid_train::clustering::UnitRows;
use reid_train::clustering::knn::{nearest_here, nearest_on};
use reid_train::data::loader::{LoaderConfig, Plan, train_batches};
use reid_train::data::{Augment, PictureStore, Spec, dataset};
use reid_train::nn::device::{self, Feed, Opened};
use reid_train::nn::optim::{Adam, AdamConfig, ParamGroup};
use reid_train::nn::{Mode, Net, backward};
use serde_json::{Value, json};

/// Steps before the clock starts: choosing algorithms, filling the pool of memory.
const WARM_UP: usize = 10;

/// Training steps of ResNet-50 (stride 2 in the last stage, 256 x 128) with Adam, for about so many seconds; every step takes
/// its batch from the host.
///
/// # Errors
/// If the device refuses.
pub fn step(opened: &Opened, batch: usize, seconds: f64) -> Result<Value> {
    let config = BackboneConfig {
        last_stride: 2,
        ..BackboneConfig::default()
    };
    let net = Net::new(config.build()?, 1, &opened.device)?;
    let mut adam = Adam::new(
        vec![ParamGroup::new(net.trainable())],
        AdamConfig::default(),
    )?;
    let mut feed = Feed::new(&opened.device)?;
    let [_, height, width] = net.graph().input_shape;
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut values =
        |count: usize| -> Vec<f32> { (0..count).map(|_| random.random::<f32>() - 0.5).collect() };
    let images = values(batch * 3 * height * width);
    let target = Tensor::from_vec(values(batch * 2048), (batch, 2048), &opened.device)?;
    // As the trainer does: the next batch goes up while the device computes.
    let mut next = || feed.copy(&images, &[batch, 3, height, width]);
    let mut coming = next()?;
    let mut one = || -> Result<f64> {
        let images = coming.clone();
        let y = net.forward(&images, Mode::Train, &["neck"])?;
        let loss = (&y["neck"] * &target)?.mean_all()?;
        let grads = backward(&loss)?;
        let norm = adam.step_later(&grads, 1e-5)?;
        coming = next()?;
        Ok(norm.read()?)
    };
    for _ in 0..WARM_UP {
        one()?;
    }
    device::peak_memory(&opened.device)?;
    let (start, mut steps) = (Instant::now(), 0);
    while start.elapsed().as_secs_f64() < seconds {
        ensure!(one()?.is_finite(), "the gradient is not finite");
        steps += 1;
    }
    let took = start.elapsed().as_secs_f64();
    Ok(json!({
        "device": opened.description,
        "images_per_second": (steps * batch) as f64 / took,
        "milliseconds": 1e3 * took / steps as f64,
        "own_bytes": device::peak_memory(&opened.device)?,
    }))
}

/// Exact nearest neighbours of random unit rows; against the processor's with `compare`.
///
/// # Errors
/// If no GPU is open or it has not enough memory.
pub fn neighbours(rows: usize, width: usize, k: usize, compare: bool) -> Result<Value> {
    let gpu = device::gpu().context("--device: neighbours wants a GPU")?;
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let mut features: Vec<f32> = (0..rows * width)
        .map(|_| random.random::<f32>() - 0.5)
        .collect();
    for row in features.chunks_exact_mut(width) {
        distance::normalize(row)?;
    }
    let unit = UnitRows::new(&features, width)?;
    nearest_on(gpu, &unit, k)?;
    let start = Instant::now();
    let found = nearest_on(gpu, &unit, k)?;
    let seconds = start.elapsed().as_secs_f64();
    let mut result = json!({"rows": rows, "width": width, "k": k, "seconds": seconds});
    if compare {
        let start = Instant::now();
        let here = nearest_here(&unit, k);
        result["processor_seconds"] = json!(start.elapsed().as_secs_f64());
        let same = (0..rows).filter(|i| {
            let (mut a, mut b) = (found.row(*i).to_vec(), here.row(*i).to_vec());
            a.sort_unstable();
            b.sort_unstable();
            a == b
        });
        result["equal_rows"] = json!(same.count());
    }
    Ok(result)
}

/// Batches of a data set's training pictures, decoded from files, augmented in three views (two strong, one weak, as ICE has
/// them) at 256 x 128, by so many threads.
///
/// # Errors
/// If the data can't be read.
pub fn loader(data: &str, workers: usize, batches: usize) -> Result<Value> {
    let dataset = dataset::load(&data.parse::<Spec>()?)?;
    let spec = InputSpec::imagenet(256, 128);
    // No cache: every picture is read and decoded, as in the first epoch of a large data set.
    let store = Arc::new(PictureStore::new(dataset.train, &spec, 0)?);
    let strong = Augment {
        flip: 0.5,
        pad: 10,
        blur: 0.5,
        erasing: 0.6,
        ..Augment::weak()
    };
    let batch = 64;
    let plan = Plan {
        seed: 1,
        epoch: 0,
        batches: (0..batches)
            .map(|b| {
                (0..batch)
                    .map(|i| (b * batch + i * 7) % store.len())
                    .collect()
            })
            .collect(),
        labels: vec![Some(0); store.len()].into(),
        views: vec![strong.clone(), strong, Augment::weak()],
    };
    let config = LoaderConfig {
        workers,
        prefetch: workers + 3,
    };
    let (start, mut pictures) = (Instant::now(), 0);
    for made in train_batches(&store, plan, config) {
        pictures += made?.indices.len();
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(json!({
        "workers": workers,
        "pictures_per_second": pictures as f64 / seconds,
        "views_per_second": 3.0 * pictures as f64 / seconds,
    }))
}
