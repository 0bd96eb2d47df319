//! P x K batches: P identities (or clusters), K pictures of each, side by side.
//!
//! An epoch has a fixed number of batches, whatever the number of pictures: identities are shuffled and dealt P at a time;
//! when fewer than P are left they are shuffled anew, so that a batch never holds an identity twice.

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::DataError;

/// How the K pictures of an identity are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// K at random, with repetition if there are fewer.
    RandomIdentity,
    /// A random anchor, then K - 1 of *other* cameras than the anchor's where there are any, else of the same (MMT, SpCL,
    /// Cluster-Contrast, ABMT). With repetition if fewer than K are to choose from.
    RandomMultipleGallery,
    /// As [`RandomMultipleGallery`](Strategy::RandomMultipleGallery), but identities of a single picture come without repetition, so
    /// that a batch of P K pictures holds more of them (SpCL, where they are many).
    SinglesOnce,
    /// One of each camera first (K cameras at random if there are more), then filled up at random (ICE).
    MoreCamera,
}

/// Draws batches; the same seed and epoch give the same batches.
#[derive(Clone, Debug)]
pub struct PkSampler {
    strategy: Strategy,
    identities: usize,
    instances: usize,
    seed: u64,
    /// Pictures of each identity that has any: (index, camera), by ascending index.
    groups: Vec<Vec<(usize, u32)>>,
}

impl PkSampler {
    /// Over pictures with a label; `labels[i]` and `cameras[i]` belong to picture i, `None` is left out. With fewer than
    /// `identities` (P) labels a batch holds them all, and is smaller than P x K: see [`PkSampler::batch_len`].
    ///
    /// # Errors
    /// [`DataError::TooFewIdentities`] with fewer than 2 labels.
    ///
    /// # Panics
    /// If `labels` and `cameras` differ in length, or P or K is 0.
    pub fn new(
        strategy: Strategy,
        identities: usize,
        instances: usize,
        labels: &[Option<u32>],
        cameras: &[u32],
        seed: u64,
    ) -> Result<Self, DataError> {
        assert_eq!(labels.len(), cameras.len(), "one camera per label");
        assert!(identities > 0 && instances > 0, "a batch holds pictures");
        let count = labels.iter().flatten().max().map_or(0, |l| *l as usize + 1);
        let mut groups = vec![Vec::new(); count];
        for (index, label) in labels.iter().enumerate() {
            if let Some(label) = label {
                groups[*label as usize].push((index, cameras[index]));
            }
        }
        groups.retain(|group| !group.is_empty());
        if groups.len() < 2 {
            return Err(DataError::TooFewIdentities {
                found: groups.len(),
            });
        }
        Ok(PkSampler {
            strategy,
            identities: identities.min(groups.len()),
            instances,
            seed,
            groups,
        })
    }

    /// Pictures in a batch: min(P, number of labels) x K.
    pub fn batch_len(&self) -> usize {
        self.identities * self.instances
    }

    /// The batches of an epoch, as picture indices; those of one identity lie side by side, K each.
    pub fn epoch(&self, epoch: u64, iterations: usize) -> Vec<Vec<usize>> {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        seed[8..16].copy_from_slice(&epoch.to_le_bytes());
        seed[16..23].copy_from_slice(b"sampler");
        let mut rng = ChaCha8Rng::from_seed(seed);
        let mut deck: Vec<usize> = Vec::new();
        (0..iterations)
            .map(|_| {
                if self.strategy == Strategy::SinglesOnce {
                    return self.filled(&mut deck, &mut rng);
                }
                if deck.len() < self.identities {
                    deck = (0..self.groups.len()).collect();
                    deck.shuffle(&mut rng);
                }
                let dealt = deck.split_off(deck.len() - self.identities);
                let mut batch = Vec::with_capacity(self.batch_len());
                for group in dealt {
                    self.draw(&self.groups[group], &mut rng, &mut batch);
                }
                batch
            })
            .collect()
    }

