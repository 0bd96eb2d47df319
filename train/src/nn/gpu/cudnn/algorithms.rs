//! Numbers of algorithms as the enumerations of their passes.

use candle_core::cuda_backend::cudarc::cudnn::result::CudnnError;
use candle_core::cuda_backend::cudarc::cudnn::sys::{
    cudnnConvolutionBwdDataAlgo_t as DataAlgo, cudnnConvolutionBwdFilterAlgo_t as FilterAlgo,
    cudnnConvolutionFwdAlgo_t as ForwardAlgo, cudnnStatus_t as Status,
};

/// Algorithms of each pass in the order of their numbers.
pub(super) fn forward(number: u32) -> std::result::Result<ForwardAlgo, CudnnError> {
    use ForwardAlgo as A;
    numbered(
        number,
        &[
            A::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM,
            A::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM,
            A::CUDNN_CONVOLUTION_FWD_ALGO_GEMM,
            A::CUDNN_CONVOLUTION_FWD_ALGO_DIRECT,
            A::CUDNN_CONVOLUTION_FWD_ALGO_FFT,
            A::CUDNN_CONVOLUTION_FWD_ALGO_FFT_TILING,
            A::CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD,
            A::CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD_NONFUSED,
        ],
    )
}

pub(super) fn data(number: u32) -> std::result::Result<DataAlgo, CudnnError> {
    use DataAlgo as A;
    numbered(
        number,
        &[
            A::CUDNN_CONVOLUTION_BWD_DATA_ALGO_0,
            A::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1,
            A::CUDNN_CONVOLUTION_BWD_DATA_ALGO_FFT,
            A::CUDNN_CONVOLUTION_BWD_DATA_ALGO_FFT_TILING,
            A::CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD,
            A::CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD_NONFUSED,
        ],
    )
}

pub(super) fn filter(number: u32) -> std::result::Result<FilterAlgo, CudnnError> {
    use FilterAlgo as A;
    numbered(
        number,
        &[
            A::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0,
            A::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1,
            A::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_FFT,
            A::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3,
            A::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_WINOGRAD,
            A::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_WINOGRAD_NONFUSED,
            A::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_FFT_TILING,
        ],
    )
}

fn numbered<A: Copy>(number: u32, all: &[A]) -> std::result::Result<A, CudnnError> {
    all.get(number as usize)
        .copied()
        .ok_or(CudnnError(Status::CUDNN_STATUS_NOT_SUPPORTED))
}
