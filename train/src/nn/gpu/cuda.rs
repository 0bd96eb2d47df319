//! NVIDIA GPUs: memory and streams by candle and cudarc, kernels from `train/cuda`, products by cuBLAS, convolutions by cuDNN.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use candle_core::cuda_backend::cudarc::cublas::{self, CudaBlas, sys as blas};
use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, CudaFunction, CudaModule, CudaStream, DevicePtr, DriverError, result, sys,
};
use candle_core::cuda_backend::{CudaStorageSlice, DeviceId};
use candle_core::{DType, Device, Error, Result, Storage, Tensor, bail};

use super::driver::{
    Arg, ConvAddresses, ConvPass, Driver, Launch, Matrix, Precision, Product, Settings,
};
use crate::nn::kernels::ConvShape;

mod modules {
    include!(concat!(env!("OUT_DIR"), "/modules.rs"));
}

/// More than any kernel of `train/cuda` takes.
const MAX_ARGS: usize = 32;

/// GPUs that the driver shows; 0 also if there is no driver.
pub fn count() -> usize {
    CudaContext::device_count()
        .ok()
        .and_then(|count| usize::try_from(count).ok())
        .unwrap_or(0)
}

/// A GPU, with one stream on which everything happens in the order in which it was asked for.
pub struct Cuda {
    device: Device,
    id: DeviceId,
    stream: Arc<CudaStream>,
    name: String,
    capability: (i32, i32),
    settings: RwLock<Settings>,
    modules: HashMap<&'static str, Module>,
    // Not candle's own handle: its settings are candle's to change.
    blas: Mutex<CudaBlas>,
    #[cfg(feature = "cudnn")]
    dnn: super::cudnn::Cudnn,
}

/// A loaded module and those of its functions that have been used.
struct Module {
    module: Arc<CudaModule>,
    functions: RwLock<HashMap<String, CudaFunction>>,
}

impl Cuda {
    /// Opens a GPU, counted from 0, and loads the kernels.
    ///
    /// # Errors
    /// If there is no driver, no such GPU, or one that is too old for the kernels or the precision; if the driver is older
    /// than the toolkit that compiled the kernels. (Without any driver library the program doesn't even start: candle links it.)
    pub fn open(ordinal: usize, settings: Settings) -> Result<Self> {
        let count = CudaContext::device_count().map_err(no_driver)?;
        if i32::try_from(ordinal).map_or(true, |o| o >= count) {
            bail!(
                "there is no GPU {ordinal}: the driver shows {count}, counted from 0 (CUDA_VISIBLE_DEVICES hides some)"
            );
        }
        check_driver_version()?;
        // Device::new_cuda would take the per-thread default stream: another stream on every thread, so that what one thread
        // launches wouldn't wait for what another launched before.
        let device = Device::new_cuda_with_stream(ordinal)
            .map_err(|e| Error::Msg(format!("opening GPU {ordinal}: {e}")))?;
        let cuda = device.as_cuda_device()?;
        // SAFETY: everything runs on this one stream, in order, except the copies of `Uploader`, which records events itself.
        // Nothing has been allocated yet.
        unsafe { cuda.disable_event_tracking() };
        let id = cuda.id();
        let stream = cuda.cuda_stream();
        let context = stream.context();
        let name = context
            .name()
            .map_err(|e| refused("asking the GPU for its name", e))?;
        let capability = context
            .compute_capability()
            .map_err(|e| refused("asking the GPU for its compute capability", e))?;
        let (major, minor) = capability;
        if u32::try_from(major * 10 + minor).map_or(true, |c| c < modules::CAPABILITY) {
            bail!(
                "{name} has compute capability {major}.{minor}, and this program was built for {}.{} and newer: \
                 build it with CUDA_COMPUTE_CAP={major}{minor}",
                modules::CAPABILITY / 10,
                modules::CAPABILITY % 10
            );
        }
        check_precision(&name, capability, settings.precision)?;
        keep_freed_memory(context)?;
        let mut loaded = HashMap::new();
        for &(module, ptx) in modules::MODULES {
            let module_of_gpu = context
                .load_module(ptx.into())
                .map_err(|e| not_loaded(module, &name, e))?;
            loaded.insert(
                module,
                Module {
                    module: module_of_gpu,
                    functions: RwLock::default(),
                },
            );
        }
        let blas = CudaBlas::new(stream.clone())
            .map_err(|e| Error::Msg(format!("cuBLAS could not start: {e}")))?;
        // SAFETY: the handle was just made.
        unsafe {
            // bf16 results may otherwise be summed in bf16 across parts of k; `Product` promises f32. Besides this flag the
            // default: f32 stays f32 unless a call asks for TF32.
            blas::cublasSetMathMode(
                *blas.handle(),
                blas::cublasMath_t::CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION,
            )
            .result()
        }
        .map_err(|e| Error::Msg(format!("cuBLAS refuses its settings: {e}")))?;
        Ok(Self {
            #[cfg(feature = "cudnn")]
            dnn: super::cudnn::Cudnn::open(stream.clone())?,
            device,
            id,
            stream,
            name,
            capability,
            settings: RwLock::new(settings),
            modules: loaded,
            blas: Mutex::new(blas),
        })
    }

