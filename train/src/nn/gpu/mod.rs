//! [`Kernels`] for GPUs: the kernels of `train/cuda`, matrix products, and a library's convolutions where there is one,
//! above a [`Driver`].
//!
//! Maps are f32 or bf16 as the [`Settings`] say; what has to be summed is summed in f32 or f64. Nothing waits for the
//! device, and no kernel uses atomics: the only choice that could change bits from run to run is the library's algorithm.

mod conv;
#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(feature = "cudnn")]
mod cudnn;
pub mod driver;
mod launch;
mod norm;
mod pool;
mod rows;
mod search;
mod update;
#[cfg(feature = "cuda")]
pub mod upload;

use candle_core::{D, DType, Device, Result, Shape, Tensor};

pub use driver::{
    Arg, ConvAddresses, ConvPass, Driver, Launch, Matrix, Precision, Product, Settings,
};

use super::kernels::{
    AdamItem, AdamRates, BatchStats, ConvShape, Epilogue, FoldedNorm, GlobalPool, InputGrad,
    Kernels, NormGrads, PoolShape, RowStats, SgdItem, SgdRates, WeightedGrads, Windows,
};

/// Most that a matrix of columns or a block of similarities takes.
const ROOM: usize = 256 << 20;

/// A GPU, or what stands in for one.
pub struct Gpu {
    driver: Box<dyn Driver>,
    /// Bytes that a matrix of columns or a block of similarities may take.
    room: usize,
}

impl Gpu {
    /// The operators of a device.
    pub fn new(driver: impl Driver + 'static) -> Self {
        Gpu {
            driver: Box::new(driver),
            room: ROOM,
        }
    }

    /// The same with so many bytes for a matrix of columns or a block of similarities (256 MiB by default); what doesn't fit
    /// goes in parts, a whole image or a row at least.
    pub fn with_room(self, room: usize) -> Self {
        Gpu { room, ..self }
    }

    /// How it computes now.
    pub fn settings(&self) -> Settings {
        self.driver.settings()
    }

    /// Where its tensors live.
    pub fn device(&self) -> &Device {
        self.driver.device()
    }

    /// Memory that is about to be written in full.
    fn empty(&self, shape: impl Into<Shape>, dtype: DType) -> Result<Tensor> {
        // SAFETY: every caller launches a kernel or a product that writes all of it before anything reads it.
        unsafe { Tensor::empty(shape, dtype, self.device()) }
    }
}

impl Kernels for Gpu {
    fn map_dtype(&self) -> DType {
        match self.driver.settings().precision {
            Precision::F32 | Precision::Tf32 => DType::F32,
            Precision::Bf16 => DType::BF16,
        }
    }

    fn to_rows(&self, x: &Tensor) -> Result<Tensor> {
        let (n, c, h, w) = x.dims4()?;
        let y = self.empty((n, h, w, c), self.map_dtype())?;
        self.transpose(x, &y, [n, c, h * w])?;
        Ok(y)
    }

    fn to_planes(&self, x: &Tensor) -> Result<Tensor> {
        let (n, h, w, c) = x.dims4()?;
        let y = self.empty((n, c, h, w), DType::F32)?;
        self.transpose(x, &y, [n, h * w, c])?;
        Ok(y)
    }

    fn synchronize(&self) -> Result<()> {
        self.driver.synchronize()
    }

    fn is_zero(&self, _: &Tensor) -> Result<bool> {
        // Looking would drain the queue of launches.
        Ok(false)
    }

    fn conv2d(&self, s: &ConvShape, x: &Tensor, w: &Tensor, then: Epilogue) -> Result<Tensor> {
        self.convolve(s, x, w, then)
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
        let dx = match dx {
            InputGrad::Skip => None,
            InputGrad::New => Some(self.input_grad(s, w, dy, None)?),
            InputGrad::AddTo(sum) => Some(self.input_grad(s, w, dy, Some(sum))?),
        };
        let dw = need_w.then(|| self.filter_grad(s, x, w, dy)).transpose()?;
        let db = need_b.then(|| self.column_sums(dy)).transpose()?;
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
        self.norm_forward(x, [w, b], eps, groups, residual, relu)
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
        self.norm_backward(stats, frozen, x, w, y, dy, has_residual)
    }

    fn fold_norm(
        &self,
        w: &Tensor,
        b: &Tensor,
        mean: &Tensor,
        var: &Tensor,
        eps: f64,
    ) -> Result<FoldedNorm> {
        self.norm_fold([w, b, mean, var], eps)
    }

    fn blend(&self, running: &Tensor, fresh: &Tensor, groups: usize, momentum: f64) -> Result<()> {
        self.norm_running(running, fresh, groups, momentum)
    }

    fn layer_norm(
        &self,
        x: &Tensor,
        w: Option<&Tensor>,
        b: Option<&Tensor>,
        eps: f64,
    ) -> Result<(Tensor, RowStats)> {
        self.rows_norm(x, w, b, eps)
    }

    fn layer_norm_backward(
        &self,
        stats: &RowStats,
        x: &Tensor,
        w: Option<&Tensor>,
        dy: &Tensor,
    ) -> Result<NormGrads> {
        self.rows_norm_backward(stats, x, w, dy)
    }

    fn affine(&self, x: &Tensor, then: Epilogue) -> Result<Tensor> {
        let y = self.empty(x.shape(), x.dtype())?;
        self.apply_affine(x, &y, then, x.elem_count())?;
        Ok(y)
    }

    fn relu(&self, x: &Tensor) -> Result<Tensor> {
        let then = Epilogue {
            relu: true,
            ..Default::default()
        };
        // One long row: no axis matters.
        let flat = x.flatten_all()?;
        let y = self.empty(flat.shape(), x.dtype())?;
        self.apply_affine(&flat, &y, then, flat.elem_count())?;
        y.reshape(x.shape())
    }

