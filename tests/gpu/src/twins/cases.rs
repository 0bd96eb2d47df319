//! What is compared: each case runs an operator on one side and keeps its results.

use candle_core::{DType, Result, Tensor};
use reid_train::nn::kernels::{
    AdamItem, AdamRates, ConvShape, Epilogue, GlobalPool, InputGrad, PoolShape, SgdItem, SgdRates,
    Windows,
};

use super::Side;

type Case = (&'static str, fn(&mut Side) -> Result<()>);

/// All of them. Widths of 8 are read in vectors, odd ones are not.
pub(super) const ALL: &[Case] = &[
    ("to_rows, to_planes", layout),
    ("conv2d 1x1", |s| conv(s, shape([3, 16, 6, 5], 24, 1, 1, 1))),
    ("conv2d 1x1, stride 2", |s| {
        conv(s, shape([2, 16, 7, 5], 8, 1, 2, 1))
    }),
    ("conv2d 3x3", |s| conv(s, shape([2, 16, 7, 5], 8, 3, 1, 1))),
    ("conv2d 3x3, stride 2", |s| {
        conv(s, shape([3, 8, 8, 6], 16, 3, 2, 1))
    }),
    ("conv2d 7x7, stride 2, 3 channels", |s| {
        conv(s, shape([2, 3, 16, 12], 16, 7, 2, 1))
    }),
    ("conv2d 3x3, 4 groups", |s| {
        conv(s, shape([2, 32, 5, 6], 16, 3, 1, 4))
    }),
    ("conv2d 3x3, dilation 2", dilated),
    ("batch_norm", |s| norm(s, 1, false, false)),
    ("batch_norm + relu", |s| norm(s, 1, false, true)),
    ("batch_norm + shortcut + relu", |s| norm(s, 1, true, true)),
    ("batch_norm, 2 groups", |s| norm(s, 2, true, true)),
    ("batch_norm, a scale for each sample", adain),
    ("batch_norm of vectors", norm_of_vectors),
    ("batch_norm, constant statistics", frozen_norm),
    ("running statistics", running),
    ("layer_norm", layer_norm),
    ("affine", affine),
    ("relu", relu),
    ("leaky_relu", leaky_relu),
    ("add", add),
    ("max_pool2d", |s| max_pool(s, 3, 2, 1)),
    ("max_pool2d without overlap", |s| max_pool(s, 2, 2, 0)),
    ("window_sum, window_spread", window_sum),
    ("window_max", window_max),
    ("global average pool", |s| global_pool(s, GlobalPool::Avg)),
    ("global max pool", |s| global_pool(s, GlobalPool::Max)),
    ("GeM pool", |s| {
        global_pool(s, GlobalPool::Gem { eps: 1e-6 })
    }),
    ("linear", linear),
    ("l2_normalize", l2_normalize),
    ("squares", squares),
    ("Adam", |s| adam(s, false, None)),
    ("Adam, AMSGrad, clipped", |s| adam(s, true, Some(0.5))),
    ("Adam, a gradient of NaN", adam_refuses),
    ("SGD", |s| sgd(s, false, None)),
    ("SGD, Nesterov, clipped", |s| sgd(s, true, Some(0.5))),
    ("moving average", ema),
];

fn shape([n, c, h, w]: [usize; 4], o: usize, k: usize, stride: usize, groups: usize) -> ConvShape {
    ConvShape {
        n,
        c,
        h,
        w,
        o,
        kernel: [k, k],
        stride: [stride, stride],
        padding: [k / 2, k / 2],
        dilation: [1, 1],
        groups,
    }
}

fn layout(s: &mut Side) -> Result<()> {
    let images = s.vector(&[3, 5, 33, 7])?;
    let rows = s.kernels.to_rows(&images)?;
    s.result("rows", &rows)?;
    let planes = s.kernels.to_planes(&rows)?;
    s.result("planes", &planes)
}

fn dilated(s: &mut Side) -> Result<()> {
    let mut shape = shape([2, 8, 9, 7], 8, 3, 1, 1);
    shape.dilation = [2, 2];
    shape.padding = [2, 1];
    conv(s, shape)
}

fn conv(s: &mut Side, shape: ConvShape) -> Result<()> {
    let [k, _] = shape.kernel;
    let [oh, ow] = shape.out();
    let x = s.map(&[shape.n, shape.h, shape.w, shape.c])?;
    let w = s.vector(&[shape.o, shape.c / shape.groups, k, k])?;
    let (scale, bias) = (s.positive(&[shape.o])?, s.vector(&[shape.o])?);
    let residual = s.map(&[shape.n, oh, ow, shape.o])?;
    let dy = s.map(&[shape.n, oh, ow, shape.o])?;
    let sum = s.map(&[shape.n, shape.h, shape.w, shape.c])?;
    let y = s.kernels.conv2d(&shape, &x, &w, Epilogue::default())?;
    s.result("y", &y)?;
    let then = Epilogue {
        scale: Some(&scale),
        bias: Some(&bias),
        residual: Some(&residual),
        relu: true,
    };
    let y = s.kernels.conv2d(&shape, &x, &w, then)?;
    s.result("y with epilogue", &y)?;
    let backward = |s: &Side, dx| {
        s.kernels
            .conv2d_backward(&shape, &x, &w, &dy, dx, [true, true])
    };
    let fresh = backward(s, InputGrad::New)?;
    let added = backward(s, InputGrad::AddTo(sum))?;
    for (name, t) in [
        ("dx", &fresh.dx),
        ("dw", &fresh.dw),
        ("db", &fresh.db),
        ("dx added", &added.dx),
    ] {
        let Some(t) = t else {
            candle_core::bail!("{name} is missing");
        };
        s.result(name, t)?;
    }
    if backward(s, InputGrad::Skip)?.dx.is_some() {
        candle_core::bail!("a gradient nobody asked for");
    }
    Ok(())
}

fn norm(s: &mut Side, groups: usize, shortcut: bool, relu: bool) -> Result<()> {
    for c in [16, 5] {
        let x = s.map(&[4, 9, 3, c])?;
        let (w, b) = (s.positive(&[c])?, s.vector(&[c])?);
        norm_on(s, x, [w, b], groups, shortcut, relu)?;
    }
    Ok(())
}

fn adain(s: &mut Side) -> Result<()> {
    let x = s.map(&[3, 5, 4, 8])?;
    let (w, b) = (s.positive(&[3, 8])?, s.vector(&[3, 8])?);
    norm_on(s, x, [w, b], 3, false, false)
}

fn norm_on(
    s: &mut Side,
    x: Tensor,
    [w, b]: [Tensor; 2],
    groups: usize,
    shortcut: bool,
    relu: bool,
) -> Result<()> {
    let residual = match shortcut {
        true => Some(s.map(x.dims())?),
        false => None,
    };
    let dy = s.map(x.dims())?;
    let (y, stats) =
        s.kernels
            .batch_norm_train(&x, &w, &b, 1e-5, groups, residual.as_ref(), relu)?;
    s.result("y", &y)?;
    s.result("mean", &stats.mean)?;
    s.result("inv_std", &stats.inv_std)?;
    s.result("unbiased_var", &stats.unbiased_var)?;
    // The twin's own mask, or a value that bf16 rounds to 0 would count as a difference of gradients.
    let mask = relu.then_some(&y);
    let g = s
        .kernels
        .batch_norm_backward(&stats, false, &x, &w, mask, dy, shortcut)?;
    s.result("dx", &g.dx)?;
    s.result("dw", &g.dw)?;
    s.result("db", &g.db)?;
    if let Some(d) = &g.dresidual {
        s.result("dresidual", d)?;
    }
    Ok(())
}

fn norm_of_vectors(s: &mut Side) -> Result<()> {
    let x = s.vector(&[10, 24])?;
    let (w, b, dy) = (s.positive(&[24])?, s.vector(&[24])?, s.vector(&[10, 24])?);
    let (y, stats) = s
        .kernels
        .batch_norm_train(&x, &w, &b, 1e-5, 1, None, false)?;
    s.result("y", &y)?;
    let g = s
        .kernels
        .batch_norm_backward(&stats, false, &x, &w, None, dy, false)?;
    s.result("dx", &g.dx)
}

fn frozen_norm(s: &mut Side) -> Result<()> {
    let c = 16;
    let (w, b) = (s.positive(&[c])?, s.vector(&[c])?);
    let (mean, var) = (s.vector(&[c])?, s.positive(&[c])?);
    let folded = s.kernels.fold_norm(&w, &b, &mean, &var, 1e-5)?;
    s.result("scale", &folded.scale)?;
    s.result("shift", &folded.shift)?;
    s.result("inv_std", &folded.inv_std)?;
    let stats = reid_train::nn::kernels::BatchStats {
        groups: 1,
        mean,
        inv_std: folded.inv_std,
        unbiased_var: var,
    };
    let (x, dy) = (s.map(&[2, 3, 5, c])?, s.map(&[2, 3, 5, c])?);
    let g = s
        .kernels
        .batch_norm_backward(&stats, true, &x, &w, None, dy, false)?;
    s.result("dx", &g.dx)?;
    s.result("dw", &g.dw)?;
    s.result("db", &g.db)
}

fn running(s: &mut Side) -> Result<()> {
    let (running, fresh) = (s.vector(&[13])?, s.vector(&[3, 13])?);
    s.kernels.blend(&running, &fresh, 3, 0.1)?;
    s.result("mean of groups", &running)?;
    s.kernels.blend(&running, &fresh, 1, 0.25)?;
    s.result("first group", &running)
}

fn layer_norm(s: &mut Side) -> Result<()> {
    let (x, dy) = (s.vector(&[7, 300])?, s.vector(&[7, 300])?);
    let (w, b) = (s.positive(&[300])?, s.vector(&[300])?);
    for affine in [Some((&w, &b)), None] {
        let (w, b) = affine.unzip();
        let (y, stats) = s.kernels.layer_norm(&x, w, b, 1e-6)?;
        s.result("y", &y)?;
        let g = s.kernels.layer_norm_backward(&stats, &x, w, &dy)?;
        s.result("dx", &g.dx)?;
        s.result("dw", &g.dw)?;
        s.result("db", &g.db)?;
    }
    Ok(())
}

fn affine(s: &mut Side) -> Result<()> {
    for c in [8, 3] {
        let (x, residual) = (s.map(&[2, 5, 4, c])?, s.map(&[2, 5, 4, c])?);
        let (scale, bias) = (s.vector(&[c])?, s.vector(&[c])?);
        let then = Epilogue {
            scale: Some(&scale),
            bias: Some(&bias),
            residual: Some(&residual),
            relu: true,
        };
        let y = s.kernels.affine(&x, then)?;
        s.result("y", &y)?;
    }
    Ok(())
}

fn relu(s: &mut Side) -> Result<()> {
    for c in [7, 8] {
        let (x, dy) = (s.map(&[2, 5, 3, c])?, s.map(&[2, 5, 3, c])?);
        let y = s.kernels.relu(&x)?;
        s.result("y", &y)?;
        let dx = s.kernels.relu_backward(&y, dy)?;
        s.result("dx", &dx)?;
    }
    Ok(())
}

fn leaky_relu(s: &mut Side) -> Result<()> {
    let (x, dy) = (s.map(&[2, 5, 3, 7])?, s.map(&[2, 5, 3, 7])?);
    let y = s.kernels.leaky_relu(&x, 0.01)?;
    s.result("y", &y)?;
    let dx = s.kernels.leaky_relu_backward(&x, &dy, 0.01)?;
    s.result("dx", &dx)
}

fn add(s: &mut Side) -> Result<()> {
    for c in [8, 7] {
        let (a, b) = (s.map(&[2, 5, 3, c])?, s.map(&[2, 5, 3, c])?);
        let y = s.kernels.add(&a, &b, true)?;
        s.result("sum, relu", &y)?;
        s.kernels.add_assign(&a, &b)?;
        s.result("sum in place", &a)?;
    }
    Ok(())
}

fn max_pool(s: &mut Side, k: usize, stride: usize, padding: usize) -> Result<()> {
    let shape = PoolShape {
        n: 2,
        c: 8,
        h: 9,
        w: 6,
        kernel: [k, k],
        stride: [stride, stride],
        padding: [padding, padding],
    };
    let [oh, ow] = shape.out();
    let (x, dy) = (s.map(&[2, 9, 6, 8])?, s.map(&[2, oh, ow, 8])?);
    let (y, positions) = s.kernels.max_pool2d(&shape, &x)?;
    s.result("y", &y)?;
    s.result("positions", &positions)?;
    let dx = s.kernels.max_pool2d_backward(&shape, &positions, &dy)?;
    s.result("dx", &dx)
}

/// Overlapping windows, a gap, an empty one.
fn windows() -> Windows {
    Windows {
        input: [7, 6],
        ys: vec![0..3, 2..5, 4..4, 6..7],
        xs: vec![0..6, 1..3, 5..6],
        weights: (1..=12).map(|i| 0.25 * i as f32).collect(),
    }
}

fn window_sum(s: &mut Side) -> Result<()> {
    let (x, y) = (s.map(&[2, 7, 6, 5])?, s.map(&[2, 4, 3, 5])?);
    let sums = s.kernels.window_sum(&windows(), &x)?;
    s.result("sums", &sums)?;
    let spread = s.kernels.window_spread(&windows(), &y)?;
    s.result("spread", &spread)
}

fn window_max(s: &mut Side) -> Result<()> {
    let mut windows = windows();
    // The maximum of nothing is minus infinity, which has no relative error.
    windows.ys[2] = 4..6;
    let (x, dy) = (s.map(&[2, 7, 6, 5])?, s.map(&[2, 4, 3, 5])?);
    let (y, positions) = s.kernels.window_max(&windows, &x)?;
    s.result("y", &y)?;
    s.result("positions", &positions)?;
    let dx = s.kernels.window_max_backward(&windows, &positions, &dy)?;
    s.result("dx", &dx)
}

fn global_pool(s: &mut Side, kind: GlobalPool) -> Result<()> {
    let (x, dy) = (s.map(&[3, 5, 4, 16])?, s.vector(&[3, 16])?);
    let p = match kind {
        GlobalPool::Gem { .. } => Some(Tensor::new(&[3f32], &s.device)?),
        _ => None,
    };
    let y = s.kernels.global_pool(kind, p.as_ref(), &x)?;
    s.result("y", &y)?;
    let (dx, dp) = s
        .kernels
        .global_pool_backward(kind, p.as_ref(), &x, &y, &dy)?;
    s.result("dx", &dx)?;
    match dp {
        Some(dp) => s.result("dp", &dp),
        None => Ok(()),
    }
}

fn linear(s: &mut Side) -> Result<()> {
    let (x, w) = (s.vector(&[6, 40])?, s.vector(&[11, 40])?);
    let (b, dy) = (s.vector(&[11])?, s.vector(&[6, 11])?);
    let y = s.kernels.linear(&x, &w, Some(&b))?;
    s.result("y", &y)?;
    let y = s.kernels.linear(&x, &w, None)?;
    s.result("y without bias", &y)?;
    let g = s.kernels.linear_backward(&x, &w, &dy, [true; 3])?;
    for (name, t) in [("dx", g.dx), ("dw", g.dw), ("db", g.db)] {
        let Some(t) = t else {
            candle_core::bail!("{name} is missing");
        };
        s.result(name, &t)?;
    }
    Ok(())
}

fn l2_normalize(s: &mut Side) -> Result<()> {
    let (x, dy) = (s.vector(&[5, 70])?, s.vector(&[5, 70])?);
    // A row of zeros.
    let rows = Tensor::cat(&[&x.narrow(0, 0, 4)?, &x.narrow(0, 4, 1)?.zeros_like()?], 0)?;
    let y = s.kernels.l2_normalize(&rows, 1e-12)?;
    s.result("y", &y)?;
    let dx = s.kernels.l2_normalize_backward(&rows, &dy, 1e-12)?;
    s.result("dx", &dx)
}

/// Sizes of parameters: more than a block's, a few, one.
const SIZES: [usize; 3] = [70_000, 17, 1];

fn squares(s: &mut Side) -> Result<()> {
    let mut tensors = Vec::new();
    for size in SIZES {
        tensors.push(s.vector(&[size])?);
    }
    let all: Vec<&Tensor> = tensors.iter().collect();
    let sums = s.kernels.squares(&all)?;
    if sums.dtype() != DType::F64 {
        candle_core::bail!("sums of squares in {:?}", sums.dtype());
    }
    s.result("sums", &sums)
}

fn adam(s: &mut Side, amsgrad: bool, clip: Option<f64>) -> Result<()> {
    adam_on(s, amsgrad, clip, false)
}

/// Nothing may change.
fn adam_refuses(s: &mut Side) -> Result<()> {
    adam_on(s, false, None, true)
}

fn adam_on(s: &mut Side, amsgrad: bool, clip: Option<f64>, broken: bool) -> Result<()> {
    let mut parts = Vec::new();
    for size in SIZES {
        let (p, mut g, m) = (s.vector(&[size])?, s.vector(&[size])?, s.vector(&[size])?);
        let (v, top) = (s.positive(&[size])?, s.positive(&[size])?);
        if broken && size == 17 {
            g = (g * f64::NAN)?;
        }
        parts.push([p, g, m, v, top]);
    }
    let rates = AdamRates {
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
    };
    let grads: Vec<&Tensor> = parts.iter().map(|[_, g, ..]| g).collect();
    let squares = s.kernels.squares(&grads)?;
    let items: Vec<AdamItem> = parts
        .iter()
        .map(|[p, g, m, v, top]| AdamItem {
            param: p,
            grad: g,
            mean: m,
            square: v,
            top: amsgrad.then_some(top),
            rate: 0.01,
            inv_sqrt_correction: 3.0,
            decay: 5e-4,
            keep: 0.999,
        })
        .collect();
    s.kernels.adam(&items, rates, &squares, clip)?;
    for [p, _, m, v, top] in &parts {
        s.result("parameter", p)?;
        s.result("mean", m)?;
        s.result("square", v)?;
        s.result("top", top)?;
    }
    Ok(())
}

fn sgd(s: &mut Side, nesterov: bool, clip: Option<f64>) -> Result<()> {
    let mut parts = Vec::new();
    for size in SIZES {
        parts.push([s.vector(&[size])?, s.vector(&[size])?, s.vector(&[size])?]);
    }
    let rates = SgdRates {
        momentum: 0.9,
        nesterov,
    };
    let grads: Vec<&Tensor> = parts.iter().map(|[_, g, _]| g).collect();
    let squares = s.kernels.squares(&grads)?;
    let items: Vec<SgdItem> = parts
        .iter()
        .map(|[p, g, v]| SgdItem {
            param: p,
            grad: g,
            velocity: v,
            lr: 0.1,
            share: 0.5,
            decay: 5e-4,
        })
        .collect();
    s.kernels.sgd(&items, rates, &squares, clip)?;
    for [p, _, v] in &parts {
        s.result("parameter", p)?;
        s.result("velocity", v)?;
    }
    Ok(())
}

fn ema(s: &mut Side) -> Result<()> {
    let (a, b) = (s.vector(&[70_000])?, s.vector(&[70_000])?);
    let (c, d) = (s.vector(&[3, 5])?, s.vector(&[3, 5])?);
    s.kernels.ema(&[(&a, &b), (&c, &d)], 0.9)?;
    s.result("first", &a)?;
    s.result("second", &c)
}
