//! Pooling over a regular grid, over any windows, over all of space.

use std::ops::Range;

use candle_core::{DType, Result, Tensor};

use super::launch::{blocks, int, long, type_name};
use super::{Arg, Gpu};
use crate::nn::kernels::{GlobalPool, PoolShape, Windows};

/// Windows in device memory.
struct Placed {
    /// Pairs of start and end of the window rows, of the window columns.
    ys: Tensor,
    xs: Tensor,
    weights: Tensor,
    /// For each row, for each column of the map: first and end of the window rows, columns that may contain it.
    over_rows: Tensor,
    over_columns: Tensor,
}

/// For each of `len` positions, the span of those of `ranges` that contain it.
fn cover(ranges: &[Range<usize>], len: usize) -> Vec<u32> {
    let spans = (0..len).flat_map(|at| {
        let mut inside = (0..ranges.len()).filter(|i| ranges[*i].contains(&at));
        let first = inside.next();
        let end = inside.next_back().or(first).map_or(0, |last| last + 1);
        [first.unwrap_or(0) as u32, end as u32]
    });
    spans.collect()
}

impl Gpu {
    fn place(&self, windows: &Windows) -> Result<Placed> {
        let upload = |values: Vec<u32>| {
            let count = values.len();
            Tensor::from_vec(values, count, self.device())
        };
        let pairs = |ranges: &[Range<usize>]| {
            let pairs = ranges.iter().flat_map(|r| [r.start as u32, r.end as u32]);
            upload(pairs.collect())
        };
        let weights = windows.weights.clone();
        let count = weights.len();
        Ok(Placed {
            ys: pairs(&windows.ys)?,
            xs: pairs(&windows.xs)?,
            weights: Tensor::from_vec(weights, count, self.device())?,
            over_rows: upload(cover(&windows.ys, windows.input[0]))?,
            over_columns: upload(cover(&windows.xs, windows.input[1]))?,
        })
    }

    fn over_grid(
        &self,
        name: &str,
        s: &PoolShape,
        tensors: [&Tensor; 3],
        dtype: DType,
        items: usize,
    ) -> Result<()> {
        let mut args = Vec::with_capacity(15);
        for t in tensors {
            args.push(self.pointer(t)?);
        }
        let [oh, ow] = s.out();
        let ints = [
            s.n,
            s.h,
            s.w,
            s.c,
            oh,
            ow,
            s.kernel[0],
            s.kernel[1],
            s.stride[0],
            s.stride[1],
            s.padding[0],
            s.padding[1],
        ];
        for n in ints {
            args.push(int(n)?);
        }
        let kernel = format!("{name}_{}", type_name(dtype)?);
        self.run("pool", &kernel, blocks(items), &args)
    }

    pub(super) fn pool_max(&self, s: &PoolShape, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let [oh, ow] = s.out();
        let y = self.empty((s.n, oh, ow, s.c), x.dtype())?;
        let positions = self.empty((s.n, oh, ow, s.c), DType::U32)?;
        self.over_grid(
            "max_pool",
            s,
            [x, &y, &positions],
            x.dtype(),
            y.elem_count(),
        )?;
        Ok((y, positions))
    }

    pub(super) fn pool_max_backward(
        &self,
        s: &PoolShape,
        positions: &Tensor,
        dy: &Tensor,
    ) -> Result<Tensor> {
        let dx = self.empty((s.n, s.h, s.w, s.c), dy.dtype())?;
        let tensors = [positions, dy, &dx];
        self.over_grid("max_pool_backward", s, tensors, dy.dtype(), dx.elem_count())?;
        Ok(dx)
    }

    /// Runs a kernel over windows: `tensors`, the window rows and columns, `more`, then the map's sizes.
    fn over_windows(
        &self,
        name: &str,
        windows: &Windows,
        placed: &Placed,
        tensors: &[&Tensor],
        more: &[&Tensor],
        [n, c]: [usize; 2],
        (dtype, items): (DType, usize),
    ) -> Result<()> {
        let mut args = Vec::new();
        for t in tensors {
            args.push(self.pointer(t)?);
        }
        args.extend([
            self.pointer(&placed.ys)?,
            int(windows.ys.len())?,
            self.pointer(&placed.xs)?,
            int(windows.xs.len())?,
        ]);
        for t in more {
            args.push(self.pointer(t)?);
        }
        let [h, w] = windows.input;
        args.extend([int(n)?, int(h)?, int(w)?, int(c)?]);
        let kernel = format!("{name}_{}", type_name(dtype)?);
        self.run("pool", &kernel, blocks(items), &args)
    }

    pub(super) fn windows_sum(&self, windows: &Windows, x: &Tensor) -> Result<Tensor> {
        let (n, _, _, c) = x.dims4()?;
        let y = self.empty((n, windows.ys.len(), windows.xs.len(), c), x.dtype())?;
        let placed = self.place(windows)?;
        let size = (x.dtype(), y.elem_count());
        let more = [&placed.weights];
        self.over_windows(
            "window_sum",
            windows,
            &placed,
            &[x, &y],
            &more,
            [n, c],
            size,
        )?;
        Ok(y)
    }

