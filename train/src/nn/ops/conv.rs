//! Convolution, its transpose, and the linear layer.

use candle_core::{Result, Tensor, bail};

use super::{kernels, planes_of, rows_of};
use crate::nn::autograd::attach;
use crate::nn::kernels::{ConvShape, Epilogue, InputGrad};

/// Stride, padding, dilation and groups of a convolution; pairs are `[height, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2d {
    /// Stride.
    pub stride: [usize; 2],
    /// Zero padding on both sides.
    pub padding: [usize; 2],
    /// Dilation.
    pub dilation: [usize; 2],
    /// Groups.
    pub groups: usize,
}

impl Default for Conv2d {
    fn default() -> Self {
        Conv2d {
            stride: [1, 1],
            padding: [0, 0],
            dilation: [1, 1],
            groups: 1,
        }
    }
}

/// 2-D convolution: `x` (N, C, H, W), `w` (O, C / groups, kh, kw), `b` (O); result (N, O, oh, ow).
///
/// # Errors
/// If the shapes don't fit.
pub fn conv2d(x: &Tensor, w: &Tensor, b: Option<&Tensor>, options: Conv2d) -> Result<Tensor> {
    let ((n, c, h, width), (o, cg, kh, kw)) = (x.dims4()?, w.dims4()?);
    let fits = (0..2).all(|i| {
        let (len, k) = ([h, width][i], [kh, kw][i]);
        let (s, p, d) = (options.stride[i], options.padding[i], options.dilation[i]);
        reid_models::shape::window(len, k, s, p, d).is_some()
    });
    let g = options.groups;
    let bias_fits = b.is_none_or(|b| b.dims() == [o]);
    if g == 0 || c != cg * g || o % g != 0 || !fits || !bias_fits || n * o * cg == 0 {
        bail!(
            "conv2d: x {:?}, w {:?}, b {:?} and {options:?} do not fit together",
            x.shape(),
            w.shape(),
            b.map(Tensor::shape)
        );
    }
    let shape = ConvShape {
        n,
        c,
        h,
        w: width,
        o,
        kernel: [kh, kw],
        stride: options.stride,
        padding: options.padding,
        dilation: options.dilation,
        groups: g,
    };
    let device = kernels(x.device())?;
    let (w, b) = (w.contiguous()?, b.map(Tensor::contiguous).transpose()?);
    let (rows, filters) = (rows_of(x)?, w.detach());
    let then = Epilogue {
        bias: b.as_ref(),
        ..Default::default()
    };
    let y = planes_of(&device.conv2d(&shape, &rows, &filters, then)?)?;
    let need = [
        x.track_op(),
        w.track_op(),
        b.as_ref().is_some_and(Tensor::track_op),
    ];
    let mut inputs = vec![x, &w];
    inputs.extend(&b);
    attach("conv2d", &inputs, y, move |dy| {
        let dx = if need[0] {
            InputGrad::New
        } else {
            InputGrad::Skip
        };
        let dy = device.to_rows(dy)?;
        let g = device.conv2d_backward(&shape, &rows, &filters, &dy, dx, [need[1], need[2]])?;
        Ok(vec![g.dx.map(|dx| planes_of(&dx)).transpose()?, g.dw, g.db])
    })
}