    /// Changes the settings for what is launched next.
    ///
    /// # Errors
    /// If the GPU can't compute with this precision.
    pub fn set_settings(&self, settings: Settings) -> Result<()> {
        check_precision(&self.name, self.capability, settings.precision)?;
        *self
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner) = settings;
        Ok(())
    }

    /// Product name, such as "NVIDIA H200".
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Major and minor number of its generation.
    pub fn compute_capability(&self) -> (i32, i32) {
        self.capability
    }

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

    /// The stream on which everything runs.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// The function, looked up in its module once.
    fn function(&self, launch: &Launch) -> Result<sys::CUfunction> {
        let Some(module) = self.modules.get(launch.module) else {
            bail!("no module {:?} among the kernels", launch.module);
        };
        if let Some(known) = module
            .functions
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(launch.kernel)
        {
            return Ok(known.cu_function());
        }
        let function = module
            .module
            .load_function(launch.kernel)
            .map_err(|e| refused(&format!("kernel {}::{}", launch.module, launch.kernel), e))?;
        let raw = function.cu_function();
        module
            .functions
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(launch.kernel.to_owned(), function);
        Ok(raw)
    }
}

impl Driver for Cuda {
    fn device(&self) -> &Device {
        &self.device
    }

    fn settings(&self) -> Settings {
        *self.settings.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn address(&self, t: &Tensor) -> Result<u64> {
        let (storage, layout) = t.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else {
            bail!("a tensor of shape {:?} is not on the GPU", t.shape());
        };
        if storage.device.id() != self.id {
            bail!("a tensor of shape {:?} is on another GPU", t.shape());
        }
        if !layout.is_contiguous() {
            bail!("a tensor of shape {:?} is not contiguous", t.shape());
        }
        let stream = &self.stream;
        let start = match &storage.slice {
            CudaStorageSlice::F32(s) => s.device_ptr(stream).0,
            CudaStorageSlice::BF16(s) => s.device_ptr(stream).0,
            CudaStorageSlice::F64(s) => s.device_ptr(stream).0,
            CudaStorageSlice::U32(s) => s.device_ptr(stream).0,
            CudaStorageSlice::U8(s) => s.device_ptr(stream).0,
            CudaStorageSlice::I64(s) => s.device_ptr(stream).0,
            _ => bail!("no kernel takes a tensor of {:?}", t.dtype()),
        };
        Ok(start + (layout.start_offset() * t.dtype().size_in_bytes()) as u64)
    }

    unsafe fn launch(&self, launch: &Launch) -> Result<()> {
        if launch.grid.contains(&0) {
            return Ok(());
        }
        let function = self.function(launch)?;
        if launch.args.len() > MAX_ARGS {
            bail!("{}: more than {MAX_ARGS} arguments", launch.kernel);
        }
        let mut cells = [Cell([0; 8]); MAX_ARGS];
        let mut places = [std::ptr::null_mut::<c_void>(); MAX_ARGS];
        for ((cell, place), arg) in cells.iter_mut().zip(&mut places).zip(launch.args) {
            *cell = Cell::new(*arg);
            *place = (&raw mut *cell).cast();
        }
        let [x, y, z] = launch.grid;
        let what = || {
            format!(
                "kernel {}::{} on {x} x {y} x {z} blocks of {}",
                launch.module, launch.kernel, launch.block
            )
        };
        self.stream
            .context()
            .bind_to_thread()
            .map_err(|e| refused(&what(), e))?;
        // SAFETY: the caller answers for the arguments; they are read before the call returns.
        unsafe {
            result::launch_kernel(
                function,
                (x, y, z),
                (launch.block, 1, 1),
                0,
                self.stream.cu_stream(),
                &mut places[..launch.args.len()],
            )
        }
        .map_err(|e| refused(&what(), e))
    }

    unsafe fn product(&self, p: &Product) -> Result<()> {
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

    #[cfg(feature = "cudnn")]
    unsafe fn convolution(
        &self,
        pass: ConvPass,
        shape: &ConvShape,
        dtype: DType,
        at: ConvAddresses,
    ) -> Result<bool> {
        // SAFETY: the caller answers for the addresses.
        unsafe {
            self.dnn
                .convolution(pass, shape, dtype, at, self.settings())
        }
    }

    #[cfg(not(feature = "cudnn"))]
    unsafe fn convolution(
        &self,
        _: ConvPass,
        _: &ConvShape,
        _: DType,
        _: ConvAddresses,
    ) -> Result<bool> {
        Ok(false)
    }

    fn synchronize(&self) -> Result<()> {
        self.stream
            .synchronize()
            .map_err(|e| refused("waiting for the GPU", e))
    }
}

/// Room for one argument, whatever its width; the kernel reads as much as it declares.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Cell([u8; 8]);

impl Cell {
    fn new(arg: Arg) -> Self {
        fn wide([a, b, c, d]: [u8; 4]) -> [u8; 8] {
            [a, b, c, d, 0, 0, 0, 0]
        }
        Self(match arg {
            Arg::Pointer(v) => v.to_ne_bytes(),
            Arg::I32(v) => wide(v.to_ne_bytes()),
            Arg::I64(v) => v.to_ne_bytes(),
            Arg::F32(v) => wide(v.to_ne_bytes()),
            Arg::F64(v) => v.to_ne_bytes(),
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

/// What the device said about this, and what can be done about it.
pub(super) fn refused(what: &str, e: DriverError) -> Error {
    let text = |found: std::result::Result<&std::ffi::CStr, DriverError>| {
        found.map(|s| s.to_string_lossy().into_owned()).ok()
    };
    let code = text(e.error_name()).unwrap_or_else(|| format!("{:?}", e.0));
    let meaning = text(e.error_string()).unwrap_or_else(|| "no explanation".into());
    let remedy = if e.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
        "; a smaller batch needs less memory, and other programs may hold some (nvidia-smi)"
    } else {
        ""
    };
    Error::Msg(format!("{what}: CUDA says {code} ({meaning}){remedy}"))
}

fn no_driver(e: DriverError) -> Error {
    use sys::CUresult as R;
    match e.0 {
        R::CUDA_ERROR_NO_DEVICE => Error::Msg(
            "the driver shows no NVIDIA GPU (nvidia-smi lists them; CUDA_VISIBLE_DEVICES hides some)".into(),
        ),
        R::CUDA_ERROR_STUB_LIBRARY => Error::Msg(
            "libcuda.so.1 is a toolkit's stub, not the driver's: take its stubs/ folder out of LD_LIBRARY_PATH".into(),
        ),
        _ => refused(
            "starting the NVIDIA driver (is it installed and loaded? nvidia-smi tells)",
            e,
        ),
    }
}

fn not_loaded(module: &str, gpu: &str, e: DriverError) -> Error {
    use sys::CUresult as R;
    match e.0 {
        R::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => Error::Msg(format!(
            "the NVIDIA driver is too old for this program: CUDA {toolkit} built it, so the driver must know CUDA {toolkit} \
             (nvidia-smi shows what it knows). Update the driver, or build with an older toolkit",
            toolkit = modules::TOOLKIT
        )),
        R::CUDA_ERROR_NO_BINARY_FOR_GPU | R::CUDA_ERROR_INVALID_PTX => refused(
            &format!(
                "kernels {module} on {gpu} (built by CUDA {} for compute capability {}.{})",
                modules::TOOLKIT,
                modules::CAPABILITY / 10,
                modules::CAPABILITY % 10
            ),
            e,
        ),
        _ => refused(&format!("loading the kernels {module}"), e),
    }
}

/// The driver translates PTX of its own CUDA version and older ones. candle's kernels are PTX, too, and their error would
/// say less.
fn check_driver_version() -> Result<()> {
    let mut version = 0;
    // SAFETY: writes one int.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }
        .result()
        .map_err(no_driver)?;
    let mut parts = modules::TOOLKIT
        .split('.')
        .map(|part| part.parse::<i32>().unwrap_or(0));
    let needed = parts.next().unwrap_or(0) * 1000 + parts.next().unwrap_or(0) * 10;
    if version < needed {
        bail!(
            "the NVIDIA driver knows CUDA {}.{}, and this program was built by CUDA {}: update the driver, or build with an \
             older toolkit",
            version / 1000,
            version % 1000 / 10,
            modules::TOOLKIT
        );
    }
    Ok(())
}

fn check_precision(name: &str, (major, minor): (i32, i32), precision: Precision) -> Result<()> {
    if major < 8 && precision != Precision::F32 {
        bail!(
            "{name} has compute capability {major}.{minor}: bf16 and TF32 need 8.0, so set train.precision = \"f32\""
        );
    }
    Ok(())
}

/// The device's pool, if its memory is handed out in the order of a stream.
fn pool(context: &CudaContext) -> std::result::Result<Option<sys::CUmemoryPool>, DriverError> {
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
fn keep_freed_memory(context: &CudaContext) -> Result<()> {
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
