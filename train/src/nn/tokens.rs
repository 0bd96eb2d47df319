//! A transformer's operators, on candle's own tensor operators: the CPU and the GPU alike.
//!
//! They are here for weights that were trained elsewhere; nothing is fused and every intermediate tensor is kept. Maps may be
//! of another number format; tokens and vectors are f32.

use candle_core::{D, DType, Result, Tensor};

/// What attention keeps: queries, keys, values (N, heads, T, d) and the shares (N, heads, T, T).
pub(super) struct Attended {
    pub(super) parts: [Tensor; 3],
    pub(super) shares: Tensor,
}

/// A map (N, H, W, D) behind the class token (1, 1, D), plus the positions (1, 1 + H W, D).
pub(super) fn tokens(map: &Tensor, class: &Tensor, positions: &Tensor) -> Result<Tensor> {
    let (n, h, w, d) = map.dims4()?;
    let cells = map.reshape((n, h * w, d))?.to_dtype(DType::F32)?;
    let class = class.expand((n, 1, d))?;
    Tensor::cat(&[&class.contiguous()?, &cells], 1)?.broadcast_add(positions)
}

/// Gradients of the map (of this shape and format), the class token and the positions.
pub(super) fn tokens_backward(dy: &Tensor, map: &[usize], format: DType) -> Result<[Tensor; 3]> {
    let positions = dy.sum_keepdim(0)?;
    let class = positions.narrow(1, 0, 1)?.force_contiguous()?;
    let cells = dy.narrow(1, 1, dy.dim(1)? - 1)?;
    let cells = cells.force_contiguous()?.reshape(map)?.to_dtype(format)?;
    Ok([cells, class, positions])
}

/// The first token of (N, T, D).
pub(super) fn first(x: &Tensor) -> Result<Tensor> {
    x.narrow(1, 0, 1)?.squeeze(1)?.force_contiguous()
}

/// Its gradient (N, D) among `tokens`.
pub(super) fn first_backward(dy: &Tensor, tokens: usize) -> Result<Tensor> {
    dy.unsqueeze(1)?
        .pad_with_zeros(1, 0, tokens - 1)?
        .force_contiguous()
}

/// `y = weight normed + bias`, the normed tokens and one over their standard deviation (N, T, 1).
pub(super) fn layer_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<[Tensor; 3]> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let inverse = (variance + eps)?.sqrt()?.recip()?;
    let normed = centred.broadcast_mul(&inverse)?;
    let y = normed.broadcast_mul(weight)?.broadcast_add(bias)?;
    Ok([y, normed, inverse])
}

/// Gradients of tokens, weight and bias.
pub(super) fn layer_norm_backward(
    dy: &Tensor,
    normed: &Tensor,
    inverse: &Tensor,
    weight: &Tensor,
) -> Result<[Tensor; 3]> {
    let width = weight.elem_count();
    let rows = |t: &Tensor| t.reshape(((), width))?.sum(0);
    let dweight = rows(&(dy * normed)?)?;
    let dbias = rows(dy)?;
    let d = dy.broadcast_mul(weight)?;
    let mean = d.mean_keepdim(D::Minus1)?;
    let along = (&d * normed)?.mean_keepdim(D::Minus1)?;
    let rest = d
        .broadcast_sub(&mean)?
        .sub(&normed.broadcast_mul(&along)?)?;
    Ok([rest.broadcast_mul(inverse)?, dweight, dbias])
}

/// `x Phi(x)`.
pub(super) fn gelu(x: &Tensor) -> Result<Tensor> {
    x.gelu_erf()
}

/// `Phi(x) + x phi(x)`, times `dy`.
pub(super) fn gelu_backward(dy: &Tensor, x: &Tensor) -> Result<Tensor> {
    let below = ((x / std::f64::consts::SQRT_2)?.erf()? + 1.0)?;
    let density = (x.sqr()? * -0.5)?.exp()?;
    let density = (density / (2.0 * std::f64::consts::PI).sqrt())?;
    dy * ((below * 0.5)? + (x * density)?)?
}

/// Queries, keys and values side by side (N, T, 3 D) to (N, T, D).
pub(super) fn attention(x: &Tensor, heads: usize) -> Result<(Tensor, Attended)> {
    let (n, t, width) = x.dims3()?;
    let d = width / 3 / heads;
    let parts = x.reshape((n, t, 3, heads, d))?;
    let part = |i: usize| {
        let part = parts.narrow(2, i, 1)?.squeeze(2)?;
        part.transpose(1, 2)?.force_contiguous()
    };
    let [q, k, v] = [part(0)?, part(1)?, part(2)?];
    let logits = (q.matmul(&k.t()?.contiguous()?)? / (d as f64).sqrt())?;
    let shares = softmax(&logits)?;
    let y = shares.matmul(&v)?.transpose(1, 2)?;
    let y = y.force_contiguous()?.reshape((n, t, heads * d))?;
    let parts = [q, k, v];
    Ok((y, Attended { parts, shares }))
}