    /// A batch of P K pictures, however many identities that takes; the last one may be cut short.
    fn filled(&self, deck: &mut Vec<usize>, rng: &mut ChaCha8Rng) -> Vec<usize> {
        let mut batch = Vec::with_capacity(self.batch_len() + self.instances);
        while batch.len() < self.batch_len() {
            if deck.is_empty() {
                *deck = (0..self.groups.len()).collect();
                deck.shuffle(rng);
            }
            match deck.pop().map(|i| &self.groups[i]) {
                Some(group) if group.len() == 1 => batch.push(group[0].0),
                Some(group) => self.draw(group, rng, &mut batch),
                None => break,
            }
        }
        batch.truncate(self.batch_len());
        batch
    }

    /// K pictures of one identity.
    fn draw(&self, group: &[(usize, u32)], rng: &mut ChaCha8Rng, batch: &mut Vec<usize>) {
        let k = self.instances;
        match self.strategy {
            Strategy::RandomIdentity => {
                let all: Vec<usize> = group.iter().map(|(index, _)| *index).collect();
                take(&all, k, k, rng, batch);
            }
            Strategy::RandomMultipleGallery | Strategy::SinglesOnce => {
                let (anchor, camera) = group[rng.random_range(0..group.len())];
                batch.push(anchor);
                let mut others: Vec<usize> = group
                    .iter()
                    .filter(|(_, c)| *c != camera)
                    .map(|(index, _)| *index)
                    .collect();
                if others.is_empty() {
                    others.extend(group.iter().map(|(i, _)| *i).filter(|i| *i != anchor));
                }
                if others.is_empty() {
                    others.push(anchor);
                }
                take(&others, k - 1, k, rng, batch);
            }
            Strategy::MoreCamera => {
                let mut cameras: Vec<u32> = group.iter().map(|(_, camera)| *camera).collect();
                cameras.sort_unstable();
                cameras.dedup();
                cameras.shuffle(rng);
                cameras.truncate(k);
                let start = batch.len();
                for camera in cameras {
                    let of: Vec<usize> = group
                        .iter()
                        .filter(|(_, c)| *c == camera)
                        .map(|(index, _)| *index)
                        .collect();
                    take(&of, 1, 1, rng, batch);
                }
                let missing = k - (batch.len() - start);
                let mut rest: Vec<usize> = group
                    .iter()
                    .map(|(index, _)| *index)
                    .filter(|index| !batch[start..].contains(index))
                    .collect();
                if rest.is_empty() {
                    rest.extend(group.iter().map(|(index, _)| *index));
                }
                take(&rest, missing, missing, rng, batch);
            }
        }
    }
}

