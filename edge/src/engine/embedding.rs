//! Threads that embed crops, each with a session of its own.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use reid_models::picture::{Picture, Pixels};
use reid_models::preprocess::PixelBox;

use super::EngineError;
use super::board::{Board, Due};
use crate::embed::{Appearance, EmbedError};

/// A crop: a box in a picture.
pub(super) type Crop = (Arc<Picture>, PixelBox);

/// Some crops of one step.
struct Job {
    /// Number of the step, and of the crop the job begins with.
    at: (u64, usize),
    crops: Vec<Crop>,
}

/// Their embeddings, in order.
pub(super) struct Embedded {
    pub(super) at: (u64, usize),
    pub(super) embeddings: Result<Vec<Vec<f32>>, EmbedError>,
    /// Time of the model and its preprocessing, seconds.
    pub(super) secs: f64,
}

/// How crops are put together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batching {
    /// Most crops run at once.
    pub(super) most: usize,
    /// Longest wait for more; 0: jobs are run as they were given, which a replay wants that must repeat.
    pub(super) wait: Duration,
}

/// Embedding threads.
pub(super) struct Embedding {
    pub(super) done: Receiver<Embedded>,
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
    most: usize,
}

impl Embedding {
    /// Starts a thread per embedder. At most `in_flight` steps may be given before their embeddings are received.
    pub(super) fn start(
        embedders: Vec<Box<dyn Appearance>>,
        batching: Batching,
        in_flight: usize,
        board: &Board,
    ) -> Result<Self, EngineError> {
        // A step has rarely more crops than that; more only means that handing them over waits for a free thread.
        let room = 64 * in_flight;
        let (jobs, given) = bounded::<Job>(room);
        // No more results than jobs of the steps under way. A bound would stand in the way of a crowd: who hands over jobs is
        // who takes results, and must never wait for a thread that waits for him.
        let (results, done) = unbounded();
        let most = embedders.first().map_or(1, |e| e.most()).min(batching.most);
        let mut embedding = Embedding {
            done,
            jobs: Some(jobs),
            threads: Vec::new(),
            most,
        };
        for (i, mut embedder) in embedders.into_iter().enumerate() {
            let (given, results, board) = (given.clone(), results.clone(), board.clone());
            let mut due = Due::default();
            let thread = std::thread::Builder::new()
                .name(format!("embed-{i}"))
                .spawn(move || {
                    board.write("embedder", embedder.description(), embedder.status());
                    while let Ok(job) = given.recv() {
                        let jobs = gather(job, &given, most, batching.wait);
                        if run(&mut *embedder, jobs, &results).is_none() {
                            return;
                        }
                        if due.is_due() {
                            board.write("embedder", embedder.description(), embedder.status());
                        }
                    }
                })
                .map_err(EngineError::Thread)?;
            embedding.threads.push(thread);
        }
        Ok(embedding)
    }

    /// Hands over the crops of a step, spread evenly over the threads.
    pub(super) fn give(&self, step: u64, mut crops: Vec<Crop>) {
        let Some(jobs) = &self.jobs else { return };
        let share = crops.len().div_ceil(self.threads.len().max(1));
        let share = share.clamp(1, self.most.max(1));
        let mut first = 0;
        while !crops.is_empty() {
            let rest = crops.split_off(share.min(crops.len()));
            let count = crops.len();
            // Threads end only when this sender is gone.
            let _ = jobs.send(Job {
                at: (step, first),
                crops: std::mem::replace(&mut crops, rest),
            });
            first += count;
        }
    }

    /// Crops that wait for a thread.
    pub(super) fn waiting(&self) -> usize {
        self.jobs.as_ref().map_or(0, Sender::len)
    }
}

impl Drop for Embedding {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("an embedding thread panicked");
            }
        }
    }
}

/// Takes more jobs, of whatever camera, until the batch is full or nothing comes.
fn gather(first: Job, given: &Receiver<Job>, most: usize, wait: Duration) -> Vec<Job> {
    let mut count = first.crops.len();
    let mut jobs = vec![first];
    if wait.is_zero() || most <= 1 {
        return jobs;
    }
    let until = Instant::now() + wait;
    while count < most {
        let Ok(job) = given.recv_deadline(until) else {
            break;
        };
        count += job.crops.len();
        jobs.push(job);
    }
    jobs
}

/// Embeds jobs together; `None` if the thread is to end: the model failed, or nobody wants the results any more.
fn run(embedder: &mut dyn Appearance, jobs: Vec<Job>, results: &Sender<Embedded>) -> Option<()> {
    let began = Instant::now();
    let crops: Vec<(Pixels<'_>, Option<PixelBox>)> = jobs
        .iter()
        .flat_map(|j| &j.crops)
        .map(|(picture, at)| (Pixels::from(&**picture), Some(*at)))
        .collect();
    let outcome = embedder.embed(&crops);
    let share = began.elapsed().as_secs_f64() / crops.len().max(1) as f64;
    let mut all = match outcome {
        Ok(all) => all.into_iter(),
        Err(e) => {
            let _ = results.send(Embedded {
                at: jobs.first()?.at,
                embeddings: Err(e),
                secs: 0.0,
            });
            return None;
        }
    };
    for job in jobs {
        let count = job.crops.len();
        let embedded = Embedded {
            at: job.at,
            embeddings: Ok(all.by_ref().take(count).collect()),
            secs: share * count as f64,
        };
        results.send(embedded).ok()?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use image::RgbImage;

    use super::*;

    /// One crop at a time; the vector is the crop's left edge.
    struct OneByOne;

    impl Appearance for OneByOne {
        fn embed(
            &mut self,
            crops: &[(Pixels<'_>, Option<PixelBox>)],
        ) -> Result<Vec<Vec<f32>>, EmbedError> {
            let left = |at: &Option<PixelBox>| vec![at.map_or(-1.0, |b| b.left)];
            Ok(crops.iter().map(|(_, at)| left(at)).collect())
        }
        fn fingerprint(&self) -> String {
            String::new()
        }
        fn width(&self) -> usize {
            1
        }
        fn thresholds(&self) -> BTreeMap<String, f32> {
            BTreeMap::new()
        }
        fn description(&self) -> String {
            "one by one".into()
        }
        fn most(&self) -> usize {
            1
        }
    }

    #[test]
    fn a_crowd_is_handed_over_before_any_result_is_taken() {
        let batching = Batching {
            most: 8,
            wait: Duration::ZERO,
        };
        let board = Board::default();
        let embedding = Embedding::start(vec![Box::new(OneByOne)], batching, 1, &board).unwrap();
        let picture = Arc::new(Picture::from(RgbImage::new(1000, 2)));
        let crop = |left| PixelBox {
            left,
            top: 0.0,
            right: left + 1.0,
            bottom: 1.0,
        };
        embedding.give(
            7,
            (0..1000)
                .map(|x| (picture.clone(), crop(x as f32)))
                .collect(),
        );
        for x in 0..1000 {
            let embedded = embedding
                .done
                .recv_timeout(Duration::from_secs(10))
                .unwrap();
            assert_eq!(embedded.at, (7, x));
            assert_eq!(embedded.embeddings.unwrap(), [[x as f32]]);
        }
    }
}
