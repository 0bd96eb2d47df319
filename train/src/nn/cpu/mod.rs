//! [`Kernels`] for processors: rayon over parts of the result, the `gemm` crate inside, f32 throughout.

mod buffer;
mod columns;
mod conv;
mod direct;
mod elementwise;
mod matmul;
mod norm;
mod pool;
mod rows;
mod update;
mod windows;

use candle_core::{D, DType, Result, Tensor};

use buffer::{edit, tensor, uninit, view, view_opt, with_u32};
use elementwise::Finish;
use matmul::{rows, transposed};

use super::kernels::{
    AdamItem, AdamRates, BatchStats, ConvShape, Epilogue, FoldedNorm, GlobalPool, InputGrad,
    Kernels, NormGrads, PoolShape, RowStats, SgdItem, SgdRates, WeightedGrads, Windows, clip_scale,
};

/// The processor. Stateless; column workspaces belong to rayon's threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu;

impl Kernels for Cpu {
    fn map_dtype(&self) -> DType {
        DType::F32
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    fn is_zero(&self, x: &Tensor) -> Result<bool> {
        Ok(view(x)?.iter().all(|x| *x == 0.0))
    }

    fn to_rows(&self, x: &Tensor) -> Result<Tensor> {
        let (n, c, h, w) = x.dims4()?;
        tensor(elementwise::transpose(&view(x)?, n, c, h * w), (n, h, w, c))
    }

    fn to_planes(&self, x: &Tensor) -> Result<Tensor> {
        let (n, h, w, c) = x.dims4()?;
        tensor(elementwise::transpose(&view(x)?, n, h * w, c), (n, c, h, w))
    }

    fn conv2d(&self, s: &ConvShape, x: &Tensor, w: &Tensor, then: Epilogue) -> Result<Tensor> {
        let (x, w) = (view(x)?, view(w)?);
        let (scale, bias, residual) = (
            view_opt(then.scale)?,
            view_opt(then.bias)?,
            view_opt(then.residual)?,
        );
        let packed = conv::pack(s, &w, scale.as_deref());
        let finish = Finish {
            bias: bias.as_deref(),
            residual: residual.as_deref(),
            relu: then.relu,
        };
        let [oh, ow] = s.out();
        let mut y = uninit(s.rows() * s.o);
        conv::forward(s, &x, &packed, &mut y, false, &finish);
        tensor(y, (s.n, oh, ow, s.o))
    }

    fn conv2d_backward(
        &self,
        s: &ConvShape,
        x: &Tensor,
        w: &Tensor,
        dy: &Tensor,
        dx: InputGrad,
        [need_w, need_b]: [bool; 2],
    ) -> Result<WeightedGrads> {
        let (shape, x, weights, dy) = (w.dims().to_vec(), view(x)?, view(w)?, view(dy)?);
        let dx = match dx {
            InputGrad::Skip => None,
            InputGrad::New => {
                let mut dx = uninit(s.n * s.h * s.w * s.c);
                conv::input_grad(s, &weights, &dy, &mut dx, false);
                Some(tensor(dx, (s.n, s.h, s.w, s.c))?)
            }
            InputGrad::AddTo(dx) => {
                edit(&dx, |dx| conv::input_grad(s, &weights, &dy, dx, true))?;
                Some(dx)
            }
        };
        let dw = if need_w {
            Some(tensor(conv::weight_grad(s, &x, &dy), shape)?)
        } else {
            None
        };
        let db = if need_b {
            Some(column_sum(&dy, s.o)?)
        } else {
            None
        };
        Ok(WeightedGrads { dx, dw, db })
    }

    fn batch_norm_train(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        eps: f64,
        groups: usize,
        residual: Option<&Tensor>,
        relu: bool,
    ) -> Result<(Tensor, BatchStats)> {
        let r = view_opt(residual)?;
        let (y, stats) = norm::forward(
            &view(x)?,
            x.dim(D::Minus1)?,
            (&view(w)?, &view(b)?),
            eps,
            groups,
            r.as_deref(),
            relu,
        );
        let per_group = (groups, x.dim(D::Minus1)?);
        let stats = BatchStats {
            groups,
            mean: tensor(stats.mean, per_group)?,
            inv_std: tensor(stats.inv_std, per_group)?,
            unbiased_var: tensor(stats.unbiased_var, per_group)?,
        };
        Ok((tensor(y, x.shape())?, stats))
    }

    fn batch_norm_backward(
        &self,
        stats: &BatchStats,
        frozen: bool,
        x: &Tensor,
        w: &Tensor,
        y: Option<&Tensor>,
        dy: Tensor,
        has_residual: bool,
    ) -> Result<NormGrads> {
        let (xv, wv, yv) = (view(x)?, view(w)?, view_opt(y)?);
        let width = x.dim(D::Minus1)?;
        let (mean, inv_std) = (view(&stats.mean)?, view(&stats.inv_std)?);
        let mut grads = None;
        edit(&dy, |dy| {
            grads = Some(norm::backward(
                (stats.groups, &mean, &inv_std),
                frozen,
                &xv,
                width,
                &wv,
                yv.as_deref(),
                dy,
                has_residual,
            ));
        })?;
        let Some(norm::Grads { dx, dw, db }) = grads else {
            candle_core::bail!("the gradient of a batch norm was not computed");
        };
        let (dw, db) = (tensor(dw, w.shape())?, tensor(db, w.shape())?);
        Ok(match dx {
            Some(dx) => NormGrads {
                dx: tensor(dx, x.shape())?,
                dw,
                db,
                dresidual: Some(dy),
            },
            None => NormGrads {
                dx: dy,
                dw,
                db,
                dresidual: None,
            },
        })
    }

    fn fold_norm(
        &self,
        w: &Tensor,
        b: &Tensor,
        mean: &Tensor,
        var: &Tensor,
        eps: f64,
    ) -> Result<FoldedNorm> {
        let [scale, shift, inv_std] =
            norm::fold(&view(w)?, &view(b)?, &view(mean)?, &view(var)?, eps);
        Ok(FoldedNorm {
            scale: tensor(scale, w.shape())?,
            shift: tensor(shift, w.shape())?,
            inv_std: tensor(inv_std, w.shape())?,
        })
    }

    fn blend(&self, running: &Tensor, fresh: &Tensor, groups: usize, momentum: f64) -> Result<()> {
        let fresh = view(fresh)?;
        edit(running, |running| {
            norm::blend(running, &fresh, groups, momentum);
        })
    }

    fn layer_norm(
        &self,
        x: &Tensor,
        w: Option<&Tensor>,
        b: Option<&Tensor>,
        eps: f64,
    ) -> Result<(Tensor, RowStats)> {
        let (w, b) = (view_opt(w)?, view_opt(b)?);
        let width = x.dim(D::Minus1)?;
        let (y, mean, inv_std) =
            self::rows::layer_norm(&view(x)?, width, w.as_deref(), b.as_deref(), eps);
        let rows = mean.len();
        let stats = RowStats {
            mean: tensor(mean, rows)?,
            inv_std: tensor(inv_std, rows)?,
        };
        Ok((tensor(y, x.shape())?, stats))
    }

    fn layer_norm_backward(
        &self,
        stats: &RowStats,
        x: &Tensor,
        w: Option<&Tensor>,
        dy: &Tensor,
    ) -> Result<NormGrads> {
        let width = x.dim(D::Minus1)?;
        let w = view_opt(w)?;
        let stats = (&*view(&stats.mean)?, &*view(&stats.inv_std)?);
        let (dx, dw, db) =
            self::rows::layer_norm_backward(stats, &view(x)?, width, w.as_deref(), &view(dy)?);
        Ok(NormGrads {
            dx: tensor(dx, x.shape())?,
            dw: tensor(dw, width)?,
            db: tensor(db, width)?,
            dresidual: None,
        })
    }

    fn affine(&self, x: &Tensor, then: Epilogue) -> Result<Tensor> {
        let width = x.dim(D::Minus1)?;
        let (scale, bias, residual) = (
            view_opt(then.scale)?,
            view_opt(then.bias)?,
            view_opt(then.residual)?,
        );
        let finish = Finish {
            bias: bias.as_deref(),
            residual: residual.as_deref(),
            relu: then.relu,
        };
        let y = elementwise::affine(&view(x)?, width, scale.as_deref(), &finish);
        tensor(y, x.shape())
    }

    fn relu(&self, x: &Tensor) -> Result<Tensor> {
        let then = Epilogue {
            relu: true,
            ..Default::default()
        };
        self.affine(x, then)
    }

    fn relu_backward(&self, y: &Tensor, dy: Tensor) -> Result<Tensor> {
        let y = view(y)?;
        edit(&dy, |dy| elementwise::mask_by(&y, dy))?;
        Ok(dy)
    }

    fn leaky_relu(&self, x: &Tensor, slope: f32) -> Result<Tensor> {
        tensor(elementwise::leaky(&view(x)?, slope), x.shape())
    }

    fn leaky_relu_backward(&self, x: &Tensor, dy: &Tensor, slope: f32) -> Result<Tensor> {
        let dx = elementwise::leaky_backward(&view(x)?, &view(dy)?, slope);
        tensor(dx, x.shape())
    }

    fn add(&self, a: &Tensor, b: &Tensor, relu: bool) -> Result<Tensor> {
        tensor(elementwise::sum(&view(a)?, &view(b)?, relu), a.shape())
    }

    fn add_assign(&self, a: &Tensor, b: &Tensor) -> Result<()> {
        let b = view(b)?;
        edit(a, |a| elementwise::accumulate(a, &b))
    }

    fn max_pool2d(&self, s: &PoolShape, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let (y, positions) = pool::max_pool(s, &view(x)?);
        let [oh, ow] = s.out();
        let shape = (s.n, oh, ow, s.c);
        Ok((tensor(y, shape)?, tensor(positions, shape)?))
    }

    fn max_pool2d_backward(
        &self,
        s: &PoolShape,
        positions: &Tensor,
        dy: &Tensor,
    ) -> Result<Tensor> {
        let dy = view(dy)?;
        let dx = with_u32(positions, |p| pool::max_pool_backward(s, p, &dy))?;
        tensor(dx, (s.n, s.h, s.w, s.c))
    }

    fn window_sum(&self, windows: &Windows, x: &Tensor) -> Result<Tensor> {
        let (n, c) = (x.dim(0)?, x.dim(3)?);
        let y = windows::sum(windows, &view(x)?, n, c);
        tensor(y, (n, windows.ys.len(), windows.xs.len(), c))
    }

    fn window_spread(&self, windows: &Windows, y: &Tensor) -> Result<Tensor> {
        let (n, c) = (y.dim(0)?, y.dim(3)?);
        let [h, w] = windows.input;
        tensor(windows::spread(windows, &view(y)?, n, c), (n, h, w, c))
    }

    fn window_max(&self, windows: &Windows, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let (n, c) = (x.dim(0)?, x.dim(3)?);
        let (y, positions) = windows::max(windows, &view(x)?, n, c);
        let shape = (n, windows.ys.len(), windows.xs.len(), c);
        Ok((tensor(y, shape)?, tensor(positions, shape)?))
    }

    fn window_max_backward(
        &self,
        windows: &Windows,
        positions: &Tensor,
        dy: &Tensor,
    ) -> Result<Tensor> {
        let (n, c) = (dy.dim(0)?, dy.dim(3)?);
        let ([h, w], dy) = (windows.input, view(dy)?);
        let dx = with_u32(positions, |p| windows::max_backward(windows, p, &dy, n, c))?;
        tensor(dx, (n, h, w, c))
    }

    fn global_pool(&self, kind: GlobalPool, p: Option<&Tensor>, x: &Tensor) -> Result<Tensor> {
        let (n, h, w, c) = x.dims4()?;
        tensor(pool::global(kind, scalar(p)?, &view(x)?, h * w, c), (n, c))
    }

    fn global_pool_backward(
        &self,
        kind: GlobalPool,
        p: Option<&Tensor>,
        x: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let (_, h, w, c) = x.dims4()?;
        let exponent = scalar(p)?;
        let (xv, yv, dyv) = (view(x)?, view(y)?, view(dy)?);
        let (dx, dp) = pool::global_backward(kind, exponent, &xv, &yv, &dyv, h * w, c);
        let dp = p.map(|_| tensor(vec![dp], 1)).transpose()?;
        Ok((tensor(dx, x.shape())?, dp))
    }

    fn linear(&self, x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
        let ((n, d), (o, _)) = (x.dims2()?, w.dims2()?);
        let mut y = uninit(n * o);
        let (xv, wv) = (view(x)?, view(w)?);
        conv::parallel_product([n, o, d], &mut y, (&xv, rows(d)), (&wv, transposed(d)));
        if let Some(b) = b {
            let finish = Finish {
                bias: Some(&view(b)?),
                ..Default::default()
            };
            elementwise::finish_rows(&finish, 0, o, &mut y);
        }
        tensor(y, (n, o))
    }

    fn linear_backward(
        &self,
        x: &Tensor,
        w: &Tensor,
        dy: &Tensor,
        [need_x, need_w, need_b]: [bool; 3],
    ) -> Result<WeightedGrads> {
        let ((n, d), (o, _)) = (x.dims2()?, w.dims2()?);
        let (xv, wv, dyv) = (view(x)?, view(w)?, view(dy)?);
        let mut grads = WeightedGrads {
            dx: None,
            dw: None,
            db: None,
        };
        if need_x {
            let mut dx = uninit(n * d);
            conv::parallel_product([n, d, o], &mut dx, (&dyv, rows(o)), (&wv, rows(d)));
            grads.dx = Some(tensor(dx, (n, d))?);
        }
        if need_w {
            let mut dw = uninit(o * d);
            conv::parallel_product([o, d, n], &mut dw, (&dyv, transposed(o)), (&xv, rows(d)));
            grads.dw = Some(tensor(dw, (o, d))?);
        }
        if need_b {
            grads.db = Some(column_sum(&dyv, o)?);
        }
        Ok(grads)
    }

    fn l2_normalize(&self, x: &Tensor, eps: f64) -> Result<Tensor> {
        let (_, d) = x.dims2()?;
        tensor(self::rows::l2_normalize(&view(x)?, d, eps), x.shape())
    }

    fn l2_normalize_backward(&self, x: &Tensor, dy: &Tensor, eps: f64) -> Result<Tensor> {
        let (_, d) = x.dims2()?;
        let dx = self::rows::l2_normalize_backward(&view(x)?, &view(dy)?, d, eps);
        tensor(dx, x.shape())
    }

    fn squares(&self, tensors: &[&Tensor]) -> Result<Tensor> {
        let sums = tensors
            .iter()
            .map(|t| Ok(update::sum_of_squares(&view(t)?)))
            .collect::<Result<Vec<f64>>>()?;
        tensor(sums, tensors.len())
    }

    fn adam(
        &self,
        items: &[AdamItem],
        rates: AdamRates,
        squares: &Tensor,
        clip: Option<f64>,
    ) -> Result<()> {
        match clip_scale(squares.to_vec1::<f64>()?.iter().sum(), clip) {
            Some(scale) => update::adam(items, rates, scale),
            None => Ok(()),
        }
    }

    fn sgd(
        &self,
        items: &[SgdItem],
        rates: SgdRates,
        squares: &Tensor,
        clip: Option<f64>,
    ) -> Result<()> {
        match clip_scale(squares.to_vec1::<f64>()?.iter().sum(), clip) {
            Some(scale) => update::sgd(items, rates, scale),
            None => Ok(()),
        }
    }

    fn ema(&self, pairs: &[(&Tensor, &Tensor)], alpha: f32) -> Result<()> {
        for (own, from) in pairs {
            let from = view(from)?;
            edit(own, |own| update::ema(own, &from, alpha))?;
        }
        Ok(())
    }
}

/// GeM's exponent, or 0 where there is none.
fn scalar(p: Option<&Tensor>) -> Result<f32> {
    match p.map(view).transpose()?.as_deref() {
        None => Ok(0.0),
        Some([p]) => Ok(*p),
        Some(other) => candle_core::bail!("gem_pool: p has one element, got {}", other.len()),
    }
}

/// Sum over rows of `width`, in double precision and in order.
fn column_sum(x: &[f32], width: usize) -> Result<Tensor> {
    let mut sums = vec![0f64; width];
    for row in x.chunks_exact(width) {
        for (s, x) in sums.iter_mut().zip(row) {
            *s += f64::from(*x);
        }
    }
    tensor(
        sums.into_iter().map(|s| s as f32).collect::<Vec<_>>(),
        width,
    )
}
