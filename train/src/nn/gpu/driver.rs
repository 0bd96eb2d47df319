//! What the operators for GPUs ask of a device: memory, launches, matrix products, convolutions of a library.
//!
//! Two implementations: a CUDA device (feature `cuda`), and the emulator of `tests/gpu`, which compiles the same kernels
//! for the processor and so runs everything above this trait where no GPU is.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};

use crate::nn::kernels::ConvShape;

/// An argument of a kernel, by value, in the width the kernel declares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    /// `T*`, or null as 0.
    Pointer(u64),
    /// `int`.
    I32(i32),
    /// `long long`.
    I64(i64),
    /// `float`.
    F32(f32),
    /// `double`.
    F64(f64),
}

/// One launch of a kernel of `train/cuda`.
#[derive(Clone, Debug)]
pub struct Launch<'a> {
    /// File of the kernel without its ending: `elementwise`, `norm`, `pool`, `conv`, `rows`, `update` or `select`.
    pub module: &'static str,
    /// Function.
    pub kernel: &'a str,
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block (x only).
    pub block: u32,
    /// Arguments in the kernel's order.
    pub args: &'a [Arg],
}

/// A matrix in device memory, row-major.
#[derive(Clone, Copy, Debug)]
pub struct Matrix {
    /// Address of its first element.
    pub address: u64,
    /// F32 or BF16.
    pub dtype: DType,
    /// Elements from one row, as stored, to the next.
    pub stride: usize,
    /// Whether the product takes it transposed.
    pub transposed: bool,
}

/// `c = op(a) op(b)`, or `c += op(a) op(b)`; sums in f32.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// Rows of `op(a)` and `c`.
    pub m: usize,
    /// Columns of `op(b)` and `c`.
    pub n: usize,
    /// Columns of `op(a)`, rows of `op(b)`.
    pub k: usize,
    /// Left factor.
    pub a: Matrix,
    /// Right factor, of the same type.
    pub b: Matrix,
    /// Result: of the factors' type, or F32.
    pub c: Matrix,
    /// Whether the product is added to what `c` holds.
    pub accumulate: bool,
    /// Whether f32 factors are multiplied as such even where [`Precision::Tf32`] would round them.
    pub exact: bool,
}

/// Three device addresses of a convolution's tensors: maps (N, H, W, C), filters (O, kh, kw, C / groups), all of one type.
#[derive(Clone, Copy, Debug)]
pub struct ConvAddresses {
    /// Input, or its gradient.
    pub x: u64,
    /// Filters, or their gradient.
    pub w: u64,
    /// Output, or its gradient.
    pub y: u64,
}

/// Which of a convolution's three passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConvPass {
    /// Writes `y`.
    Forward,
    /// Writes `x`.
    InputGrad {
        /// Adds to what is there.
        accumulate: bool,
    },
    /// Writes `w`.
    FilterGrad,
}

/// How f32 values are multiplied, and whether runs must repeat bit for bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How maps inside networks are kept and multiplied.
    pub precision: Precision,
    /// Only algorithms that give the same bits every time, chosen without timing them.
    pub deterministic: bool,
}

/// Numbers inside networks; parameters, losses and norms' statistics are f32 in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// f32, multiplied as such.
    F32,
    /// f32, multiplied with 10 bits of mantissa (TF32, NVIDIA Ampere or newer).
    Tf32,
    /// Maps and filters as bf16.
    Bf16,
}

/// A device.
pub trait Driver: Send + Sync {
    /// Where its tensors live.
    fn device(&self) -> &Device;

    /// Settings now.
    fn settings(&self) -> Settings;

    /// Address of a contiguous tensor's first element; whatever is launched next comes after all that was launched before.
    ///
    /// # Errors
    /// If the tensor is elsewhere or not contiguous.
    fn address(&self, t: &Tensor) -> Result<u64>;

    /// Starts a kernel.
    ///
    /// # Safety
    /// The arguments are what the kernel declares, and their memory lives until a later launch could reuse it.
    ///
    /// # Errors
    /// If the device refuses.
    unsafe fn launch(&self, launch: &Launch) -> Result<()>;

    /// Starts a matrix product.
    ///
    /// # Safety
    /// The matrices lie where the addresses say.
    ///
    /// # Errors
    /// If the device refuses.
    unsafe fn product(&self, product: &Product) -> Result<()>;

    /// Starts a convolution by a library's own algorithm; `false` if there is none for it here, and nothing was done.
    ///
    /// # Safety
    /// The tensors lie where the addresses say.
    ///
    /// # Errors
    /// If the device refuses.
    unsafe fn convolution(
        &self,
        pass: ConvPass,
        shape: &ConvShape,
        dtype: DType,
        at: ConvAddresses,
    ) -> Result<bool>;

    /// Waits until everything launched is done: for measuring.
    ///
    /// # Errors
    /// If something launched failed.
    fn synchronize(&self) -> Result<()>;
}

/// A device that others hold, too: to change its settings, to upload to it.
impl<D: Driver + ?Sized> Driver for Arc<D> {
    fn device(&self) -> &Device {
        (**self).device()
    }

    fn settings(&self) -> Settings {
        (**self).settings()
    }

    fn address(&self, t: &Tensor) -> Result<u64> {
        (**self).address(t)
    }

    unsafe fn launch(&self, launch: &Launch) -> Result<()> {
        // SAFETY: the caller's.
        unsafe { (**self).launch(launch) }
    }

    unsafe fn product(&self, product: &Product) -> Result<()> {
        // SAFETY: the caller's.
        unsafe { (**self).product(product) }
    }

    unsafe fn convolution(
        &self,
        pass: ConvPass,
        shape: &ConvShape,
        dtype: DType,
        at: ConvAddresses,
    ) -> Result<bool> {
        // SAFETY: the caller's.
        unsafe { (**self).convolution(pass, shape, dtype, at) }
    }

    fn synchronize(&self) -> Result<()> {
        (**self).synchronize()
    }
}
