//! What is normalised row by row: a block for each.

use candle_core::{D, DType, Result, Tensor};

use super::launch::{blocks, int};
use super::{Arg, Gpu};
use crate::nn::kernels::{NormGrads, RowStats};

impl Gpu {
    /// A kernel with a block for each row of `width`: pointers, width, then eps if there is one.
    pub(super) fn per_row(
        &self,
        kernel: &str,
        tensors: &[&Tensor],
        width: usize,
        eps: Option<f64>,
    ) -> Result<()> {
        let pointers = tensors
            .iter()
            .map(|t| self.pointer(t))
            .collect::<Result<Vec<_>>>()?;
        let rows = tensors[0].elem_count() / width.max(1);
        self.block_per_row(kernel, pointers, rows, width, eps)
    }

    fn block_per_row(
        &self,
        kernel: &str,
        mut args: Vec<Arg>,
        rows: usize,
        width: usize,
        eps: Option<f64>,
    ) -> Result<()> {
        args.push(int(width)?);
        args.extend(eps.map(Arg::F64));
        self.run("rows", kernel, [rows, 1, 1], &args)
    }

    pub(super) fn rows_norm(
        &self,
        x: &Tensor,
        w: Option<&Tensor>,
        b: Option<&Tensor>,
        eps: f64,
    ) -> Result<(Tensor, RowStats)> {
        let width = x.dim(D::Minus1)?;
        let rows = x.elem_count() / width.max(1);
        let y = self.empty(x.shape(), DType::F32)?;
        let stats = RowStats {
            mean: self.empty(rows, DType::F32)?,
            inv_std: self.empty(rows, DType::F32)?,
        };
        let pointers = vec![
            self.pointer(x)?,
            self.pointer_or_null(w)?,
            self.pointer_or_null(b)?,
            self.pointer(&y)?,
            self.pointer(&stats.mean)?,
            self.pointer(&stats.inv_std)?,
        ];
        self.block_per_row("layer_norm", pointers, rows, width, Some(eps))?;
        Ok((y, stats))
    }

    pub(super) fn rows_norm_backward(
        &self,
        stats: &RowStats,
        x: &Tensor,
        w: Option<&Tensor>,
        dy: &Tensor,
    ) -> Result<NormGrads> {
        let width = x.dim(D::Minus1)?;
        let rows = x.elem_count() / width.max(1);
        let dx = self.empty(x.shape(), DType::F32)?;
        let (mean, inv_std) = (self.pointer(&stats.mean)?, self.pointer(&stats.inv_std)?);
        let (from, slope) = (self.pointer(x)?, self.pointer(dy)?);
        let scale = self.pointer_or_null(w)?;
        let pointers = vec![from, scale, slope, mean, inv_std, self.pointer(&dx)?];
        self.block_per_row("layer_norm_backward", pointers, rows, width, None)?;
        let (dw, db) = (
            self.empty(width, DType::F32)?,
            self.empty(width, DType::F32)?,
        );
        self.run(
            "rows",
            "layer_norm_params",
            blocks(width),
            &[
                from,
                slope,
                mean,
                inv_std,
                self.pointer(&dw)?,
                self.pointer(&db)?,
                int(rows)?,
                int(width)?,
            ],
        )?;
        Ok(NormGrads {
            dx,
            dw,
            db,
            dresidual: None,
        })
    }
}