/// `count` of `from` at random: different ones if there are at least `enough`, else with repetition.
fn take(from: &[usize], count: usize, enough: usize, rng: &mut ChaCha8Rng, batch: &mut Vec<usize>) {
    if from.len() >= enough {
        batch.extend(from.sample(rng, count).copied());
    } else {
        for _ in 0..count {
            batch.push(from[rng.random_range(0..from.len())]);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeSet;

    /// 12 identities of 1 to 12 pictures, cameras in turn, and outliers between them.
    fn pictures() -> (Vec<Option<u32>>, Vec<u32>) {
        let mut labels = Vec::new();
        let mut cameras = Vec::new();
        for id in 0..12u32 {
            for n in 0..=id {
                labels.push(Some(id));
                cameras.push(1 + n % 3);
            }
            labels.push(None);
            cameras.push(1);
        }
        (labels, cameras)
    }

    fn sampler(strategy: Strategy, p: usize, k: usize) -> PkSampler {
        let (labels, cameras) = pictures();
        PkSampler::new(strategy, p, k, &labels, &cameras, 5).unwrap()
    }

    const ALL: [Strategy; 3] = [
        Strategy::RandomIdentity,
        Strategy::RandomMultipleGallery,
        Strategy::MoreCamera,
    ];

    #[test]
    fn batches_hold_p_identities_k_each_and_repeat_by_seed_and_epoch() {
        let (labels, _) = pictures();
        for strategy in ALL {
            let s = sampler(strategy, 5, 4);
            let batches = s.epoch(3, 40);
            assert_eq!(batches.len(), 40);
            for batch in &batches {
                assert_eq!(batch.len(), 20);
                let ids: Vec<_> = batch.chunks(4).map(|c| labels[c[0]].unwrap()).collect();
                assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 5, "{strategy:?}");
                for (chunk, id) in batch.chunks(4).zip(ids) {
                    assert!(chunk.iter().all(|i| labels[*i] == Some(id)));
                }
            }
            assert_eq!(batches, s.epoch(3, 40));
            assert_ne!(batches, s.epoch(4, 40));
            // Two batches of 5 of 12 identities, then a new deck: nobody is favoured for long.
            let used: BTreeSet<_> = batches.iter().flatten().map(|i| labels[*i]).collect();
            assert_eq!(used.len(), 12);
        }
    }

    #[test]
    fn pictures_repeat_only_when_there_are_too_few() {
        let (labels, cameras) = pictures();
        for strategy in [Strategy::RandomIdentity, Strategy::MoreCamera] {
            for batch in sampler(strategy, 6, 4).epoch(0, 30) {
                for chunk in batch.chunks(4) {
                    let different = chunk.iter().collect::<BTreeSet<_>>().len();
                    let size = labels[chunk[0]].unwrap() as usize + 1;
                    if strategy == Strategy::RandomIdentity && size < 4 {
                        continue;
                    }
                    assert_eq!(different, size.min(4), "{strategy:?}, {size} pictures");
                }
            }
        }
        for batch in sampler(Strategy::MoreCamera, 6, 4).epoch(0, 30) {
            for chunk in batch.chunks(4) {
                let size = labels[chunk[0]].unwrap() as usize + 1;
                let seen: BTreeSet<_> = chunk.iter().map(|i| cameras[*i]).collect();
                assert_eq!(seen.len(), size.min(3));
            }
        }
        // Fewer instances than cameras: all from different ones.
        for batch in sampler(Strategy::MoreCamera, 6, 2).epoch(0, 30) {
            for chunk in batch.chunks(2) {
                let size = labels[chunk[0]].unwrap() as usize + 1;
                assert_eq!(cameras[chunk[0]] != cameras[chunk[1]], size > 1);
            }
        }
    }

    #[test]
    fn multiple_gallery_prefers_other_cameras_than_the_anchors() {
        let (labels, cameras) = pictures();
        for batch in sampler(Strategy::RandomMultipleGallery, 6, 4).epoch(0, 50) {
            for chunk in batch.chunks(4) {
                if labels[chunk[0]].unwrap() > 0 {
                    assert!(chunk[1..].iter().all(|i| cameras[*i] != cameras[chunk[0]]));
                } else {
                    assert!(
                        chunk.iter().all(|i| *i == chunk[0]),
                        "a single picture repeats"
                    );
                }
            }
        }
    }

    #[test]
    fn single_pictures_come_once_and_batches_are_full() {
        let (mut labels, mut cameras) = pictures();
        for single in 12..40 {
            labels.push(Some(single));
            cameras.push(2);
        }
        let sampler = PkSampler::new(Strategy::SinglesOnce, 5, 4, &labels, &cameras, 5).unwrap();
        let mut seen = BTreeSet::new();
        for batch in sampler.epoch(1, 30) {
            assert_eq!(batch.len(), 20);
            let singles = batch.iter().filter(|i| labels[**i] >= Some(12));
            for single in singles.clone() {
                // A deck may end within a batch, and the next begin with the same picture.
                assert!(singles.clone().filter(|i| *i == single).count() <= 2);
            }
            seen.extend(batch.iter().map(|i| labels[*i]));
        }
        assert_eq!(seen.len(), 40);
    }

    #[test]
    fn few_identities_make_small_batches_and_one_makes_an_error() {
        let s = PkSampler::new(
            Strategy::RandomIdentity,
            8,
            2,
            &[Some(4), Some(9), None],
            &[0; 3],
            1,
        )
        .unwrap();
        assert_eq!(s.batch_len(), 4);
        assert_eq!(s.epoch(0, 3)[2].len(), 4);
        let err = PkSampler::new(Strategy::RandomIdentity, 8, 2, &[Some(4), None], &[0; 2], 1);
        assert!(err.unwrap_err().to_string().contains("1 identities"));
    }
}
