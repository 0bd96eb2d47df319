//! Matrix products by cuBLAS.

use std::ffi::c_void;
use std::sync::PoisonError;

use candle_core::cuda_backend::cudarc::cublas::{self, sys as blas};
use candle_core::cuda_backend::cudarc::driver::sys;
use candle_core::{DType, Error, Result, bail};

use super::Cuda;
use super::errors::refused;
use crate::nn::gpu::driver::{Driver, Matrix, Precision, Product};

impl Cuda {
    /// [`Driver::product`].
    ///
    /// # Safety
    /// The matrices lie where the addresses say.
    pub(super) unsafe fn multiply(&self, p: &Product) -> Result<()> {
        let Product {
            m, n, k, a, b, c, ..
        } = *p;
        let types = (a.dtype, b.dtype, c.dtype);
        let compute = match (types, self.settings().precision) {
            ((DType::F32, DType::F32, DType::F32), Precision::Tf32) if !p.exact => {
                blas::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32
            }
            // Vectors outside the maps are f32 under Bf16, too, and are multiplied as such.
            ((DType::F32, DType::F32, DType::F32), _)
            | ((DType::BF16, DType::BF16, DType::BF16 | DType::F32), _) => {
                blas::cublasComputeType_t::CUBLAS_COMPUTE_32F
            }
            _ => bail!(
                "no product of {:?} and {:?} into {:?}",
                types.0,
                types.1,
                types.2
            ),
        };
        let columns = |x: &Matrix, rows: usize, columns: usize| {
            if x.transposed { rows } else { columns }
        };
        if c.transposed
            || a.stride < columns(&a, m, k)
            || b.stride < columns(&b, k, n)
            || c.stride < n
        {
            bail!("matrices that don't fit together: {p:?}");
        }
        if m == 0 || n == 0 {
            return Ok(());
        }
        self.stream
            .context()
            .bind_to_thread()
            .map_err(|e| refused("a matrix product", e))?;
        if k == 0 {
            if p.accumulate {
                return Ok(());
            }
            let width = c.dtype.size_in_bytes();
            // SAFETY: the caller answers for `c`: m rows of n elements, `stride` apart. All bits 0 is 0 in both types.
            return unsafe {
                sys::cuMemsetD2D8Async(
                    c.address,
                    c.stride * width,
                    0,
                    n * width,
                    m,
                    self.stream.cu_stream(),
                )
            }
            .result()
            .map_err(|e| refused("an empty matrix product", e));
        }
        let int = |what: &str, x: usize| {
            i32::try_from(x).map_err(|_| {
                Error::Msg(format!(
                    "a matrix product of {m} x {k} by {k} x {n}: {what} is {x}, beyond 2^31 - 1"
                ))
            })
        };
        let beta: f32 = if p.accumulate { 1.0 } else { 0.0 };
        let alpha: f32 = 1.0;
        let operation = |x: &Matrix| {
            if x.transposed {
                blas::cublasOperation_t::CUBLAS_OP_T
            } else {
                blas::cublasOperation_t::CUBLAS_OP_N
            }
        };
        let handle = self.blas.lock().unwrap_or_else(PoisonError::into_inner);
        // cuBLAS reads memory column by column. A matrix X stored row by row, `stride` apart, is to it the matrix X^T with that
        // leading dimension. So give it what it takes for the transposed equation:
        //
        //   C = op(A) op(B), m x n   <=>   C^T = op(B)^T op(A)^T, n x m
        //
        // To cuBLAS C is C^T already. B not transposed: op(B)^T = B^T is what it sees, operation N. B transposed:
        // op(B)^T = B is the transpose of what it sees, operation T. So each factor keeps its flag, the factors change places,
        // and m and n with them.
        //
        // SAFETY: the caller answers for the addresses; the strides were checked; alpha and beta are read before the call
        // returns (the handle's pointer mode is "host").
        unsafe {
            cublas::result::gemm_ex(
                *handle.handle(),
                operation(&b),
                operation(&a),
                int("n", n)?,
                int("m", m)?,
                int("k", k)?,
                (&raw const alpha).cast(),
                b.address as *const c_void,
                cuda_type(b.dtype),
                int("the right factor's stride", b.stride)?,
                a.address as *const c_void,
                cuda_type(a.dtype),
                int("the left factor's stride", a.stride)?,
                (&raw const beta).cast(),
                c.address as *mut c_void,
                cuda_type(c.dtype),
                int("the result's stride", c.stride)?,
                compute,
                blas::cublasGemmAlgo_t::CUBLAS_GEMM_DFALT,
            )
        }
        .map_err(|e| {
            Error::Msg(format!(
                "cuBLAS: {:?} product of {m} x {k} by {k} x {n}: {e}",
                a.dtype
            ))
        })
    }
}

fn cuda_type(dtype: DType) -> blas::cudaDataType {
    if dtype == DType::BF16 {
        blas::cudaDataType::CUDA_R_16BF
    } else {
        blas::cudaDataType::CUDA_R_32F
    }
}
