//! A memory of one vector per cluster, moved by the features of every batch: Cluster-Contrast.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::centroids::MemoryError;
use super::rows::{self, cosine, toward};

/// Which features of a batch move a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryUpdate {
    /// Each, one after the other.
    #[default]
    Each,
    /// The one least similar to the cluster.
    Hardest,
    /// The one most typical of its camera and yet far from the cluster (3C, Wang et al. 2024). Experimental.
    CameraAware,
}

/// Unit vectors, one per cluster, `M_y <- L2(m M_y + (1 - m) f)` (Dai et al. 2021, eq. 4).
#[derive(Debug)]
pub struct ClusterMemory {
    rows: Vec<f32>,
    width: usize,
    tensor: Tensor,
}

impl ClusterMemory {
    /// Starts from `rows` (C, `width`).
    ///
    /// # Errors
    /// candle's.
    pub fn new(rows: Vec<f32>, width: usize, device: &Device) -> candle_core::Result<Self> {
        let shape = (rows.len() / width.max(1), width);
        let tensor = Tensor::from_slice(&rows, shape, device)?;
        Ok(ClusterMemory {
            rows,
            width,
            tensor,
        })
    }

    /// (C, D), where the network is.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// Moves the clusters of a batch: `features` (B, D) unit rows, `labels` and `cameras` B. Similarities are those before
    /// the batch.
    ///
    /// # Errors
    /// If shapes or a label do not fit.
    pub fn update(
        &mut self,
        features: &Tensor,
        labels: &[u32],
        cameras: &[u32],
        momentum: f64,
        how: MemoryUpdate,
    ) -> Result<(), MemoryError> {
        let features = rows::read(features, labels.len(), self.width)?;
        let clusters = self.rows.len() / self.width;
        if let Some(sample) = labels.iter().position(|l| *l as usize >= clusters) {
            return Err(MemoryError::Label {
                sample,
                label: labels[sample],
                clusters,
            });
        }
        let row = |i: usize| &features[i * self.width..][..self.width];
        let mut samples = BTreeMap::<u32, Vec<usize>>::new();
        for (i, label) in labels.iter().enumerate() {
            samples.entry(*label).or_default().push(i);
        }
        for (label, own) in samples {
            let place = label as usize * self.width;
            let range = place..place + self.width;
            let centre = &mut self.rows[range.clone()];
            match how {
                MemoryUpdate::Each => own.iter().for_each(|i| toward(centre, row(*i), momentum)),
                MemoryUpdate::Hardest => {
                    let likeness = |i: &usize| cosine(centre, row(*i));
                    let hardest = own
                        .iter()
                        .min_by(|a, b| likeness(a).total_cmp(&likeness(b)));
                    if let Some(i) = hardest.copied() {
                        toward(centre, row(i), momentum);
                    }
                }
                MemoryUpdate::CameraAware => {
                    if let Some(i) = typical_but_far(centre, &own, cameras, row) {
                        toward(centre, row(i), momentum);
                    }
                }
            }
            rows::write(&self.tensor, label as usize, &self.rows[range])?;
        }
        Ok(())
    }
}

/// The sample with the largest `s d / (s + d)`, where `s = 1 + cos` to the unit mean of its camera's samples and `d = 1 -
/// cos` to the cluster: half the harmonic mean of both (3C's public code).
fn typical_but_far<'a>(
    centre: &[f32],
    samples: &[usize],
    cameras: &[u32],
    row: impl Fn(usize) -> &'a [f32],
) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for i in samples {
        let mut mean = vec![0f64; centre.len()];
        for j in samples.iter().filter(|j| cameras[**j] == cameras[*i]) {
            mean.iter_mut()
                .zip(row(*j))
                .for_each(|(m, x)| *m += f64::from(*x));
        }
        let mean: Vec<f32> = mean.iter().map(|m| *m as f32).collect();
        let typical = 1.0 + cosine(&mean, row(*i));
        let far = 1.0 - cosine(centre, row(*i));
        let both = typical * far / (typical + far).max(f64::MIN_POSITIVE);
        if best.is_none_or(|(_, most)| both > most) {
            best = Some((*i, both));
        }
    }
    best.map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn memory(how: MemoryUpdate, features: &[[f32; 2]], cameras: &[u32]) -> Vec<f32> {
        let mut memory = ClusterMemory::new(vec![1.0, 0.0, 0.0, 1.0], 2, &Device::Cpu).unwrap();
        let labels = vec![1; features.len()];
        let values = features.concat();
        let features = Tensor::from_vec(values, (labels.len(), 2), &Device::Cpu).unwrap();
        memory
            .update(&features, &labels, cameras, 0.1, how)
            .unwrap();
        let seen = memory
            .tensor()
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        assert_eq!(seen, memory.rows);
        assert_eq!(seen[..2], [1.0, 0.0], "the other cluster stays");
        seen[2..].to_vec()
    }

    #[test]
    fn one_update_is_the_unit_of_a_tenth_old_and_nine_tenths_new() {
        let norm = (0.1f32 * 0.1 + 0.9 * 0.9).sqrt();
        for how in [
            MemoryUpdate::Each,
            MemoryUpdate::Hardest,
            MemoryUpdate::CameraAware,
        ] {
            let got = memory(how, &[[1.0, 0.0]], &[3]);
            assert!((got[0] - 0.9 / norm).abs() < 1e-6 && (got[1] - 0.1 / norm).abs() < 1e-6);
        }
    }

    #[test]
    fn the_hardest_is_the_least_similar_whatever_the_order() {
        let (near, far) = ([0.6, 0.8], [0.8, -0.6]);
        let alone = memory(MemoryUpdate::Hardest, &[far], &[0]);
        assert_eq!(memory(MemoryUpdate::Hardest, &[near, far], &[0, 0]), alone);
        assert_eq!(memory(MemoryUpdate::Hardest, &[far, near], &[0, 0]), alone);
        assert_ne!(memory(MemoryUpdate::Each, &[far, near], &[0, 0]), alone);
    }

    #[test]
    fn a_label_without_memory_is_named() {
        let mut memory = ClusterMemory::new(vec![1.0, 0.0], 2, &Device::Cpu).unwrap();
        let f = Tensor::new(&[[1f32, 0.0]], &Device::Cpu).unwrap();
        let err = memory
            .update(&f, &[4], &[0], 0.1, MemoryUpdate::Each)
            .unwrap_err();
        assert!(err.to_string().contains("label 4"), "{err}");
        assert!(
            memory
                .update(&f, &[0, 0], &[0, 0], 0.1, MemoryUpdate::Each)
                .is_err()
        );
    }
}
