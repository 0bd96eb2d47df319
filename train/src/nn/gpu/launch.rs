//! Launching: names, grids, vector widths, and the operators that go element by element.

use candle_core::{D, DType, Result, Tensor, bail};

use super::{Arg, Gpu, Launch, Matrix, Product};
use crate::nn::kernels::Epilogue;

/// Threads of every block.
pub(super) const BLOCK: usize = 256;
/// Blocks of a kernel that strides over its items: enough to fill the largest GPU several times.
const BLOCKS: usize = 4096;
/// Channels next to each other that one block of a column sum handles; the other threads are 8 lanes of rows.
pub(super) const LANES: usize = 32;

/// Blocks for `items` pieces of work, one a thread.
pub(super) fn blocks(items: usize) -> [usize; 3] {
    [items.div_ceil(BLOCK).min(BLOCKS), 1, 1]
}

/// The address of a tensor that may be missing: null.
pub(super) const NULL: Arg = Arg::Pointer(0);

/// An `int`.
pub(super) fn int(n: usize) -> Result<Arg> {
    match i32::try_from(n) {
        Ok(n) => Ok(Arg::I32(n)),
        Err(_) => bail!("a GPU kernel was asked for a size of {n}: tensors must be smaller"),
    }
}

/// A `long long`.
pub(super) fn long(n: usize) -> Arg {
    // No tensor has 2^63 elements.
    Arg::I64(n as i64)
}

/// `f32` or `bf16`, as in the kernels' names.
pub(super) fn type_name(dtype: DType) -> Result<&'static str> {
    match dtype {
        DType::F32 => Ok("f32"),
        DType::BF16 => Ok("bf16"),
        other => bail!("a GPU kernel takes f32 or bf16, got {other:?}"),
    }
}

impl Gpu {
    pub(super) fn pointer(&self, t: &Tensor) -> Result<Arg> {
        Ok(Arg::Pointer(self.driver.address(t)?))
    }

    pub(super) fn pointer_or_null(&self, t: Option<&Tensor>) -> Result<Arg> {
        t.map_or(Ok(NULL), |t| self.pointer(t))
    }

    pub(super) fn run(
        &self,
        module: &'static str,
        kernel: &str,
        grid: [usize; 3],
        args: &[Arg],
    ) -> Result<()> {
        let mut sizes = [0u32; 3];
        for (size, n) in sizes.iter_mut().zip(grid) {
            *size = match u32::try_from(n) {
                Ok(n) => n,
                Err(_) => bail!("{kernel}: a grid of {grid:?} blocks"),
            };
        }
        if grid.contains(&0) {
            return Ok(());
        }
        let launch = Launch {
            module,
            kernel,
            grid: sizes,
            block: BLOCK as u32,
            args,
        };
        // SAFETY: arguments are built beside the kernels' declarations, from tensors that hold what the shapes say; memory
        // is freed in the order of launches.
        unsafe { self.driver.launch(&launch) }
    }

    /// Elements a thread may read at once: 16 bytes if rows of `width` and all addresses are multiples of that, else one.
    pub(super) fn vector(&self, dtype: DType, width: usize, args: &[Arg]) -> usize {
        let lanes = 16 / dtype.size_in_bytes().max(1);
        let aligned = args.iter().all(|arg| match arg {
            Arg::Pointer(address) => address % 16 == 0,
            _ => true,
        });
        if aligned && width.is_multiple_of(lanes) {
            lanes
        } else {
            1
        }
    }

    /// `NAME_TYPE_LANES` and the lanes.
    pub(super) fn vector_kernel(
        &self,
        name: &str,
        dtype: DType,
        width: usize,
        args: &[Arg],
    ) -> Result<(String, usize)> {
        let lanes = self.vector(dtype, width, args);
        Ok((format!("{name}_{}_{lanes}", type_name(dtype)?), lanes))
    }

    /// `x` (batches, rows, columns) to `y` (batches, columns, rows), converting between their types.
    pub(super) fn transpose(
        &self,
        x: &Tensor,
        y: &Tensor,
        [batches, rows, columns]: [usize; 3],
    ) -> Result<()> {
        /// Grids end at 65,535 in their third direction.
        const MOST: usize = 65_535;
        let kernel = format!(
            "transpose_{}_{}",
            type_name(x.dtype())?,
            type_name(y.dtype())?
        );
        let (from, to) = (self.driver.address(x)?, self.driver.address(y)?);
        for start in (0..batches).step_by(MOST) {
            let count = MOST.min(batches - start);
            let at = |base: u64, t: &Tensor| {
                let skipped = start * rows * columns * t.dtype().size_in_bytes();
                Arg::Pointer(base + skipped as u64)
            };
            self.run(
                "elementwise",
                &kernel,
                [columns.div_ceil(32), rows.div_ceil(32), count],
                &[
                    at(from, x),
                    at(to, y),
                    int(count)?,
                    int(rows)?,
                    int(columns)?,
                ],
            )?;
        }
        Ok(())
    }

