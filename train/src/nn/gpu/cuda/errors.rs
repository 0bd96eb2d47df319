//! What a device says, and what can be done about it.

use candle_core::cuda_backend::cudarc::driver::{DriverError, sys};
use candle_core::{Error, Result, bail};

use super::modules;
use crate::nn::gpu::driver::Precision;

/// What the device said about this, and what can be done about it.
pub(in crate::nn::gpu) fn refused(what: &str, e: DriverError) -> Error {
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

pub(super) fn no_driver(e: DriverError) -> Error {
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

pub(super) fn not_loaded(module: &str, gpu: &str, e: DriverError) -> Error {
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
pub(super) fn check_driver_version() -> Result<()> {
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

pub(super) fn check_precision(
    name: &str,
    (major, minor): (i32, i32),
    precision: Precision,
) -> Result<()> {
    if major < 8 && precision != Precision::F32 {
        bail!(
            "{name} has compute capability {major}.{minor}: bf16 and TF32 need 8.0, so set train.precision = \"f32\""
        );
    }
    Ok(())
}
