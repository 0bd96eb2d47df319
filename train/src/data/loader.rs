//! Batches of pictures, made ahead on threads of their own and handed over in order.
//!
//! A thread makes a whole batch; what it makes follows from seed, epoch, batch, slot and view, so the number of threads
//! changes nothing but the time. Threads run ahead by a bounded number of batches; dropping the iterator ends them.
//!
//! Where the store tolerates pictures that cannot be read, a training batch takes others in their place and keeps its size;
//! they are noted as batches are handed over, in order, so that the threads don't decide which one was too many.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};
use image::RgbImage;
use reid_models::preprocess::Preprocess;

use super::DataError;
use super::augment::{Augment, Scratch, generator};
use super::corrupt::substitutes;
use super::store::PictureStore;

/// Threads and how far they run ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoaderConfig {
    /// Threads; at least 1.
    pub workers: usize,
    /// Finished batches that may wait.
    pub prefetch: usize,
}

impl Default for LoaderConfig {
    fn default() -> Self {
        LoaderConfig {
            workers: 2,
            prefetch: 4,
        }
    }
}

impl LoaderConfig {
    /// Threads that make batches for a network, 0 leaving it open. On the processor one keeps up with the network and leaves it
    /// the cores; a GPU needs one for launching and one for the driver, the rest is free.
    pub fn beside(on_gpu: bool, workers: usize) -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let workers = match (workers, on_gpu) {
            (0, false) => 1,
            (0, true) => cores.saturating_sub(2).max(1),
            (workers, _) => workers,
        };
        LoaderConfig {
            workers,
            prefetch: workers + 3,
        }
    }
}

/// What to load for an epoch.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Seed of the augmentation.
    pub seed: u64,
    /// Number of the epoch.
    pub epoch: u64,
    /// Picture indices of each batch, as [`PkSampler::epoch`](super::PkSampler::epoch) gives them.
    pub batches: Vec<Vec<usize>>,
    /// Label of every picture of the store; a batch's pictures must have one.
    pub labels: Arc<[Option<u32>]>,
    /// Views of each picture.
    pub views: Vec<Augment>,
}

/// One batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Its number in the epoch.
    pub number: usize,
    /// Pictures of the store.
    pub indices: Vec<usize>,
    /// Pictures of the plan that cannot be read: others stand in for them, or nothing (zeros) when extracting features.
    pub missing: Vec<usize>,
    /// Labels of the pictures.
    pub labels: Vec<u32>,
    /// Their cameras.
    pub cameras: Vec<u32>,
    /// One tensor per view: (N, 3, H, W), row-major.
    pub views: Vec<Vec<f32>>,
}

/// Pictures in order, for extracting features.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalBatch {
    /// Pictures of the store.
    pub indices: Range<usize>,
    /// Those of them that cannot be read, ascending: zeros stand for them.
    pub missing: Vec<usize>,
    /// Tensor (N, 3, H, W), row-major.
    pub pictures: Vec<f32>,
}

/// Loads the batches of an epoch.
///
/// # Panics
/// While iterating never; here if a batch names a picture that isn't in the store or has no label.
pub fn train_batches(store: &Arc<PictureStore>, plan: Plan, config: LoaderConfig) -> Batches {
    for index in plan.batches.iter().flatten() {
        assert!(
            plan.labels.get(*index).is_some_and(Option::is_some) && *index < store.len(),
            "picture {index} of a batch must be in the store and have a label"
        );
    }
    Batches::start(store, plan, config)
}

/// Loads all pictures in order, `size` at a time, without augmentation.
///
/// # Panics
/// If `size` is 0.
pub fn eval_batches(
    store: &Arc<PictureStore>,
    size: usize,
    config: LoaderConfig,
) -> impl Iterator<Item = Result<EvalBatch, DataError>> + use<> {
    let all: Vec<usize> = (0..store.len()).collect();
    let plan = Plan {
        seed: 0,
        epoch: 0,
        batches: all.chunks(size).map(<[usize]>::to_vec).collect(),
        labels: Vec::new().into(),
        views: vec![Augment::weak()],
    };
    Batches::start(store, plan, config).map(move |batch| {
        batch.map(|mut batch| EvalBatch {
            indices: batch.number * size..batch.number * size + batch.indices.len(),
            missing: batch.missing,
            pictures: batch.views.swap_remove(0),
        })
    })
}

/// A batch, or why there is none, and the pictures that could not be read on the way.
struct Made {
    batch: Result<Batch, DataError>,
    unreadable: Vec<(usize, DataError)>,
}

/// Iterator over the batches of an epoch; ends after the first error, which names the file.
pub struct Batches {
    /// `None` once finished: dropping it tells the threads.
    made: Option<Receiver<(usize, Made)>>,
    waiting: BTreeMap<usize, Made>,
    store: Arc<PictureStore>,
    next: usize,
    count: usize,
    threads: Vec<JoinHandle<()>>,
}

impl Batches {
    fn start(store: &Arc<PictureStore>, plan: Plan, config: LoaderConfig) -> Self {
        let count = plan.batches.len();
        let (sender, receiver) = bounded(config.prefetch.max(1));
        let (plan, taken) = (Arc::new(plan), Arc::new(AtomicUsize::new(0)));
        let threads = (0..config.workers.clamp(1, count.max(1)))
            .map(|_| {
                let (store, plan) = (store.clone(), plan.clone());
                let (taken, sender) = (taken.clone(), sender.clone());
                thread::spawn(move || work(&store, &plan, &taken, &sender))
            })
            .collect();
        Batches {
            made: Some(receiver),
            waiting: BTreeMap::new(),
            store: store.clone(),
            next: 0,
            count,
            threads,
        }
    }