/// Transposed 2-D convolution, the gradient of [`conv2d`] in its input: `x` (N, C, H, W), `w` (C, O / groups, kh, kw), `b`
/// (O); result (N, O, (H - 1) stride - 2 padding + dilation (kh - 1) + output_padding + 1, ...).
///
/// # Errors
/// If the shapes don't fit, or `output_padding` is not below the stride.
pub fn conv_transpose2d(
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    options: Conv2d,
    output_padding: [usize; 2],
) -> Result<Tensor> {
    let ((n, c, h, width), (wc, og, kh, kw)) = (x.dims4()?, w.dims4()?);
    let g = options.groups;
    let out = |i: usize| {
        let (len, k) = ([h, width][i], [kh, kw][i]);
        let (s, p, d) = (options.stride[i], options.padding[i], options.dilation[i]);
        let grown = len.checked_sub(1)? * s + d * k.checked_sub(1)? + output_padding[i] + 1;
        (s > 0 && d > 0 && output_padding[i] < s)
            .then(|| grown.checked_sub(2 * p))
            .flatten()
            .filter(|len| *len > 0)
    };
    let (o, sizes) = (og * g, (out(0), out(1)));
    let fits = g > 0 && c == wc && c % g == 0 && n * o > 0;
    let (true, (Some(oh), Some(ow)), true) = (fits, sizes, b.is_none_or(|b| b.dims() == [o]))
    else {
        bail!(
            "conv_transpose2d: x {:?}, w {:?}, b {:?}, {options:?} and output_padding {output_padding:?} do not fit together (output_padding must be below the stride)",
            x.shape(),
            w.shape(),
            b.map(Tensor::shape)
        );
    };
    // The convolution that leads from the result to `x`.
    let shape = ConvShape {
        n,
        c: o,
        h: oh,
        w: ow,
        o: c,
        kernel: [kh, kw],
        stride: options.stride,
        padding: options.padding,
        dilation: options.dilation,
        groups: g,
    };
    let device = kernels(x.device())?;
    let (w, b) = (w.contiguous()?, b.map(Tensor::contiguous).transpose()?);
    let (rows, filters) = (rows_of(x)?, w.detach());
    let spread = device.conv2d_backward(
        &shape,
        &rows,
        &filters,
        &rows,
        InputGrad::New,
        [false, false],
    )?;
    let Some(mut y) = spread.dx else {
        bail!("conv_transpose2d: the kernels gave no result");
    };
    if let Some(b) = &b {
        let then = Epilogue {
            bias: Some(b),
            ..Default::default()
        };
        y = device.affine(&y, then)?;
    }
    let need = [x.track_op(), w.track_op()];
    let mut inputs = vec![x, &w];
    inputs.extend(&b);
    attach("conv_transpose2d", &inputs, planes_of(&y)?, move |dy| {
        let dy = device.to_rows(dy)?;
        let dx = need[0]
            .then(|| planes_of(&device.conv2d(&shape, &dy, &filters, Epilogue::default())?));
        // Seen from the convolution, `dy` went in and `x` came out.
        let want = [need[1], false];
        let g = device.conv2d_backward(&shape, &dy, &filters, &rows, InputGrad::Skip, want)?;
        let db = dy.flatten(0, 2)?.sum(0)?;
        Ok(vec![dx.transpose()?, g.dw, Some(db)])
    })
}

/// `x wᵀ + b`: `x` (N, D), `w` (O, D), `b` (O); result (N, O).
///
/// # Errors
/// If the shapes don't fit.
pub fn linear(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    let ((_, d), (o, wd)) = (x.dims2()?, w.dims2()?);
    if d != wd || b.is_some_and(|b| b.dims() != [o]) {
        bail!(
            "linear: x {:?}, w {:?}, b {:?} do not fit together",
            x.shape(),
            w.shape(),
            b.map(Tensor::shape)
        );
    }
    let device = kernels(x.device())?;
    let (x, w) = (x.contiguous()?, w.contiguous()?);
    let b = b.map(Tensor::contiguous).transpose()?;
    let (input, weight) = (x.detach(), w.detach());
    let y = device.linear(&input, &weight, b.as_ref())?;
    let need = [
        x.track_op(),
        w.track_op(),
        b.as_ref().is_some_and(Tensor::track_op),
    ];
    let mut inputs = vec![&x, &w];
    inputs.extend(&b);
    attach("linear", &inputs, y, move |dy| {
        let g = device.linear_backward(&input, &weight, dy, need)?;
        Ok(vec![g.dx, g.dw, g.db])
    })
}
