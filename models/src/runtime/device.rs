//! What machine this is, as far as an engine or an optimised model depends on it.

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::path::Path;

use libloading::{Library, Symbol};

/// CUDA's driver library, by the names that the system's loader knows.
const DRIVER: [&str; 2] = ["libcuda.so.1", "libcuda.so"];
/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `_MINOR` of cuda.h.
const CAPABILITY: [c_int; 2] = [75, 76];
/// Longest name that is read.
const NAME: usize = 256;

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gpu {
    /// "NVIDIA GeForce RTX 4060", "Orin".
    pub name: String,
    /// Compute capability, "8.7".
    pub capability: String,
}

/// GPU number `index` as CUDA's driver counts them (`CUDA_VISIBLE_DEVICES` applies); `None` without a driver or without
/// such a GPU. Takes a few milliseconds the first time and holds no memory of the GPU.
pub(super) fn gpu(index: u32) -> Option<Gpu> {
    DRIVER.iter().find_map(|name| {
        gpu_of(Path::new(name), index)
            .inspect_err(|reason| tracing::debug!(library = name, reason, "no GPU is known"))
            .ok()
    })
}

fn gpu_of(driver: &Path, index: u32) -> Result<Gpu, String> {
    type Init = unsafe extern "C" fn(c_uint) -> c_int;
    type Get = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
    type GetName = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
    type GetAttribute = unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int;

    let index = c_int::try_from(index).map_err(|e| e.to_string())?;
    let check = |function: &str, code: c_int| match code {
        0 => Ok(()),
        code => Err(format!("{function} gives error {code}")),
    };
    // SAFETY: CUDA's driver runs no code on loading that depends on us, and it stays loaded: taking it out again while
    // ONNX Runtime uses it would be our mistake, so the handle is leaked.
    let library: &'static Library = match unsafe { Library::new(driver) } {
        Ok(library) => Box::leak(Box::new(library)),
        Err(error) => return Err(error.to_string()),
    };
    let missing = |e: libloading::Error| e.to_string();
    let mut device: c_int = 0;
    let mut name = [0 as c_char; NAME];
    let mut capability: [c_int; 2] = [0; 2];
    // SAFETY: the types are those of cuda.h, every pointer is to a live local of that type, and the length given is the
    // buffer's.
    unsafe {
        let init: Symbol<Init> = library.get(b"cuInit\0").map_err(missing)?;
        let get: Symbol<Get> = library.get(b"cuDeviceGet\0").map_err(missing)?;
        let get_name: Symbol<GetName> = library.get(b"cuDeviceGetName\0").map_err(missing)?;
        let attribute: Symbol<GetAttribute> =
            library.get(b"cuDeviceGetAttribute\0").map_err(missing)?;
        check("cuInit", init(0))?;
        check("cuDeviceGet", get(&mut device, index))?;
        check(
            "cuDeviceGetName",
            get_name(name.as_mut_ptr(), NAME as c_int - 1, device),
        )?;
        for (value, number) in capability.iter_mut().zip(CAPABILITY) {
            check("cuDeviceGetAttribute", attribute(value, number, device))?;
        }
    }
    // SAFETY: the last byte was never handed out, so the buffer ends with a 0.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) };
    Ok(Gpu {
        name: name.to_string_lossy().into_owned(),
        capability: format!("{}.{}", capability[0], capability[1]),
    })
}

macro_rules! present {
    ($detected:ident: $($feature:tt)*) => {
        [$(($feature, std::arch::$detected!($feature))),*]
    };
}

/// The processor's architecture and the instruction sets that ONNX Runtime's kernels are chosen by: a model laid out for
/// 512-bit vectors is wrong for 256-bit ones.
pub(super) fn processor() -> String {
    #[cfg(target_arch = "x86_64")]
    let features = present!(is_x86_feature_detected: "sse4.1" "avx" "avx2" "fma" "f16c" "avx512f" "avx512bw" "avx512dq"
        "avx512vl" "avx512vnni" "avx512bf16" "avx512fp16" "avxvnni");
    #[cfg(target_arch = "aarch64")]
    let features =
        present!(is_aarch64_feature_detected: "neon" "dotprod" "fp16" "bf16" "i8mm" "sve" "sve2");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let features: [(&str, bool); 0] = [];
    let mut text = std::env::consts::ARCH.to_string();
    for (name, _) in features.iter().filter(|(_, present)| *present) {
        text.push(' ');
        text.push_str(name);
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::Command;

    use super::*;

    /// A driver with one GPU, compiled here: the calls must go through C's ABI to be worth testing.
    const FAKE: &str = r#"
        #include <string.h>
        int cuInit(unsigned flags) { return flags == 0 ? 0 : 1; }
        int cuDeviceGet(int *device, int ordinal) { *device = 40 + ordinal; return ordinal == 0 ? 0 : 101; }
        int cuDeviceGetName(char *name, int len, int device) {
            if (device != 40) return 1;
            memset(name, 'x', len);
            strcpy(name, "Orin");
            return 0;
        }
        int cuDeviceGetAttribute(int *value, int attribute, int device) {
            *value = attribute == 75 ? 8 : attribute == 76 ? 7 : -1;
            return device == 40 ? 0 : 1;
        }
    "#;

    #[test]
    fn a_driver_is_asked_for_name_and_capability() {
        let dir = tempfile::tempdir().unwrap();
        let (source, library) = (dir.path().join("cuda.c"), dir.path().join("libcuda.so.1"));
        std::fs::write(&source, FAKE).unwrap();
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-w", "-o"])
            .args([&library, &source])
            .status();
        if !built.is_ok_and(|s| s.success()) {
            println!("skipped: a_driver_is_asked_for_name_and_capability (no C compiler)");
            return;
        }
        let want = Gpu {
            name: "Orin".into(),
            capability: "8.7".into(),
        };
        assert_eq!(gpu_of(&library, 0).unwrap(), want);
        let err = gpu_of(&library, 1).unwrap_err();
        assert!(err.contains("cuDeviceGet") && err.contains("101"), "{err}");
    }

    #[test]
    fn no_driver_is_no_gpu() {
        assert!(gpu_of(Path::new("/nowhere/libcuda.so.1"), 0).is_err());
        assert!(gpu_of(Path::new("libcuda.so.1"), u32::MAX).is_err());
    }

    #[test]
    fn the_processor_has_a_stable_name() {
        let name = processor();
        assert!(name.starts_with(std::env::consts::ARCH), "{name}");
        assert_eq!(name, processor());
        #[cfg(target_arch = "x86_64")]
        assert_eq!(
            name.contains(" avx2"),
            std::arch::is_x86_feature_detected!("avx2")
        );
    }
}