    pub(super) fn windows_spread(&self, windows: &Windows, y: &Tensor) -> Result<Tensor> {
        let (n, _, _, c) = y.dims4()?;
        let [h, w] = windows.input;
        let x = self.empty((n, h, w, c), y.dtype())?;
        let placed = self.place(windows)?;
        let size = (y.dtype(), x.elem_count());
        let more = [&placed.weights, &placed.over_rows, &placed.over_columns];
        self.over_windows(
            "window_spread",
            windows,
            &placed,
            &[y, &x],
            &more,
            [n, c],
            size,
        )?;
        Ok(x)
    }

    pub(super) fn windows_max(&self, windows: &Windows, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let (n, _, _, c) = x.dims4()?;
        let shape = (n, windows.ys.len(), windows.xs.len(), c);
        let (y, positions) = (
            self.empty(shape, x.dtype())?,
            self.empty(shape, DType::U32)?,
        );
        let placed = self.place(windows)?;
        let size = (x.dtype(), y.elem_count());
        let tensors = [x, &y, &positions];
        self.over_windows("window_max", windows, &placed, &tensors, &[], [n, c], size)?;
        Ok((y, positions))
    }

    pub(super) fn windows_max_backward(
        &self,
        windows: &Windows,
        positions: &Tensor,
        dy: &Tensor,
    ) -> Result<Tensor> {
        let (n, _, _, c) = dy.dims4()?;
        let [h, w] = windows.input;
        let dx = self.empty((n, h, w, c), dy.dtype())?;
        let placed = self.place(windows)?;
        let size = (dy.dtype(), dx.elem_count());
        let tensors = [positions, dy, &dx];
        let more = [&placed.over_rows, &placed.over_columns];
        let name = "window_max_backward";
        self.over_windows(name, windows, &placed, &tensors, &more, [n, c], size)?;
        Ok(dx)
    }

    pub(super) fn pool_global(
        &self,
        kind: GlobalPool,
        p: Option<&Tensor>,
        x: &Tensor,
    ) -> Result<Tensor> {
        let (n, h, w, c) = x.dims4()?;
        let y = self.empty((n, c), DType::F32)?;
        let (number, eps) = number_of(kind);
        self.run(
            "pool",
            &format!("global_pool_{}", type_name(x.dtype())?),
            blocks(n * c),
            &[
                self.pointer(x)?,
                self.pointer(&y)?,
                int(n)?,
                int(h * w)?,
                int(c)?,
                number,
                self.pointer_or_null(p)?,
                eps,
            ],
        )?;
        Ok(y)
    }

    pub(super) fn pool_global_backward(
        &self,
        kind: GlobalPool,
        p: Option<&Tensor>,
        x: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let (n, h, w, c) = x.dims4()?;
        let dx = self.empty(x.shape(), x.dtype())?;
        let part = match p {
            Some(_) => Some(self.empty(n * c, DType::F64)?),
            None => None,
        };
        let (number, eps) = number_of(kind);
        self.run(
            "pool",
            &format!("global_pool_backward_{}", type_name(x.dtype())?),
            blocks(n * c),
            &[
                self.pointer(x)?,
                self.pointer(y)?,
                self.pointer(dy)?,
                self.pointer(&dx)?,
                self.pointer_or_null(part.as_ref())?,
                int(n)?,
                int(h * w)?,
                int(c)?,
                number,
                self.pointer_or_null(p)?,
                eps,
            ],
        )?;
        let Some(part) = part else {
            return Ok((dx, None));
        };
        let dp = self.empty(1, DType::F32)?;
        self.run(
            "pool",
            "sum_doubles",
            [1, 1, 1],
            &[self.pointer(&part)?, self.pointer(&dp)?, long(n * c)],
        )?;
        Ok((dx, Some(dp)))
    }
}

/// The kernels' number of a kind, and GeM's clamp.
fn number_of(kind: GlobalPool) -> (Arg, Arg) {
    match kind {
        GlobalPool::Avg => (Arg::I32(0), Arg::F32(0.0)),
        GlobalPool::Max => (Arg::I32(1), Arg::F32(0.0)),
        GlobalPool::Gem { eps } => (Arg::I32(2), Arg::F32(eps)),
    }
}

#[cfg(test)]
mod tests {
    use super::cover;

    #[test]
    fn cover_spans_what_contains_a_position() {
        // Overlapping, touching, with a gap at 4 and an empty window in between.
        let ranges = [0..2, 1..3, 2..2, 5..6];
        let spans = cover(&ranges, 6);
        let spans: Vec<_> = spans.chunks(2).map(|s| (s[0], s[1])).collect();
        assert_eq!(spans, [(0, 1), (0, 2), (1, 2), (0, 0), (0, 0), (3, 4)]);
    }
}
