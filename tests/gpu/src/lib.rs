//! Runs the CUDA kernels of `train/cuda` on the processor: the same sources, compiled by a C++ compiler.
//!
//! An [`Emulator`] is a [`Driver`] over candle's CPU tensors, so that all that is written above that trait runs where no
//! GPU is. It finds what a processor would forgive: barriers that not all threads of a block reach, accesses that are not
//! aligned, arguments of other types than the kernel's. With another order of threads a missing barrier shows as another
//! result.

pub mod bench;
pub mod twins;

use std::collections::{BTreeSet, HashMap};
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use candle_core::{DType, Device, Result, Storage, Tensor, bail};
use gemm::Parallelism;
use half::bf16;
use rayon::prelude::*;
use reid_train::nn::gpu::{
    Arg, ConvAddresses, ConvPass, Driver, Launch, Matrix, Product, Settings,
};
use reid_train::nn::kernels::ConvShape;

/// Blocks a task runs one after another: enough to pay for a task.
const BLOCKS: u64 = 8;

unsafe extern "C" {
    fn reid_kernel(
        index: c_uint,
        module: *mut *const c_char,
        name: *mut *const c_char,
        parameters: *mut *const c_char,
    ) -> c_int;
    fn reid_emulate(
        name: *const c_char,
        grid: *const c_uint,
        block: c_uint,
        args: *const *const c_void,
        seed: c_uint,
        first: c_ulonglong,
        blocks: c_ulonglong,
        error: *mut c_char,
        error_len: usize,
    ) -> c_int;
}

/// A kernel as it was compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// File without its ending.
    pub module: String,
    /// Function.
    pub name: String,
    /// A letter per parameter: `p` pointer, `i` int, `l` long long, `f` float, `d` double.
    pub parameters: String,
}

/// All kernels there are, by name.
pub fn kernels() -> &'static HashMap<String, Kernel> {
    static KERNELS: OnceLock<HashMap<String, Kernel>> = OnceLock::new();
    KERNELS.get_or_init(|| {
        let mut all = HashMap::new();
        for index in 0.. {
            let mut at = [std::ptr::null(); 3];
            let [module, name, parameters] = &mut at;
            // SAFETY: three places to write to; if it returns 1, they are strings that live for ever.
            if unsafe { reid_kernel(index, module, name, parameters) } == 0 {
                break;
            }
            // SAFETY: as above.
            let text = at.map(|s| unsafe { CStr::from_ptr(s) }.to_string_lossy().into_owned());
            let [module, name, parameters] = text;
            let kernel = Kernel {
                module,
                name: name.clone(),
                parameters,
            };
            all.insert(name, kernel);
        }
        all
    })
}

/// The processor in the place of a GPU.
pub struct Emulator {
    settings: Settings,
    seed: AtomicU32,
    launched: Mutex<BTreeSet<String>>,
}

impl Emulator {
    /// With threads in forward order.
    pub fn new(settings: Settings) -> Self {
        Emulator {
            settings,
            seed: AtomicU32::new(0),
            launched: Mutex::default(),
        }
    }

    /// Names of the kernels that ran so far.
    pub fn launched(&self) -> BTreeSet<String> {
        let launched = self.launched.lock();
        launched.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets the order in which a block's threads run between barriers: 0 forward, 1 backward, any other number one of the
    /// shuffled orders. Results must not depend on it.
    pub fn set_order(&self, seed: u32) {
        self.seed.store(seed, Ordering::Relaxed);
    }
}

/// The letter of an argument's type; see [`Kernel::parameters`].
fn letter(arg: &Arg) -> char {
    match arg {
        Arg::Pointer(_) => 'p',
        Arg::I32(_) => 'i',
        Arg::I64(_) => 'l',
        Arg::F32(_) => 'f',
        Arg::F64(_) => 'd',
    }
}

/// Eight bytes that begin with the argument's.
fn bytes(arg: &Arg) -> u64 {
    let mut bytes = [0; 8];
    match arg {
        Arg::Pointer(v) => bytes = v.to_ne_bytes(),
        Arg::I32(v) => bytes[..4].copy_from_slice(&v.to_ne_bytes()),
        Arg::I64(v) => bytes = v.to_ne_bytes(),
        Arg::F32(v) => bytes[..4].copy_from_slice(&v.to_ne_bytes()),
        Arg::F64(v) => bytes = v.to_ne_bytes(),
    }
    u64::from_ne_bytes(bytes)
}

/// Addresses of arguments, for all tasks.
struct Shared(Vec<*const c_void>);
// SAFETY: the arguments are only read.
unsafe impl Sync for Shared {}

impl Driver for Emulator {
    fn device(&self) -> &Device {
        &Device::Cpu
    }

