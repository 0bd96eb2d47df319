//! Cluster centroids.

/// Features and labels that do not make centroids.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Lengths do not fit.
    #[error("centroids: {values} values are not {samples} rows of width {width}")]
    Shape {
        /// Number of values.
        values: usize,
        /// Number of labels.
        samples: usize,
        /// Width of a row.
        width: usize,
    },
    /// A label outside the clusters.
    #[error("centroids: sample {sample} has label {label}, there are {clusters} clusters")]
    Label {
        /// The sample.
        sample: usize,
        /// Its label.
        label: u32,
        /// Number of clusters.
        clusters: usize,
    },
    /// A cluster nobody belongs to.
    #[error("centroids: cluster {0} has no members")]
    Empty(usize),
    /// A picture the memory does not have.
    #[error("memory: there is no picture {picture}, it holds {count}")]
    Picture {
        /// Its position.
        picture: usize,
        /// Pictures there are.
        count: usize,
    },
    /// From candle.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// Plain mean of each cluster's rows, *not* normalised again: `p_a = (1 / N_a) sum m_i` (ICE, thesis eq. 6.4), so that a
/// spread cluster has a shorter centroid.
///
/// Shapes: `features` (N, `width`) row-major, rows as they should be averaged (L2-normalised teacher features in ICE);
/// `labels` N, outliers `None` and left out; result (`clusters`, `width`) row-major. Sums run in double precision.
///
/// # Errors
/// If lengths or a label do not fit, or a cluster is empty.
pub fn centroids(
    features: &[f32],
    width: usize,
    labels: &[Option<u32>],
    clusters: usize,
) -> Result<Vec<f32>, MemoryError> {
    if width == 0 || features.len() != labels.len() * width {
        return Err(MemoryError::Shape {
            values: features.len(),
            samples: labels.len(),
            width,
        });
    }
    let mut sums = vec![0f64; clusters * width];
    let mut counts = vec![0usize; clusters];
    for (sample, (row, label)) in features.chunks_exact(width).zip(labels).enumerate() {
        let Some(label) = *label else { continue };
        let cluster = label as usize;
        if cluster >= clusters {
            return Err(MemoryError::Label {
                sample,
                label,
                clusters,
            });
        }
        counts[cluster] += 1;
        for (sum, x) in sums[cluster * width..][..width].iter_mut().zip(row) {
            *sum += f64::from(*x);
        }
    }
    if let Some(empty) = counts.iter().position(|&n| n == 0) {
        return Err(MemoryError::Empty(empty));
    }
    let means = sums.iter().enumerate();
    Ok(means
        .map(|(i, sum)| (sum / counts[i / width] as f64) as f32)
        .collect())
}

/// As [`centroids`], each divided by its norm (Cluster-Contrast, camera proxies of ICE); a zero mean stays zero.
///
/// # Errors
/// As [`centroids`].
pub fn normalized_centroids(
    features: &[f32],
    width: usize,
    labels: &[Option<u32>],
    clusters: usize,
) -> Result<Vec<f32>, MemoryError> {
    let mut means = centroids(features, width, labels, clusters)?;
    for row in means.chunks_exact_mut(width) {
        let norm = row
            .iter()
            .map(|x| f64::from(*x).powi(2))
            .sum::<f64>()
            .sqrt();
        if norm > 0.0 {
            row.iter_mut()
                .for_each(|x| *x = (f64::from(*x) / norm) as f32);
        }
    }
    Ok(means)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEATURES: [f32; 8] = [1.0, 0.0, 0.0, 1.0, 9.0, 9.0, 0.0, -1.0];

    #[test]
    fn means_without_outliers() {
        let labels = [Some(0), Some(0), None, Some(1)];
        let plain = centroids(&FEATURES, 2, &labels, 2).expect("plain means");
        assert_eq!(plain, [0.5, 0.5, 0.0, -1.0]);
        let half = 0.5f32.sqrt();
        let unit = normalized_centroids(&FEATURES, 2, &labels, 2).expect("unit means");
        assert_eq!(unit, [half, half, 0.0, -1.0]);
    }

    #[test]
    fn misfits_are_named() {
        let labels = [Some(0), Some(0), None, Some(2)];
        assert!(matches!(
            centroids(&FEATURES, 2, &labels, 3),
            Err(MemoryError::Empty(1))
        ));
        let label = centroids(&FEATURES, 2, &labels, 2).expect_err("label 2 of 2 clusters");
        assert_eq!(
            label.to_string(),
            "centroids: sample 3 has label 2, there are 2 clusters"
        );
        assert!(matches!(
            centroids(&FEATURES, 3, &labels, 3),
            Err(MemoryError::Shape { .. })
        ));
    }
}
