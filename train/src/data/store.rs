//! Decoded, resized pictures, kept in memory as far as a budget goes.

use std::borrow::Cow;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use image::RgbImage;
use rayon::prelude::*;
use reid_models::card::{Element, InputSpec, Layout};
use reid_models::preprocess::{self, Preprocess, Rgb};

use super::DataError;
use super::dataset::Sample;

/// The pictures of a list of samples at the size a network takes. Shared by threads.
pub struct PictureStore {
    samples: Vec<Sample>,
    spec: InputSpec,
    cells: Vec<OnceLock<RgbImage>>,
    /// Pictures that still fit the budget.
    room: AtomicUsize,
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
        })
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
