//! Joins clustering's k-reciprocal neighbourhoods to evaluation's re-ranking, which know nothing of each other.

use crate::clustering::{Jaccard, KReciprocal, UnitRows, Weights};
use crate::eval::rerank::Neighbourhoods;

/// k1 and k2 of Zhong et al. 2017.
const K1: usize = 20;
const K2: usize = 6;

impl Neighbourhoods for KReciprocal {
    fn jaccard_row(&self, i: usize, out: &mut [f32]) {
        KReciprocal::jaccard_row(self, i, out);
    }
    fn farthest_similarity(&self, i: usize) -> f32 {
        KReciprocal::farthest_similarity(self, i)
    }
}

/// Neighbourhoods of joined features (query, then gallery; row-major) with the parameters of Zhong et al. 2017.
///
/// # Errors
/// If the features can't be compared.
pub fn neighbourhoods(features: &[f32], width: usize) -> Result<Box<dyn Neighbourhoods>, String> {
    // The paper's lists do not count the image itself, `Jaccard`'s do.
    let parameters = Jaccard::new(K1 + 1, K2, Weights::ExpScaled).map_err(|e| e.to_string())?;
    let rows = UnitRows::new(features, width).map_err(|e| e.to_string())?;
    parameters
        .require_memory(rows.count())
        .map_err(|e| e.to_string())?;
    Ok(Box::new(KReciprocal::encode(&rows, &parameters)))
}
