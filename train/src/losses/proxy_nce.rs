//! Contrast of samples with cluster centroids: ICE's camera-agnostic proxy loss.

use candle_core::Tensor;

use super::{Result, cross_entropy, matrix, positive, same};
use crate::nn::ops::linear;

/// `-log softmax(f·pᵀ / tau)[label]`, batch mean, with label smoothing: ICE (Chen et al. 2021), eq. 6.5 of the thesis.
///
/// What the equation does not show: `f` is the *raw* neck output (norm about the root of its width), so that tau = 0.5 is
/// a far smaller temperature in cosines, and the targets are smoothed by 0.1. Neither is done here: hand `f` in as it
/// should be compared.
///
/// Shapes: `f` (B, D); `proxies` (K, D), plain means, never updated here and cut off from the gradient; `labels` B values
/// below K; result ().
///
/// # Errors
/// If shapes or a label do not fit, tau is not positive or `smoothing` outside 0..1.
pub fn proxy_nce(
    f: &Tensor,
    proxies: &Tensor,
    labels: &[u32],
    tau: f64,
    smoothing: f64,
) -> Result<Tensor> {
    const LOSS: &str = "proxy_nce";
    let (_, width) = matrix(LOSS, "f", f)?;
    let (_, proxy_width) = matrix(LOSS, "proxies", proxies)?;
    same(LOSS, "widths of f and proxies", width, proxy_width)?;
    let tau = positive(LOSS, "tau", tau)?;
    let logits = (linear(f, &proxies.detach(), None)? / tau)?;
    cross_entropy(&logits, labels, smoothing)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn equal_similarities_give_ln_k() {
        let f = Tensor::ones((4, 8), DType::F32, &Device::Cpu).unwrap();
        let p = Tensor::ones((5, 8), DType::F32, &Device::Cpu).unwrap();
        let loss = proxy_nce(&f, &p, &[0, 1, 2, 4], 0.5, 0.1).unwrap();
        assert!((loss.to_scalar::<f32>().unwrap() - 5f32.ln()).abs() < 1e-5);
    }

    #[test]
    fn misfits_are_refused() {
        let f = Tensor::ones((4, 8), DType::F32, &Device::Cpu).unwrap();
        let p = Tensor::ones((5, 7), DType::F32, &Device::Cpu).unwrap();
        let err = proxy_nce(&f, &p, &[0; 4], 0.5, 0.0)
            .unwrap_err()
            .to_string();
        assert_eq!(err, "proxy_nce: widths of f and proxies differ: 8 and 7");
        assert!(proxy_nce(&f, &f, &[0; 4], 0.0, 0.0).is_err());
        assert!(proxy_nce(&f, &f, &[9; 4], 0.5, 0.0).is_err());
    }
}
