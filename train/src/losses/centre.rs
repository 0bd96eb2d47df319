//! Centre loss.

use candle_core::Tensor;

use super::{LossError, Result, matrix, same};

/// The squared distance of each sample to its identity's centre, batch mean, as the strong baseline's public code has it (Wen et
/// al. 2016, eq. 2, takes half their sum).
///
/// Centres are parameters and get a gradient here, which is why there is no update rule of their own: the strong baseline
/// steps them by SGD (Luo et al. 2019).
///
/// Shapes: `features` (B, D); `centres` (C, D); `labels` B identities; result ().
///
/// # Errors
/// If shapes or a label do not fit.
pub fn centre(features: &Tensor, centres: &Tensor, labels: &[u32]) -> Result<Tensor> {
    const LOSS: &str = "centre";
    let (batch, width) = matrix(LOSS, "features", features)?;
    let (classes, centre_width) = matrix(LOSS, "centres", centres)?;
    same(LOSS, "widths of features and centres", width, centre_width)?;
    same(LOSS, "batch and labels", batch, labels.len())?;
    if let Some(sample) = labels.iter().position(|l| *l as usize >= classes) {
        return Err(LossError::Label {
            loss: LOSS,
            label: labels[sample],
            sample,
            classes,
        });
    }
    let index = Tensor::new(labels, features.device())?;
    let own = centres.index_select(&index, 0)?;
    Ok(((features - own)?.sqr()?.sum_all()? / batch as f64)?)
}