    /// A kernel over all elements: pointers, their count, then `more`.
    pub(super) fn elementwise(
        &self,
        name: &str,
        tensors: &[&Tensor],
        like: &Tensor,
        more: &[Arg],
    ) -> Result<()> {
        for t in tensors {
            if t.elem_count() != like.elem_count() || t.dtype() != like.dtype() {
                bail!(
                    "{name}: tensors of {} {:?} and of {} {:?} elements",
                    like.elem_count(),
                    like.dtype(),
                    t.elem_count(),
                    t.dtype()
                );
            }
        }
        let mut args = tensors
            .iter()
            .map(|t| self.pointer(t))
            .collect::<Result<Vec<_>>>()?;
        let n = like.elem_count();
        let (kernel, lanes) = self.vector_kernel(name, like.dtype(), n, &args)?;
        args.push(long(n));
        args.extend(more);
        self.run("elementwise", &kernel, blocks(n / lanes), &args)
    }

    pub(super) fn leaky(&self, name: &str, tensors: &[&Tensor], slope: f32) -> Result<()> {
        let like = tensors[0];
        let mut args = tensors
            .iter()
            .map(|t| self.pointer(t))
            .collect::<Result<Vec<_>>>()?;
        args.push(Arg::F32(slope));
        args.push(long(like.elem_count()));
        let kernel = format!("{name}_{}", type_name(like.dtype())?);
        self.run("elementwise", &kernel, blocks(like.elem_count()), &args)
    }

    /// `y = relu(x * scale + bias + residual)`; scale and bias belong to groups of `group` consecutive elements, one row of
    /// them each. `y` may be `x`.
    pub(super) fn apply_affine(
        &self,
        x: &Tensor,
        y: &Tensor,
        then: Epilogue,
        group: usize,
    ) -> Result<()> {
        let (n, width) = (x.elem_count(), x.dim(D::Minus1)?);
        let maps = [
            self.pointer(x)?,
            self.pointer_or_null(then.residual)?,
            self.pointer(y)?,
        ];
        let scales = [
            self.pointer_or_null(then.scale)?,
            self.pointer_or_null(then.bias)?,
        ];
        let all = [maps.as_slice(), &scales].concat();
        let (kernel, lanes) = self.vector_kernel("affine", x.dtype(), width, &all)?;
        // A single row as wide as the tensor may be wider than an int; without scales its width doesn't matter.
        let width = match (then.scale, then.bias) {
            (None, None) => lanes,
            _ => width,
        };
        let args = [
            maps[0],
            scales[0],
            scales[1],
            maps[1],
            maps[2],
            long(n),
            int(width)?,
            long(group.max(1)),
            Arg::I32(then.relu.into()),
        ];
        self.run("elementwise", &kernel, blocks(n / lanes), &args)
    }

    /// Sum over all but the last axis, in double precision.
    pub(super) fn column_sums(&self, x: &Tensor) -> Result<Tensor> {
        let width = x.dim(D::Minus1)?;
        let rows = x.elem_count() / width.max(1);
        let (chunks, chunk_rows) = split(rows, width.div_ceil(LANES));
        let part = self.empty((chunks, width), DType::F64)?;
        let sums = self.empty(width, DType::F32)?;
        self.run(
            "elementwise",
            &format!("column_sums_{}", type_name(x.dtype())?),
            [width.div_ceil(LANES), chunks, 1],
            &[
                self.pointer(x)?,
                self.pointer(&part)?,
                long(rows),
                int(width)?,
                int(chunk_rows)?,
            ],
        )?;
        self.run(
            "elementwise",
            "column_sums_end",
            blocks(width),
            &[
                self.pointer(&part)?,
                self.pointer(&sums)?,
                int(chunks)?,
                int(width)?,
            ],
        )?;
        Ok(sums)
    }

    /// `c = op(a) op(b)` of whole f32 tensors, `[m, n, k]`, each with whether it is transposed.
    pub(super) fn multiply(
        &self,
        [m, n, k]: [usize; 3],
        (a, a_transposed): (&Tensor, bool),
        (b, b_transposed): (&Tensor, bool),
        c: &Tensor,
    ) -> Result<()> {
        let matrix = |t: &Tensor, transposed| {
            Result::Ok(Matrix {
                address: self.driver.address(t)?,
                dtype: t.dtype(),
                stride: t.dim(D::Minus1)?,
                transposed,
            })
        };
        let product = Product {
            m,
            n,
            k,
            a: matrix(a, a_transposed)?,
            b: matrix(b, b_transposed)?,
            c: matrix(c, false)?,
            accumulate: false,
            exact: false,
        };
        // SAFETY: the matrices are whole tensors of these shapes.
        unsafe { self.driver.product(&product) }
    }
}

/// Splits `rows` into chunks so that a grid of `columns` blocks in the other direction fills a GPU: number of chunks, rows of
/// each. More chunks would make merging them, one after another, longer than the pass itself.
pub(super) fn split(rows: usize, columns: usize) -> (usize, usize) {
    const BLOCKS: usize = 256;
    let chunks = BLOCKS.div_ceil(columns.max(1)).min(rows.div_ceil(8)).max(1);
    let chunk_rows = rows.div_ceil(chunks).max(1);
    (rows.div_ceil(chunk_rows).max(1), chunk_rows)
}