    fn settings(&self) -> Settings {
        self.settings
    }

    fn address(&self, t: &Tensor) -> Result<u64> {
        if !t.is_contiguous() {
            bail!("a kernel needs a contiguous tensor, not {:?}", t.layout());
        }
        let (storage, layout) = t.storage_and_layout();
        let Storage::Cpu(storage) = &*storage else {
            bail!("the emulator runs on the processor's memory");
        };
        let start = match t.dtype() {
            DType::F32 => storage.as_slice::<f32>()?.as_ptr() as u64,
            DType::BF16 => storage.as_slice::<bf16>()?.as_ptr() as u64,
            DType::F64 => storage.as_slice::<f64>()?.as_ptr() as u64,
            DType::U32 => storage.as_slice::<u32>()?.as_ptr() as u64,
            DType::I64 => storage.as_slice::<i64>()?.as_ptr() as u64,
            DType::U8 => storage.as_slice::<u8>()?.as_ptr() as u64,
            other => bail!("no kernel takes {other:?}"),
        };
        Ok(start + (layout.start_offset() * t.dtype().size_in_bytes()) as u64)
    }

    unsafe fn launch(&self, launch: &Launch) -> Result<()> {
        let Some(kernel) = kernels().get(launch.kernel) else {
            bail!("there is no kernel {}", launch.kernel);
        };
        let given: String = launch.args.iter().map(letter).collect();
        if given != kernel.parameters || kernel.module != launch.module {
            bail!(
                "{}: arguments {given:?} in {}, but the kernel takes {:?} in {}",
                launch.kernel,
                launch.module,
                kernel.parameters,
                kernel.module
            );
        }
        let mut launched = self.launched.lock().unwrap_or_else(PoisonError::into_inner);
        launched.insert(launch.kernel.to_owned());
        drop(launched);
        // The limits of CUDA: the axes of a grid, threads the kernels were compiled for.
        let [x, y, z] = launch.grid;
        if launch.grid.contains(&0) || x > i32::MAX as u32 || y > 65_535 || z > 65_535 {
            bail!("{}: a grid of {:?}", launch.kernel, launch.grid);
        }
        if launch.block == 0 || launch.block > 256 {
            bail!("{}: blocks of {} threads", launch.kernel, launch.block);
        }
        let values: Vec<u64> = launch.args.iter().map(bytes).collect();
        let args = Shared(
            values
                .iter()
                .map(|v| std::ptr::from_ref(v).cast())
                .collect(),
        );
        let name = CString::new(launch.kernel).map_err(candle_core::Error::wrap)?;
        let seed = self.seed.load(Ordering::Relaxed);
        let run = |first: u64, blocks: u64| {
            let args = &args;
            let mut message = [0u8; 512];
            // SAFETY: as many arguments as the kernel takes, of its types; what they point to is the caller's promise.
            let failed = unsafe {
                reid_emulate(
                    name.as_ptr(),
                    launch.grid.as_ptr(),
                    launch.block,
                    args.0.as_ptr(),
                    seed,
                    first,
                    blocks,
                    message.as_mut_ptr().cast(),
                    message.len(),
                )
            };
            if failed != 0 {
                let text =
                    CStr::from_bytes_until_nul(&message).map_err(candle_core::Error::wrap)?;
                bail!("{}", text.to_string_lossy());
            }
            Ok(())
        };
        let blocks = u64::from(x) * u64::from(y) * u64::from(z);
        if blocks <= BLOCKS {
            return run(0, blocks);
        }
        (0..blocks.div_ceil(BLOCKS))
            .into_par_iter()
            .try_for_each(|task| run(task * BLOCKS, BLOCKS.min(blocks - task * BLOCKS)))
    }

