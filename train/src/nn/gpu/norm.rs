//! Batch norm: moments of chunks of rows, merged in order, then one pass of `x * scale + shift`.

use candle_core::{D, DType, Result, Tensor};

use super::launch::{LANES, blocks, int, long, split};
use super::{Arg, Gpu};
use crate::nn::kernels::{BatchStats, Epilogue, FoldedNorm, NormGrads};

impl Gpu {
    pub(super) fn norm_forward(
        &self,
        x: &Tensor,
        [w, b]: [&Tensor; 2],
        eps: f64,
        groups: usize,
        residual: Option<&Tensor>,
        relu: bool,
    ) -> Result<(Tensor, BatchStats)> {
        let width = x.dim(D::Minus1)?;
        let group = x.elem_count() / groups;
        let rows = group / width;
        let pointer = [self.pointer(x)?];
        let (kernel, lanes) = self.vector_kernel("norm_moments", x.dtype(), width, &pointer)?;
        let columns = width.div_ceil(lanes * LANES);
        let (chunks, chunk_rows) = split(rows, columns * groups);
        let moments = self.empty((groups, chunks, 2, width), DType::F32)?;
        self.run(
            "norm",
            &kernel,
            [columns, chunks, groups],
            &[
                pointer[0],
                self.pointer(&moments)?,
                long(rows),
                int(width)?,
                int(chunk_rows)?,
            ],
        )?;
        let per_group = || self.empty((groups, width), DType::F32);
        let stats = BatchStats {
            groups,
            mean: per_group()?,
            inv_std: per_group()?,
            unbiased_var: per_group()?,
        };
        let (scale, shift) = (per_group()?, per_group()?);
        self.run(
            "norm",
            "norm_moments_end",
            blocks(groups * width),
            &[
                self.pointer(&moments)?,
                int(chunks)?,
                long(rows),
                int(chunk_rows)?,
                int(width)?,
                int(groups)?,
                Arg::F64(eps),
                self.pointer(w)?,
                self.pointer(b)?,
                own_scales(w, width),
                self.pointer(&stats.mean)?,
                self.pointer(&stats.inv_std)?,
                self.pointer(&stats.unbiased_var)?,
                self.pointer(&scale)?,
                self.pointer(&shift)?,
            ],
        )?;
        let y = self.empty(x.shape(), x.dtype())?;
        let then = Epilogue {
            scale: Some(&scale),
            bias: Some(&shift),
            residual,
            relu,
        };
        self.apply_affine(x, &y, then, group)?;
        Ok((y, stats))
    }

    /// `dy` becomes, in place, the gradient behind the ReLU; with a shortcut that is the shortcut's gradient, and the
    /// input's goes elsewhere, else it takes its place.
    pub(super) fn norm_backward(
        &self,
        stats: &BatchStats,
        frozen: bool,
        x: &Tensor,
        w: &Tensor,
        y: Option<&Tensor>,
        dy: Tensor,
        has_residual: bool,
    ) -> Result<NormGrads> {
        let (width, groups) = (x.dim(D::Minus1)?, stats.groups);
        let group = x.elem_count() / groups;
        let rows = group / width;
        let maps = [
            self.pointer(x)?,
            self.pointer_or_null(y)?,
            self.pointer(&dy)?,
        ];
        let (kernel, lanes) = self.vector_kernel("norm_sums", x.dtype(), width, &maps)?;
        let columns = width.div_ceil(lanes * LANES);
        let (chunks, chunk_rows) = split(rows, columns * groups);
        let sums = self.empty((groups, chunks, 2, width), DType::F32)?;
        self.run(
            "norm",
            &kernel,
            [columns, chunks, groups],
            &[
                maps[0],
                maps[1],
                maps[2],
                self.pointer(&stats.mean)?,
                self.pointer(&sums)?,
                long(rows),
                int(width)?,
                int(chunk_rows)?,
            ],
        )?;
        let dw = self.empty(w.shape(), DType::F32)?;
        let db = self.empty(w.shape(), DType::F32)?;
        let slopes = self.empty((3, groups, width), DType::F32)?;
        let start = self.driver.address(&slopes)?;
        let slope = |i: usize| Arg::Pointer(start + (4 * i * groups * width) as u64);
        self.run(
            "norm",
            "norm_sums_end",
            blocks(width),
            &[
                self.pointer(&sums)?,
                int(chunks)?,
                long(rows),
                int(width)?,
                int(groups)?,
                self.pointer(w)?,
                own_scales(w, width),
                self.pointer(&stats.mean)?,
                self.pointer(&stats.inv_std)?,
                Arg::I32(frozen.into()),
                self.pointer(&dw)?,
                self.pointer(&db)?,
                slope(0),
                slope(1),
                slope(2),
            ],
        )?;
        let (dx, dresidual) = if has_residual {
            (self.empty(x.shape(), x.dtype())?, Some(dy.clone()))
        } else {
            (dy.clone(), None)
        };
        let maps = [maps[0], maps[2], self.pointer(&dx)?];
        let all = [maps[0], maps[1], maps[2], slope(0), slope(1), slope(2)];
        let (kernel, lanes) = self.vector_kernel("norm_combine", x.dtype(), width, &all)?;
        let n = x.elem_count();
        let more = [long(n), int(width)?, long(group)];
        self.run(
            "norm",
            &kernel,
            blocks(n / lanes),
            &[&all[..], &more].concat(),
        )?;
        Ok(NormGrads {
            dx,
            dw,
            db,
            dresidual,
        })
    }

    pub(super) fn norm_fold(&self, of: [&Tensor; 4], eps: f64) -> Result<FoldedNorm> {
        let width = of[0].elem_count();
        let folded = FoldedNorm {
            scale: self.empty(width, DType::F32)?,
            shift: self.empty(width, DType::F32)?,
            inv_std: self.empty(width, DType::F32)?,
        };
        self.run(
            "norm",
            "norm_fold",
            blocks(width),
            &[
                self.pointer(of[0])?,
                self.pointer(of[1])?,
                self.pointer(of[2])?,
                self.pointer(of[3])?,
                Arg::F64(eps),
                self.pointer(&folded.scale)?,
                self.pointer(&folded.shift)?,
                self.pointer(&folded.inv_std)?,
                int(width)?,
            ],
        )?;
        Ok(folded)
    }

    pub(super) fn norm_running(
        &self,
        running: &Tensor,
        fresh: &Tensor,
        groups: usize,
        momentum: f64,
    ) -> Result<()> {
        let width = running.elem_count();
        self.run(
            "norm",
            "norm_running",
            blocks(width),
            &[
                self.pointer(running)?,
                self.pointer(fresh)?,
                int(groups)?,
                int(width)?,
                Arg::F64(momentum),
            ],
        )
    }
}

/// Whether every group has weights of its own rather than all sharing `width`.
fn own_scales(w: &Tensor, width: usize) -> Arg {
    Arg::I32((w.elem_count() != width).into())
}
