//! Exact nearest neighbours and similarities, a block of rows at a time: the matrices of clustering and evaluation.

use std::ops::Range;

use candle_core::{DType, Result, Tensor};

use super::launch::{int, long};
use super::{Gpu, Matrix, Product};

/// What [`Gpu::nearest`] found, row by row.
pub struct Found {
    /// The `k` most similar rows of each row, equal ones by index; the row itself may be among them.
    pub indices: Vec<u32>,
    /// The least similarity of each row.
    pub least: Vec<f32>,
}

impl Gpu {
    /// For every row of `features` (N x `width`, row-major), the `k` rows of greatest dot product and the least dot product
    /// of all, in f32 whatever the precision of networks is.
    ///
    /// Memory on the device: N (`width` + `k` + 1) numbers and a block of similarities of 256 MiB.
    ///
    /// # Errors
    /// If the device has not enough memory.
    pub fn nearest(&self, features: &[f32], width: usize, k: usize) -> Result<Found> {
        let count = features.len() / width.max(1);
        let all = self.upload(features, width)?;
        let indices = self.empty((count, k), DType::U32)?;
        let least = self.empty(count, DType::F32)?;
        let rows = (self.room / 4 / count.max(1)).clamp(1, count.max(1));
        let scores = self.empty((rows, count), DType::F32)?;
        for start in (0..count).step_by(rows) {
            let block = start..(start + rows).min(count);
            self.dot_products(&all, block.clone(), &all, &scores)?;
            let at = |t: &Tensor, per_row: usize| {
                let address = self.driver.address(t)? + 4 * (start * per_row) as u64;
                Result::Ok(super::Arg::Pointer(address))
            };
            self.run(
                "select",
                "top_k",
                [block.len(), 1, 1],
                &[
                    self.pointer(&scores)?,
                    long(count),
                    int(block.len())?,
                    int(count)?,
                    int(k)?,
                    at(&indices, k)?,
                ],
            )?;
            self.run(
                "select",
                "row_minimum",
                [block.len(), 1, 1],
                &[
                    self.pointer(&scores)?,
                    long(count),
                    int(block.len())?,
                    int(count)?,
                    at(&least, 1)?,
                ],
            )?;
        }
        Ok(Found {
            indices: indices.flatten_all()?.to_vec1()?,
            least: least.to_vec1()?,
        })
    }

    /// Rows of `width` numbers in device memory, for [`Gpu::similarities`].
    ///
    /// # Errors
    /// If the device has not enough memory.
    pub fn upload(&self, rows: &[f32], width: usize) -> Result<Tensor> {
        Tensor::from_slice(rows, (rows.len() / width.max(1), width), self.device())
    }

    /// Dot products of the rows `range` of `a` with all rows of `b`, (range, rows of b), in f32 whatever the precision of
    /// networks is.
    ///
    /// # Errors
    /// If the device has not enough memory.
    pub fn similarities(&self, a: &Tensor, range: Range<usize>, b: &Tensor) -> Result<Vec<f32>> {
        let scores = self.empty((range.len(), b.dim(0)?), DType::F32)?;
        self.dot_products(a, range, b, &scores)?;
        scores.flatten_all()?.to_vec1()
    }

    fn dot_products(&self, a: &Tensor, range: Range<usize>, b: &Tensor, to: &Tensor) -> Result<()> {
        let (count, width) = b.dims2()?;
        let whole = |t: &Tensor, skipped: usize, stride: usize, transposed| {
            Result::Ok(Matrix {
                address: self.driver.address(t)? + 4 * skipped as u64,
                dtype: DType::F32,
                stride,
                transposed,
            })
        };
        let product = Product {
            m: range.len(),
            n: count,
            k: width,
            a: whole(a, range.start * width, width, false)?,
            b: whole(b, 0, width, true)?,
            c: whole(to, 0, count, false)?,
            accumulate: false,
            exact: true,
        };
        // SAFETY: the range lies inside `a`, and `to` has a row of `count` for each of it.
        unsafe { self.driver.product(&product) }
    }
}