    unsafe fn product(&self, p: &Product) -> Result<()> {
        let (m, n, k) = (p.m, p.n, p.k);
        if p.a.dtype != p.b.dtype || (p.c.dtype != p.a.dtype && p.c.dtype != DType::F32) {
            bail!(
                "a product of {:?} and {:?} into {:?}",
                p.a.dtype,
                p.b.dtype,
                p.c.dtype
            );
        }
        // SAFETY: the matrices lie where they say, by the caller's promise.
        let (a, b) = unsafe { (read(&p.a, m, k)?, read(&p.b, k, n)?) };
        // SAFETY: as above.
        let mut c = if p.accumulate {
            unsafe { read(&p.c, m, n)? }
        } else {
            vec![0.0; m * n]
        };
        if m * n * k > 0 {
            // SAFETY: three compact row-major matrices of these sizes.
            unsafe {
                gemm::gemm(
                    m,
                    n,
                    k,
                    c.as_mut_ptr(),
                    1,
                    n as isize,
                    p.accumulate,
                    a.as_ptr(),
                    1,
                    k as isize,
                    b.as_ptr(),
                    1,
                    n as isize,
                    1.0,
                    1.0,
                    false,
                    false,
                    false,
                    Parallelism::None,
                );
            }
        }
        // SAFETY: as above.
        unsafe { write(&p.c, m, n, &c) }
    }

    unsafe fn convolution(
        &self,
        _pass: ConvPass,
        _shape: &ConvShape,
        _dtype: DType,
        _at: ConvAddresses,
    ) -> Result<bool> {
        Ok(false)
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
}

/// Elements from one row of the matrix as it is multiplied to the next, and from one column to the next.
fn strides(matrix: &Matrix) -> (usize, usize) {
    if matrix.transposed {
        (1, matrix.stride)
    } else {
        (matrix.stride, 1)
    }
}

/// The matrix as compact rows of f32.
///
/// # Safety
/// It lies where it says.
unsafe fn read(matrix: &Matrix, rows: usize, cols: usize) -> Result<Vec<f32>> {
    let (down, right) = strides(matrix);
    let places = (0..rows).flat_map(|r| (0..cols).map(move |c| r * down + c * right));
    Ok(match matrix.dtype {
        DType::F32 => {
            let p = matrix.address as *const f32;
            // SAFETY: the caller's promise.
            places.map(|at| unsafe { *p.add(at) }).collect()
        }
        DType::BF16 => {
            let p = matrix.address as *const bf16;
            // SAFETY: the caller's promise.
            places.map(|at| unsafe { *p.add(at) }.to_f32()).collect()
        }
        other => bail!("a matrix of {other:?}"),
    })
}

/// Writes compact rows of f32 to the matrix.
///
/// # Safety
/// It lies where it says, and nobody else touches it meanwhile.
unsafe fn write(matrix: &Matrix, rows: usize, cols: usize, from: &[f32]) -> Result<()> {
    let (down, right) = strides(matrix);
    let places = (0..rows).flat_map(|r| (0..cols).map(move |c| r * down + c * right));
    for (at, value) in places.zip(from) {
        // SAFETY: the caller's promise.
        unsafe {
            match matrix.dtype {
                DType::F32 => *(matrix.address as *mut f32).add(at) = *value,
                DType::BF16 => *(matrix.address as *mut bf16).add(at) = bf16::from_f32(*value),
                other => bail!("a matrix of {other:?}"),
            }
        }
    }
    Ok(())
}
