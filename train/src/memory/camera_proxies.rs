//! One proxy per cluster and camera.

use std::collections::BTreeSet;

use super::centroids::{MemoryError, normalized_centroids};

/// Proxies, ordered by cluster, then camera.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CameraProxies {
    /// (M, D) row-major, unit rows.
    pub rows: Vec<f32>,
    /// Cluster of each, M.
    pub clusters: Vec<u32>,
    /// Camera of each, M.
    pub cameras: Vec<u32>,
}

/// Unit mean of the rows of each cluster in each camera that saw it: ICE (Chen et al. 2021), eq. 6.6 of the thesis.
///
/// Shapes: `features` (N, `width`) row-major, unit rows; `labels` N, outliers `None` and left out; `cameras` N.
///
/// # Errors
/// If lengths do not fit.
pub fn camera_proxies(
    features: &[f32],
    width: usize,
    labels: &[Option<u32>],
    cameras: &[u32],
) -> Result<CameraProxies, MemoryError> {
    if labels.len() != cameras.len() {
        return Err(MemoryError::Shape {
            values: features.len(),
            samples: cameras.len(),
            width,
        });
    }
    let seen = labels.iter().zip(cameras);
    let pair_of = |(label, camera): (&Option<u32>, &u32)| label.map(|l| (l, *camera));
    let pairs: Vec<(u32, u32)> = seen
        .clone()
        .filter_map(pair_of)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let own: Vec<Option<u32>> = seen
        .map(|one| {
            let place = pairs.binary_search(&pair_of(one)?).ok()?;
            u32::try_from(place).ok()
        })
        .collect();
    let (clusters, cameras) = pairs.iter().copied().unzip();
    Ok(CameraProxies {
        rows: normalized_centroids(features, width, &own, pairs.len())?,
        clusters,
        cameras,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_proxy_for_every_camera_that_saw_a_cluster() {
        let features = [1f32, 0.0, 0.0, 1.0, 0.0, -1.0, 1.0, 0.0, 0.6, 0.8];
        let labels = [Some(1), Some(0), None, Some(1), Some(1)];
        let found = camera_proxies(&features, 2, &labels, &[7, 7, 7, 2, 7]).unwrap();
        assert_eq!(found.clusters, [0, 1, 1]);
        assert_eq!(found.cameras, [7, 2, 7]);
        assert_eq!(found.rows[..4], [0.0, 1.0, 1.0, 0.0]);
        // (1, 0) and (0.6, 0.8): (1.6, 0.8) made unit.
        assert!((found.rows[4] - 2.0 / 5f32.sqrt()).abs() < 1e-6);
        assert!(camera_proxies(&features, 2, &labels, &[7]).is_err());
    }

    #[test]
    fn outliers_only_have_no_proxies() {
        let found = camera_proxies(&[1.0, 0.0], 2, &[None], &[1]).unwrap();
        assert_eq!(found, CameraProxies::default());
    }
}
