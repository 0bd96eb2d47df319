//! NVIDIA GPUs: memory and streams by candle and cudarc, kernels from `train/cuda`, products by cuBLAS, convolutions by cuDNN.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use candle_core::cuda_backend::cudarc::cublas::{CudaBlas, sys as blas};
use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, CudaFunction, CudaModule, CudaStream, DevicePtr, result, sys,
};
use candle_core::cuda_backend::{CudaStorageSlice, DeviceId};
use candle_core::{DType, Device, Error, Result, Storage, Tensor, bail};

use super::driver::{Arg, ConvAddresses, ConvPass, Driver, Launch, Product, Settings};
use crate::nn::kernels::ConvShape;

mod errors;
mod memory;
mod products;

pub(super) use errors::refused;
use errors::{check_driver_version, check_precision, no_driver, not_loaded};
use memory::keep_freed_memory;

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

    unsafe fn product(&self, product: &Product) -> Result<()> {
        // SAFETY: the caller's.
        unsafe { self.multiply(product) }
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