    /// Batches in the epoch.
    pub fn count(&self) -> usize {
        self.count
    }

    fn note(&self, unreadable: &[(usize, DataError)]) -> Result<(), DataError> {
        let Some(corrupt) = self.store.corrupt() else {
            return Ok(());
        };
        unreadable
            .iter()
            .try_for_each(|(index, e)| corrupt.note(&self.store.samples()[*index].path, e))
    }

    fn stop(&mut self) {
        // Threads that wait to hand over a batch see the channel closed.
        self.made = None;
        self.waiting.clear();
        for thread in self.threads.drain(..) {
            // A panic has been reported as a missing batch already.
            let _ = thread.join();
        }
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let made = self.made.as_ref()?;
        if self.next == self.count {
            self.stop();
            return None;
        }
        let Made { batch, unreadable } = loop {
            if let Some(batch) = self.waiting.remove(&self.next) {
                break batch;
            }
            match made.recv() {
                Ok((number, batch)) => {
                    self.waiting.insert(number, batch);
                }
                // All threads are gone and the batch never came.
                Err(_) => {
                    break Made {
                        batch: Err(DataError::Worker { batch: self.next }),
                        unreadable: Vec::new(),
                    };
                }
            }
        };
        self.next += 1;
        let batch = self.note(&unreadable).and(batch);
        if batch.is_err() {
            self.stop();
        }
        Some(batch)
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        self.stop();
    }
}

fn work(store: &PictureStore, plan: &Plan, taken: &AtomicUsize, sender: &Sender<(usize, Made)>) {
    let mut tools = Tools {
        preprocess: Preprocess::new(store.spec()),
        scratch: Scratch::default(),
    };
    loop {
        let number = taken.fetch_add(1, Ordering::Relaxed);
        let Some(planned) = plan.batches.get(number) else {
            return;
        };
        let mut unreadable = Vec::new();
        let batch = make(store, plan, number, planned, &mut tools, &mut unreadable);
        if sender.send((number, Made { batch, unreadable })).is_err() {
            return;
        }
    }
}

/// What a thread keeps from picture to picture.
struct Tools {
    preprocess: Preprocess,
    scratch: Scratch,
}

fn make(
    store: &PictureStore,
    plan: &Plan,
    number: usize,
    planned: &[usize],
    tools: &mut Tools,
    unreadable: &mut Vec<(usize, DataError)>,
) -> Result<Batch, DataError> {
    let len = tools.preprocess.tensor_len();
    let mut views = vec![vec![0.0; len * planned.len()]; plan.views.len()];
    let mut indices = planned.to_vec();
    for slot in 0..planned.len() {
        let Some(picture) = readable(store, plan, planned, &mut indices, slot, tools, unreadable)?
        else {
            continue;
        };
        for (view, (augment, out)) in plan.views.iter().zip(&mut views).enumerate() {
            let mut rng = generator(
                plan.seed,
                plan.epoch,
                number as u64,
                slot as u32,
                view as u32,
            );
            let out = &mut out[slot * len..][..len];
            augment.apply(
                &picture,
                &mut rng,
                &mut tools.scratch,
                &tools.preprocess,
                out,
            );
        }
    }
    let bad = |i: &usize| unreadable.iter().any(|(index, _)| index == i);
    let mut missing: Vec<usize> = planned.iter().copied().filter(bad).collect();
    missing.sort_unstable();
    missing.dedup();
    Ok(Batch {
        number,
        missing,
        labels: indices
            .iter()
            .filter_map(|i| plan.labels.get(*i).copied().flatten())
            .collect(),
        cameras: indices.iter().map(|i| store.samples()[*i].camera).collect(),
        indices,
        views,
    })
}

/// The picture of a slot, or one in its place, whose number `indices` then has; `None` if there shall be none.
fn readable<'a>(
    store: &'a PictureStore,
    plan: &Plan,
    planned: &[usize],
    indices: &mut [usize],
    slot: usize,
    tools: &mut Tools,
    unreadable: &mut Vec<(usize, DataError)>,
) -> Result<Option<Cow<'a, RgbImage>>, DataError> {
    let error = match store.get(planned[slot], &mut tools.preprocess) {
        Ok(picture) => return Ok(Some(picture)),
        Err(error) => error,
    };
    let Some(corrupt) = store.corrupt() else {
        return Err(error);
    };
    unreadable.push((planned[slot], error));
    // Features are extracted of the pictures asked for, or of none.
    if plan.labels.is_empty() {
        return Ok(None);
    }
    for other in substitutes(&plan.labels, planned, indices, slot) {
        match store.get(other, &mut tools.preprocess) {
            Ok(picture) => {
                indices[slot] = other;
                return Ok(Some(picture));
            }
            Err(error) => unreadable.push((other, error)),
        }
        // Whoever takes the batch will find them too many: a disk that is gone must not be asked for every picture.
        if different(unreadable) > corrupt.limit() {
            break;
        }
    }
    Err(DataError::Malformed {
        path: store.samples()[planned[slot]].path.clone(),
        reason: "cannot be read, and neither can any picture in its place".into(),
    })
}

fn different(unreadable: &[(usize, DataError)]) -> usize {
    let indices: BTreeSet<usize> = unreadable.iter().map(|(index, _)| *index).collect();
    indices.len()
}

#[cfg(test)]
mod tests {
    use super::LoaderConfig;

    #[test]
    fn threads_are_as_asked_for() {
        assert_eq!(LoaderConfig::beside(false, 0).workers, 1);
        assert!(LoaderConfig::beside(true, 0).workers >= 1);
        let five = LoaderConfig::beside(false, 5);
        assert!(five.workers == 5 && five.prefetch > 5);
    }
}
