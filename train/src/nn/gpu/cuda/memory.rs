//! How much memory a GPU has, and that freed memory stays with the program.

use candle_core::Result;
use candle_core::cuda_backend::cudarc::driver::{CudaContext, DriverError, sys};

use super::Cuda;
use super::errors::refused;

impl Cuda {
    /// Bytes that can still be allocated, freed ones that the pool keeps among them, and bytes in all.
    ///
    /// # Errors
    /// If the device doesn't answer.
    pub fn memory(&self) -> Result<(usize, usize)> {
        let context = self.stream.context();
        let what = "asking for free memory";
        let (free, total) = context.mem_get_info().map_err(|e| refused(what, e))?;
        let kept = match pool(context).map_err(|e| refused(what, e))? {
            Some(pool) => {
                let read = |attribute| {
                    let mut bytes = 0_u64;
                    // SAFETY: these two attributes are written as 64-bit numbers.
                    unsafe { sys::cuMemPoolGetAttribute(pool, attribute, (&raw mut bytes).cast()) }
                        .result()
                        .map(|()| bytes)
                };
                let held = read(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)
                    .map_err(|e| refused(what, e))?;
                let used = read(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)
                    .map_err(|e| refused(what, e))?;
                usize::try_from(held.saturating_sub(used)).unwrap_or(0)
            }
            None => 0,
        };
        Ok((free + kept, total))
    }

    /// The most that was allocated at a time since [`Cuda::forget_peak`], in bytes; `None` without a pool.
    ///
    /// # Errors
    /// If the device doesn't answer.
    pub fn peak(&self) -> Result<Option<u64>> {
        let what = "asking for the peak of memory";
        let Some(pool) = pool(self.stream.context()).map_err(|e| refused(what, e))? else {
            return Ok(None);
        };
        let mut bytes = 0_u64;
        let high = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
        // SAFETY: the attribute is written as a 64-bit number.
        unsafe { sys::cuMemPoolGetAttribute(pool, high, (&raw mut bytes).cast()) }
            .result()
            .map_err(|e| refused(what, e))?;
        Ok(Some(bytes))
    }

    /// Starts [`Cuda::peak`] anew from what is allocated now.
    ///
    /// # Errors
    /// If the device doesn't answer.
    pub fn forget_peak(&self) -> Result<()> {
        let what = "resetting the peak of memory";
        let Some(pool) = pool(self.stream.context()).map_err(|e| refused(what, e))? else {
            return Ok(());
        };
        let mut zero = 0_u64;
        let high = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
        // SAFETY: the attribute is read as a 64-bit number; 0 is the one value it may be set to.
        unsafe { sys::cuMemPoolSetAttribute(pool, high, (&raw mut zero).cast()) }
            .result()
            .map_err(|e| refused(what, e))
    }
}

/// The device's pool, if its memory is handed out in the order of a stream.
pub(super) fn pool(
    context: &CudaContext,
) -> std::result::Result<Option<sys::CUmemoryPool>, DriverError> {
    if !context.has_async_alloc() {
        return Ok(None);
    }
    let mut pool = std::ptr::null_mut();
    // SAFETY: writes one handle; the pool lives as long as the device.
    unsafe { sys::cuDeviceGetDefaultMemPool(&raw mut pool, context.cu_device()) }.result()?;
    Ok(Some(pool))
}

/// By default the pool returns all free memory to the system whenever the host waits for the device, and every step would pay
/// for getting it back.
pub(super) fn keep_freed_memory(context: &CudaContext) -> Result<()> {
    let what = "setting up the GPU's memory";
    let Some(pool) = pool(context).map_err(|e| refused(what, e))? else {
        return Ok(());
    };
    let mut threshold = u64::MAX;
    // SAFETY: the attribute is read as one 64-bit number.
    unsafe {
        sys::cuMemPoolSetAttribute(
            pool,
            sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
            (&raw mut threshold).cast(),
        )
    }
    .result()
    .map_err(|e| refused(what, e))
}
