//! What cuDNN is told about a convolution, and what it answers.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;

use candle_core::cuda_backend::cudarc::cudnn::result::{self, CudnnError};
use candle_core::cuda_backend::cudarc::cudnn::sys::{
    self, cudnnDataType_t as Type, cudnnMathType_t as Math,
};
use candle_core::cuda_backend::cudarc::driver::CudaStream;

use super::algorithms::{data, filter, forward};
use super::{Found, Key, Kind, RESULTS};
use crate::nn::gpu::driver::ConvAddresses;
use crate::nn::kernels::ConvShape;

/// Shapes of the three tensors, and how they belong together.
pub(super) struct Descriptors {
    pub(super) x: TensorDescriptor,
    pub(super) w: FilterDescriptor,
    pub(super) y: TensorDescriptor,
    pub(super) conv: ConvDescriptor,
}

impl Descriptors {
    pub(super) fn new(key: Key, shape: &ConvShape) -> std::result::Result<Self, String> {
        let int = |x: usize| c_int::try_from(x).map_err(|_| format!("{x} is beyond 2^31 - 1"));
        let say = |e: CudnnError| e.to_string();
        let dtype = if key.bf16 {
            Type::CUDNN_DATA_BFLOAT16
        } else {
            Type::CUDNN_DATA_FLOAT
        };
        let layout = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
        let [oh, ow] = shape.out();
        // Sizes are given in the order N, C, H, W whatever the layout.
        let tensor = |n: usize, c: usize, h: usize, w: usize| {
            let t = TensorDescriptor(result::create_tensor_descriptor().map_err(say)?);
            let sizes = [int(n)?, int(c)?, int(h)?, int(w)?];
            // SAFETY: the descriptor was just made.
            unsafe { result::set_tensor4d_descriptor(t.0, layout, dtype, sizes) }.map_err(say)?;
            Ok::<_, String>(t)
        };
        let x = tensor(shape.n, shape.c, shape.h, shape.w)?;
        let y = tensor(shape.n, shape.o, oh, ow)?;
        let w = FilterDescriptor(result::create_filter_descriptor().map_err(say)?);
        let conv = ConvDescriptor(result::create_convolution_descriptor().map_err(say)?);
        // SAFETY: the descriptors were just made.
        unsafe {
            sys::cudnnSetFilter4dDescriptor(
                w.0,
                dtype,
                layout,
                int(shape.o)?,
                int(shape.c / shape.groups)?,
                int(shape.kernel[0])?,
                int(shape.kernel[1])?,
            )
            .result()
            .map_err(say)?;
            sys::cudnnSetConvolution2dDescriptor(
                conv.0,
                int(shape.padding[0])?,
                int(shape.padding[1])?,
                int(shape.stride[0])?,
                int(shape.stride[1])?,
                int(shape.dilation[0])?,
                int(shape.dilation[1])?,
                // What networks call convolution: the filter isn't mirrored.
                sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION,
                // Sums in f32 for both types.
                Type::CUDNN_DATA_FLOAT,
            )
            .result()
            .map_err(say)?;
            sys::cudnnSetConvolutionGroupCount(conv.0, int(shape.groups)?)
                .result()
                .map_err(say)?;
        }
        let about = Self { x, w, y, conv };
        about
            .set_math(if key.bf16 {
                Math::CUDNN_TENSOR_OP_MATH
            } else if key.tf32 {
                // Allows TF32 from Ampere on; TENSOR_OP_MATH_ALLOW_CONVERSION would allow f16 as well.
                Math::CUDNN_DEFAULT_MATH
            } else {
                Math::CUDNN_FMA_MATH
            })
            .map_err(say)?;
        Ok(about)
    }

    pub(super) fn set_math(&self, math: Math) -> std::result::Result<(), CudnnError> {
        // SAFETY: the descriptor lives.
        unsafe { sys::cudnnSetConvolutionMathType(self.conv.0, math).result() }
    }

    /// Algorithms in the order in which cuDNN expects them to be fast; the same order every time.
    pub(super) fn suggest(
        &self,
        handle: &Handle,
        kind: Kind,
    ) -> std::result::Result<Vec<Found>, CudnnError> {
        let mut found = [Found::default(); RESULTS];
        let mut count: c_int = 0;
        let (n, most, first) = (&raw mut count, RESULTS as c_int, found.as_mut_ptr());
        // SAFETY: the descriptors are complete; `found` has the layout and at least the length that is asked for.
        unsafe {
            match kind {
                Kind::Forward => sys::cudnnGetConvolutionForwardAlgorithm_v7(
                    handle.0,
                    self.x.0,
                    self.w.0,
                    self.conv.0,
                    self.y.0,
                    most,
                    n,
                    first.cast(),
                ),
                Kind::InputGrad => sys::cudnnGetConvolutionBackwardDataAlgorithm_v7(
                    handle.0,
                    self.w.0,
                    self.y.0,
                    self.conv.0,
                    self.x.0,
                    most,
                    n,
                    first.cast(),
                ),
                Kind::FilterGrad => sys::cudnnGetConvolutionBackwardFilterAlgorithm_v7(
                    handle.0,
                    self.x.0,
                    self.y.0,
                    self.conv.0,
                    self.w.0,
                    most,
                    n,
                    first.cast(),
                ),
            }
        }
        .result()?;
        Ok(first_of(&found, count))
    }