/// Gradient of queries, keys and values, side by side.
pub(super) fn attention_backward(dy: &Tensor, kept: &Attended) -> Result<Tensor> {
    let [q, k, v] = &kept.parts;
    let (n, heads, t, d) = q.dims4()?;
    let dy = dy.reshape((n, t, heads, d))?;
    let dy = dy.transpose(1, 2)?.force_contiguous()?;
    let turned = |t: &Tensor| t.t()?.contiguous();
    let dv = turned(&kept.shares)?.matmul(&dy)?;
    let dshares = dy.matmul(&turned(v)?)?;
    let common = (&dshares * &kept.shares)?.sum_keepdim(D::Minus1)?;
    let dlogits = (dshares.broadcast_sub(&common)? * &kept.shares)?;
    let dlogits = (dlogits / (d as f64).sqrt())?;
    let dq = dlogits.matmul(k)?;
    let dk = turned(&dlogits)?.matmul(q)?;
    let side = |t: &Tensor| t.transpose(1, 2)?.unsqueeze(2);
    let all = Tensor::cat(&[&side(&dq)?, &side(&dk)?, &side(&dv)?], 2)?;
    all.force_contiguous()?.reshape((n, t, 3 * heads * d))
}

/// Over the last axis, shifted by its maximum.
fn softmax(x: &Tensor) -> Result<Tensor> {
    let powers = x.broadcast_sub(&x.max_keepdim(D::Minus1)?)?.exp()?;
    powers.broadcast_div(&powers.sum_keepdim(D::Minus1)?)
}

/// `1 / (1 + exp(-x))`.
pub(super) fn sigmoid(x: &Tensor) -> Result<Tensor> {
    (x.neg()?.exp()? + 1.0)?.recip()
}

/// From what it made.
pub(super) fn sigmoid_backward(dy: &Tensor, y: &Tensor) -> Result<Tensor> {
    dy * (y * (1.0 - y)?)?
}

/// A map (N, H, W, C) times factors (N, C), in the map's format.
pub(super) fn scale(map: &Tensor, factors: &Tensor) -> Result<Tensor> {
    let (n, _, _, c) = map.dims4()?;
    let factors = factors.reshape((n, 1, 1, c))?.to_dtype(map.dtype())?;
    map.broadcast_mul(&factors)
}

/// Gradients of map and factors.
pub(super) fn scale_backward(dy: &Tensor, map: &Tensor, factors: &Tensor) -> Result<[Tensor; 2]> {
    let (n, h, w, c) = map.dims4()?;
    let wide = |t: &Tensor| t.to_dtype(DType::F32);
    let products = (wide(dy)? * wide(map)?)?.reshape((n, h * w, c))?;
    Ok([scale(dy, factors)?, products.sum(1)?])
}

/// As (rows, width), for operators of vectors.
pub(super) fn rows(x: &Tensor) -> Result<Tensor> {
    debug_assert_eq!(x.dtype(), DType::F32);
    let width = x.dim(D::Minus1)?;
    x.reshape(((), width))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use candle_core::Device;

    #[test]
    fn half_maps_stay_half_and_vectors_do_not() {
        let map = Tensor::randn(0f32, 1., (2, 3, 2, 4), &Device::Cpu).unwrap();
        let map = map.to_dtype(DType::BF16).unwrap();
        let factors = Tensor::ones((2, 4), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(scale(&map, &factors).unwrap().dtype(), DType::BF16);
        let [dmap, dfactors] = scale_backward(&map, &map, &factors).unwrap();
        assert_eq!((dmap.dtype(), dfactors.dtype()), (DType::BF16, DType::F32));
        let class = Tensor::ones((1, 1, 4), DType::F32, &Device::Cpu).unwrap();
        let positions = Tensor::ones((1, 7, 4), DType::F32, &Device::Cpu).unwrap();
        let all = tokens(&map, &class, &positions).unwrap();
        assert_eq!((all.dtype(), all.dims()), (DType::F32, &[2, 7, 4][..]));
        let [dmap, ..] = tokens_backward(&all, map.dims(), map.dtype()).unwrap();
        assert_eq!((dmap.dtype(), dmap.dims()), (DType::BF16, map.dims()));
    }
}
