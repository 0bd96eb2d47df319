//! A memory of one vector per picture: SpCL.

use candle_core::{Device, Tensor};

use super::centroids::MemoryError;
use super::rows::{self, toward};

/// Unit vectors, one per picture, and their mean in each class, kept up to date (Ge et al. 2020, eq. 4 and 6).
///
/// A class is a cluster, or a picture that belongs to none. Means are not made unit: a product with one is the mean
/// similarity to its members.
#[derive(Debug)]
pub struct InstanceMemory {
    rows: Vec<f32>,
    width: usize,
    /// Class of each picture.
    classes: Vec<u32>,
    sums: Vec<f64>,
    counts: Vec<usize>,
    means: Option<Tensor>,
    device: Device,
}

impl InstanceMemory {
    /// Starts from `rows` (N, `width`), unit.
    pub fn new(rows: Vec<f32>, width: usize, device: &Device) -> Self {
        InstanceMemory {
            rows,
            width,
            classes: Vec::new(),
            sums: Vec::new(),
            counts: Vec::new(),
            means: None,
            device: device.clone(),
        }
    }

    /// (N, D) row-major.
    pub fn rows(&self) -> &[f32] {
        &self.rows
    }

    /// Width of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Sets the class of every picture: N numbers below `count`. A class may be empty.
    ///
    /// # Errors
    /// If a number does not fit.
    pub fn set_classes(&mut self, classes: &[u32], count: usize) -> Result<(), MemoryError> {
        if classes.len() * self.width != self.rows.len() {
            return Err(MemoryError::Shape {
                values: self.rows.len(),
                samples: classes.len(),
                width: self.width,
            });
        }
        if let Some(sample) = classes.iter().position(|c| *c as usize >= count) {
            return Err(MemoryError::Label {
                sample,
                label: classes[sample],
                clusters: count,
            });
        }
        self.sums = vec![0.0; count * self.width];
        self.counts = vec![0; count];
        for (row, class) in self.rows.chunks_exact(self.width).zip(classes) {
            self.counts[*class as usize] += 1;
            let sums = &mut self.sums[*class as usize * self.width..][..self.width];
            sums.iter_mut()
                .zip(row)
                .for_each(|(s, x)| *s += f64::from(*x));
        }
        self.classes = classes.to_vec();
        let means: Vec<f32> = (0..count).flat_map(|c| self.mean(c)).collect();
        let means = Tensor::from_vec(means, (count, self.width), &self.device)?;
        self.means = Some(means);
        Ok(())
    }

    fn mean(&self, class: usize) -> Vec<f32> {
        let count = self.counts[class].max(1) as f64;
        let sums = &self.sums[class * self.width..][..self.width];
        sums.iter().map(|s| (s / count) as f32).collect()
    }

    /// Means of the classes (C, D), where the network is; an empty class is zero. `None` before
    /// [`set_classes`](Self::set_classes).
    pub fn means(&self) -> Option<&Tensor> {
        self.means.as_ref()
    }

    /// Which classes have no picture.
    pub fn empty(&self) -> Vec<bool> {
        self.counts.iter().map(|n| *n == 0).collect()
    }

    /// Moves pictures, one after the other: `M_i <- L2(momentum M_i + (1 - momentum) f)`. `features` (B, D) unit rows;
    /// `pictures` B positions.
    ///
    /// # Errors
    /// If shapes or a position do not fit.
    pub fn update(
        &mut self,
        features: &Tensor,
        pictures: &[usize],
        momentum: f64,
    ) -> Result<(), MemoryError> {
        let features = rows::read(features, pictures.len(), self.width)?;
        let width = self.width;
        let mut changed = Vec::new();
        for (picture, feature) in pictures.iter().zip(features.chunks_exact(width)) {
            let Some(row) = self.rows.get_mut(picture * width..(picture + 1) * width) else {
                return Err(MemoryError::Picture {
                    picture: *picture,
                    count: self.classes.len(),
                });
            };
            let before = row.to_vec();
            toward(row, feature, momentum);
            let Some(class) = self.classes.get(*picture).map(|c| *c as usize) else {
                continue;
            };
            let sums = &mut self.sums[class * width..][..width];
            for ((sum, new), old) in sums.iter_mut().zip(&*row).zip(before) {
                *sum += f64::from(*new) - f64::from(old);
            }
            changed.push(class);
        }
        changed.sort_unstable();
        changed.dedup();
        for class in changed {
            let mean = self.mean(class);
            if let Some(means) = &self.means {
                rows::write(means, class, &mean)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn means_follow_their_members() {
        let rows = vec![1f32, 0.0, 0.0, 1.0, 0.6, 0.8, -1.0, 0.0];
        let mut memory = InstanceMemory::new(rows, 2, &Device::Cpu);
        memory.set_classes(&[0, 0, 2, 3], 4).unwrap();
        assert_eq!(memory.empty(), [false, true, false, false]);
        let f = Tensor::new(&[[0f32, 1.0], [0.0, 1.0], [0.0, -1.0]], &Device::Cpu).unwrap();
        // Picture 0 twice.
        memory.update(&f, &[0, 0, 3], 0.2).unwrap();
        let means = memory.means().unwrap().to_vec2::<f32>().unwrap();
        let mut again = InstanceMemory::new(memory.rows().to_vec(), 2, &Device::Cpu);
        again.set_classes(&[0, 0, 2, 3], 4).unwrap();
        let fresh = again.means().unwrap().to_vec2::<f32>().unwrap();
        for (a, b) in means.iter().flatten().zip(fresh.iter().flatten()) {
            assert!((a - b).abs() < 1e-6, "{means:?} {fresh:?}");
        }
        assert!(memory.rows()[1] > 0.99, "{:?}", memory.rows());
        assert!(memory.set_classes(&[0, 0, 2, 4], 4).is_err());
        assert!(memory.update(&f, &[0, 0, 9], 0.2).is_err());
    }
}
