//! Decoded, resized pictures, kept in memory as far as a budget goes.

use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use image::RgbImage;
use rayon::prelude::*;
use reid_models::card::{Element, InputSpec, Layout};
use reid_models::preprocess::{self, Preprocess, Rgb};

use super::DataError;
use super::corrupt::Corrupt;
use super::dataset::Sample;

/// The pictures of a list of samples at the size a network takes. Shared by threads.
pub struct PictureStore {
    samples: Vec<Sample>,
    spec: InputSpec,
    cells: Vec<OnceLock<RgbImage>>,
    /// Pictures that still fit the budget.
    room: AtomicUsize,
    corrupt: Option<Arc<Corrupt>>,
}

impl PictureStore {
    /// For the pictures of `samples` at the size of `spec`; keeps at most `cache_bytes` of them decoded.
    ///
    /// # Errors
    /// [`DataError::Input`] unless the input is NCHW and f32.
    pub fn new(
        samples: Vec<Sample>,
        spec: &InputSpec,
        cache_bytes: usize,
    ) -> Result<Self, DataError> {
        if spec.layout != Layout::Nchw || spec.element != Element::F32 {
            return Err(DataError::Input {
                got: format!("{:?} and {:?}", spec.layout, spec.element).to_lowercase(),
            });
        }
        let picture = 3 * spec.height * spec.width + size_of::<OnceLock<RgbImage>>();
        Ok(PictureStore {
            cells: samples.iter().map(|_| OnceLock::new()).collect(),
            samples,
            spec: spec.clone(),
            room: AtomicUsize::new(cache_bytes / picture),
            corrupt: None,
        })
    }

    /// Pictures that cannot be read are left out by the loader and noted in `corrupt`; without this the first one is an error.
    pub fn tolerating(mut self, corrupt: Arc<Corrupt>) -> Self {
        self.corrupt = Some(corrupt);
        self
    }

    /// Where unreadable pictures are noted, if they may be left out.
    pub fn corrupt(&self) -> Option<&Corrupt> {
        self.corrupt.as_deref()
    }

    /// The samples, in their order.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// What the network takes.
    pub fn spec(&self) -> &InputSpec {
        &self.spec
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Picture `index` at the input's size; `preprocess` must have been made for this store's spec.
    ///
    /// # Errors
    /// Names the file that can't be read or decoded.
    pub fn get(
        &self,
        index: usize,
        preprocess: &mut Preprocess,
    ) -> Result<Cow<'_, RgbImage>, DataError> {
        if let Some(picture) = self.cells[index].get() {
            return Ok(Cow::Borrowed(picture));
        }
        let path = &self.samples[index].path;
        let whole = preprocess::decode(path)?;
        let picture = preprocess
            .resized(Rgb::from(&whole), None)
            .map_err(|source| DataError::Fit {
                path: path.clone(),
                source,
            })?;
        let fits = self
            .room
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| {
                room.checked_sub(1)
            })
            .is_ok();
        if !fits {
            return Ok(Cow::Owned(picture));
        }
        match self.cells[index].set(picture) {
            Ok(()) => {}
            // Another thread was faster with the same picture: ours takes no room.
            Err(_) => {
                self.room.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(Cow::Borrowed(
            self.cells[index]
                .get()
                .expect("set by us or the faster thread"),
        ))
    }

    /// Decodes every picture, on all threads, and returns the errors in order: the thorough part of a verdict on a data
    /// set, before hours of training find the one broken file.
    pub fn check(&self) -> Vec<DataError> {
        (0..self.len())
            .into_par_iter()
            .map_init(
                || Preprocess::new(&self.spec),
                |preprocess, index| self.get(index, preprocess).err(),
            )
            .collect::<Vec<_>>()
            .into_iter()
            .flatten()
            .collect()
    }
}

/// Bytes of decoded pictures that each of two sets may keep, `wanted` for all their pictures: as configured, but no more
/// than half of the memory together. A cache that is too small costs time only, one that is too large the run.
pub(crate) fn cache_budget(cache_mib: usize, wanted: [usize; 2], available: Option<u64>) -> usize {
    let configured = cache_mib.saturating_mul(1 << 20);
    let need: usize = wanted.iter().map(|bytes| configured.min(*bytes)).sum();
    let Some(available) = available.filter(|a| need as u64 > a / 2) else {
        return configured;
    };
    let budget = (available / 4) as usize;
    tracing::warn!(
        "train.cache_mib = {cache_mib} allows {} MiB of decoded pictures, {} MiB of memory are available: keeping {} MiB \
         for training and as much for evaluation, others are decoded anew each time",
        need >> 20,
        available >> 20,
        budget >> 20
    );
    budget
}

#[cfg(test)]
mod tests {
    use super::cache_budget;

    #[test]
    fn the_cache_leaves_memory_to_the_networks() {
        let mib = 1 << 20;
        let budget = |wanted, available: Option<u64>| cache_budget(100, wanted, available);
        let room = Some(300 << 20);
        assert_eq!(budget([80 * mib, 60 * mib], room), 100 * mib);
        assert_eq!(
            budget([900 * mib, 10 * mib], room),
            100 * mib,
            "the first is capped"
        );
        assert_eq!(budget([900 * mib, 900 * mib], room), 75 * mib);
        assert_eq!(budget([900 * mib, 900 * mib], None), 100 * mib);
        assert_eq!(cache_budget(usize::MAX, [mib, mib], room), usize::MAX);
    }
}
