//! How far unlabelled images are from a labelled source: the second term of the distance that SSG and ABMT cluster.

use rayon::prelude::*;
use reid_models::distance::dot;

use super::{ClusterError, UnitRows};

/// `v_i = min_s (1 - exp(-|f_i - f_s|^2))` over the source images s, divided by the largest v: 0 for an image of the source,
/// 1 for the one farthest from it (Fu et al. 2019, eq. 4; methods.md 1.7). All zero if all are.
///
/// Shapes: `target` (N, `width`) and `source` (S, `width`), row-major; rows are made unit; result N values.
///
/// # Errors
/// As [`UnitRows::new`].
pub fn farness(target: &[f32], source: &[f32], width: usize) -> Result<Vec<f32>, ClusterError> {
    let (target, source) = (UnitRows::new(target, width)?, UnitRows::new(source, width)?);
    let mut own: Vec<f32> = (0..target.count())
        .into_par_iter()
        .map(|i| {
            let nearest = (0..source.count())
                .map(|s| dot(target.row(i), source.row(s)))
                .fold(f32::NEG_INFINITY, f32::max);
            let square = f64::from(2.0 - 2.0 * nearest).max(0.0);
            -(-square).exp_m1() as f32
        })
        .collect();
    let largest = own.iter().copied().fold(0.0, f32::max);
    if largest > 0.0 {
        own.iter_mut().for_each(|v| *v /= largest);
    }
    Ok(own)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_image_of_the_source_is_at_0_and_the_farthest_at_1() {
        let target = [1f32, 0.0, 0.0, 1.0, -1.0, 0.0];
        let own = farness(&target, &[1.0, 0.0, 2.0, 0.1], 2).unwrap();
        assert!(own[0].abs() < 1e-6 && (own[2] - 1.0).abs() < 1e-6);
        assert!(own[1] > 0.5 && own[1] < 1.0, "{own:?}");
        let same = [1f32, 0.0, 1.0, 0.0];
        assert_eq!(farness(&same, &same, 2).unwrap(), [0.0, 0.0]);
    }
}