    fn relu_backward(&self, y: &Tensor, dy: Tensor) -> Result<Tensor> {
        self.elementwise("relu_backward", &[y, &dy], y, &[])?;
        Ok(dy)
    }

    fn leaky_relu(&self, x: &Tensor, slope: f32) -> Result<Tensor> {
        let y = self.empty(x.shape(), x.dtype())?;
        self.leaky("leaky_relu", &[x, &y], slope)?;
        Ok(y)
    }

    fn leaky_relu_backward(&self, x: &Tensor, dy: &Tensor, slope: f32) -> Result<Tensor> {
        let dx = self.empty(x.shape(), x.dtype())?;
        self.leaky("leaky_relu_backward", &[x, dy, &dx], slope)?;
        Ok(dx)
    }

    fn add(&self, a: &Tensor, b: &Tensor, relu: bool) -> Result<Tensor> {
        let y = self.empty(a.shape(), a.dtype())?;
        self.elementwise("add", &[a, b, &y], a, &[Arg::I32(relu.into())])?;
        Ok(y)
    }

    fn add_assign(&self, a: &Tensor, b: &Tensor) -> Result<()> {
        self.elementwise("add", &[a, b, a], a, &[Arg::I32(0)])
    }

    fn max_pool2d(&self, s: &PoolShape, x: &Tensor) -> Result<(Tensor, Tensor)> {
        self.pool_max(s, x)
    }

    fn max_pool2d_backward(
        &self,
        s: &PoolShape,
        positions: &Tensor,
        dy: &Tensor,
    ) -> Result<Tensor> {
        self.pool_max_backward(s, positions, dy)
    }

    fn window_sum(&self, windows: &Windows, x: &Tensor) -> Result<Tensor> {
        self.windows_sum(windows, x)
    }

    fn window_spread(&self, windows: &Windows, y: &Tensor) -> Result<Tensor> {
        self.windows_spread(windows, y)
    }

    fn window_max(&self, windows: &Windows, x: &Tensor) -> Result<(Tensor, Tensor)> {
        self.windows_max(windows, x)
    }

    fn window_max_backward(
        &self,
        windows: &Windows,
        positions: &Tensor,
        dy: &Tensor,
    ) -> Result<Tensor> {
        self.windows_max_backward(windows, positions, dy)
    }

    fn global_pool(&self, kind: GlobalPool, p: Option<&Tensor>, x: &Tensor) -> Result<Tensor> {
        self.pool_global(kind, p, x)
    }

    fn global_pool_backward(
        &self,
        kind: GlobalPool,
        p: Option<&Tensor>,
        x: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Tensor, Option<Tensor>)> {
        self.pool_global_backward(kind, p, x, y, dy)
    }

    fn linear(&self, x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
        let ((n, d), (o, _)) = (x.dims2()?, w.dims2()?);
        let y = self.empty((n, o), DType::F32)?;
        self.multiply([n, o, d], (x, false), (w, true), &y)?;
        if b.is_some() {
            let then = Epilogue {
                bias: b,
                ..Default::default()
            };
            self.apply_affine(&y, &y, then, y.elem_count())?;
        }
        Ok(y)
    }

    fn linear_backward(
        &self,
        x: &Tensor,
        w: &Tensor,
        dy: &Tensor,
        [need_x, need_w, need_b]: [bool; 3],
    ) -> Result<WeightedGrads> {
        let ((n, d), (o, _)) = (x.dims2()?, w.dims2()?);
        let mut grads = WeightedGrads {
            dx: None,
            dw: None,
            db: None,
        };
        if need_x {
            let dx = self.empty((n, d), DType::F32)?;
            self.multiply([n, d, o], (dy, false), (w, false), &dx)?;
            grads.dx = Some(dx);
        }
        if need_w {
            let dw = self.empty((o, d), DType::F32)?;
            self.multiply([o, d, n], (dy, true), (x, false), &dw)?;
            grads.dw = Some(dw);
        }
        if need_b {
            grads.db = Some(self.column_sums(dy)?);
        }
        Ok(grads)
    }

    fn l2_normalize(&self, x: &Tensor, eps: f64) -> Result<Tensor> {
        let y = self.empty(x.shape(), DType::F32)?;
        self.per_row("l2_normalize", &[x, &y], x.dim(D::Minus1)?, Some(eps))?;
        Ok(y)
    }

    fn l2_normalize_backward(&self, x: &Tensor, dy: &Tensor, eps: f64) -> Result<Tensor> {
        let dx = self.empty(x.shape(), DType::F32)?;
        let width = x.dim(D::Minus1)?;
        self.per_row("l2_normalize_backward", &[x, dy, &dx], width, Some(eps))?;
        Ok(dx)
    }

    fn squares(&self, tensors: &[&Tensor]) -> Result<Tensor> {
        self.sums_of_squares(tensors)
    }

    fn adam(
        &self,
        items: &[AdamItem],
        rates: AdamRates,
        squares: &Tensor,
        clip: Option<f64>,
    ) -> Result<()> {
        self.step_adam(items, rates, squares, clip)
    }

    fn sgd(
        &self,
        items: &[SgdItem],
        rates: SgdRates,
        squares: &Tensor,
        clip: Option<f64>,
    ) -> Result<()> {
        self.step_sgd(items, rates, squares, clip)
    }

    fn ema(&self, pairs: &[(&Tensor, &Tensor)], alpha: f32) -> Result<()> {
        self.move_averages(pairs, alpha)
    }
}