    /// Algorithms by measured time.
    ///
    /// # Safety
    /// Tensors and workspace lie where the addresses say; the result is overwritten.
    pub(super) unsafe fn search(
        &self,
        handle: &Handle,
        kind: Kind,
        at: ConvAddresses,
        (room, bytes): (u64, usize),
    ) -> std::result::Result<Vec<Found>, CudnnError> {
        let mut found = [Found::default(); RESULTS];
        let mut count: c_int = 0;
        let (n, most, first) = (&raw mut count, RESULTS as c_int, found.as_mut_ptr());
        let workspace = room as *mut c_void;
        let [x, w, y] = [at.x, at.w, at.y].map(|address| address as *mut c_void);
        // SAFETY: the caller answers for the memory; `found` has the layout and at least the length that is asked for.
        unsafe {
            match kind {
                Kind::Forward => sys::cudnnFindConvolutionForwardAlgorithmEx(
                    handle.0,
                    self.x.0,
                    x,
                    self.w.0,
                    w,
                    self.conv.0,
                    self.y.0,
                    y,
                    most,
                    n,
                    first.cast(),
                    workspace,
                    bytes,
                ),
                Kind::InputGrad => sys::cudnnFindConvolutionBackwardDataAlgorithmEx(
                    handle.0,
                    self.w.0,
                    w,
                    self.y.0,
                    y,
                    self.conv.0,
                    self.x.0,
                    x,
                    most,
                    n,
                    first.cast(),
                    workspace,
                    bytes,
                ),
                Kind::FilterGrad => sys::cudnnFindConvolutionBackwardFilterAlgorithmEx(
                    handle.0,
                    self.x.0,
                    x,
                    self.y.0,
                    y,
                    self.conv.0,
                    self.w.0,
                    w,
                    most,
                    n,
                    first.cast(),
                    workspace,
                    bytes,
                ),
            }
        }
        .result()?;
        Ok(first_of(&found, count))
    }

    /// Bytes of workspace of an algorithm.
    ///
    /// # Safety
    /// The descriptors are complete.
    pub(super) unsafe fn workspace(
        &self,
        handle: &Handle,
        kind: Kind,
        algorithm: u32,
    ) -> std::result::Result<usize, CudnnError> {
        let mut bytes = 0_usize;
        let (h, x, w, y, conv) = (handle.0, self.x.0, self.w.0, self.y.0, self.conv.0);
        let to = &raw mut bytes;
        // SAFETY: the caller's.
        unsafe {
            match kind {
                Kind::Forward => sys::cudnnGetConvolutionForwardWorkspaceSize(
                    h,
                    x,
                    w,
                    conv,
                    y,
                    forward(algorithm)?,
                    to,
                ),
                Kind::InputGrad => sys::cudnnGetConvolutionBackwardDataWorkspaceSize(
                    h,
                    w,
                    y,
                    conv,
                    x,
                    data(algorithm)?,
                    to,
                ),
                Kind::FilterGrad => sys::cudnnGetConvolutionBackwardFilterWorkspaceSize(
                    h,
                    x,
                    y,
                    conv,
                    w,
                    filter(algorithm)?,
                    to,
                ),
            }
        }
        .result()?;
        Ok(bytes)
    }
}

fn first_of(found: &[Found], count: c_int) -> Vec<Found> {
    let count = usize::try_from(count).unwrap_or(0).min(found.len());
    found[..count].to_vec()
}

/// What cuDNN makes and wants back; an error at that point has no one to go to.
macro_rules! owned {
    ($name:ident, $raw:ident, $destroy:ident) => {
        pub(super) struct $name(pub(super) sys::$raw);

        // SAFETY: cuDNN's objects belong to no thread; `State` is behind a lock.
        unsafe impl Send for $name {}

        impl Drop for $name {
            fn drop(&mut self) {
                // SAFETY: made by the matching function, and nothing uses it any more.
                let status = unsafe { sys::$destroy(self.0) };
                if let Err(e) = status.result() {
                    tracing::debug!("{}: {e}", stringify!($destroy));
                }
            }
        }
    };
}

owned!(Handle, cudnnHandle_t, cudnnDestroy);
owned!(
    TensorDescriptor,
    cudnnTensorDescriptor_t,
    cudnnDestroyTensorDescriptor
);
owned!(
    FilterDescriptor,
    cudnnFilterDescriptor_t,
    cudnnDestroyFilterDescriptor
);
owned!(
    ConvDescriptor,
    cudnnConvolutionDescriptor_t,
    cudnnDestroyConvolutionDescriptor
);

impl Handle {
    pub(super) fn new(stream: &CudaStream) -> std::result::Result<Self, CudnnError> {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: the handle is written on success; the stream outlives it in `Cudnn`.
        unsafe {
            sys::cudnnCreate(raw.as_mut_ptr()).result()?;
            let handle = Self(raw.assume_init());
            result::set_stream(handle.0, stream.cu_stream().cast())?;
            Ok(handle)
        }
    }
}
