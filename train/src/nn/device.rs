//! Which device a program computes on, and how.
//!
//! A program opens at most a few devices and keeps them to its end. Networks and tensors say where they are; the matrices
//! of clustering and evaluation, whose data are on the host, go to the GPU that was opened last, if any.

use std::str::FromStr;
use std::sync::RwLock;

use candle_core::{Device, DeviceLocation, Result, bail};

use super::cpu::Cpu;
use super::gpu::{Gpu, Precision, Settings};
use super::kernels::Kernels;

/// What `--device` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceSpec {
    /// The first GPU if this build can use one and there is one, else the processor.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// This GPU, counted from 0.
    Cuda(usize),
}

impl FromStr for DeviceSpec {
    type Err = String;

    fn from_str(s: &str) -> std::result::Result<Self, String> {
        match s {
            "auto" => Ok(DeviceSpec::Auto),
            "cpu" => Ok(DeviceSpec::Cpu),
            "cuda" => Ok(DeviceSpec::Cuda(0)),
            _ => match s.strip_prefix("cuda:").map(str::parse) {
                Some(Ok(ordinal)) => Ok(DeviceSpec::Cuda(ordinal)),
                _ => Err(format!(
                    "{s}: unknown (known: auto, cpu, cuda:N with N from 0)"
                )),
            },
        }
    }
}

/// A device that was opened.
#[derive(Clone, Debug)]
pub struct Opened {
    /// For tensors and networks.
    pub device: Device,
    /// For people: what it is and how it computes.
    pub description: String,
}

/// GPUs that were opened, by what their tensors' device says. They live as long as the program.
static OPEN: RwLock<Vec<(DeviceLocation, &'static Gpu)>> = RwLock::new(Vec::new());

/// Opens a device. `precision` `None` takes bf16 on a GPU that has it and f32 elsewhere. A GPU that is open already gets
/// these settings.
///
/// # Errors
/// If the GPU isn't there, can't do what is asked, or this build has no CUDA.
pub fn open(spec: DeviceSpec, precision: Option<Precision>, deterministic: bool) -> Result<Opened> {
    match spec {
        DeviceSpec::Cpu => on_cpu(precision),
        DeviceSpec::Auto if !gpus_there() => on_cpu(precision),
        DeviceSpec::Auto => on_gpu(0, precision, deterministic),
        DeviceSpec::Cuda(ordinal) => on_gpu(ordinal, precision, deterministic),
    }
}

fn on_cpu(precision: Option<Precision>) -> Result<Opened> {
    if let Some(other @ (Precision::Bf16 | Precision::Tf32)) = precision {
        bail!(
            "train.precision = \"{}\" is for GPUs: this computes on the processor, in f32",
            other.name()
        );
    }
    Ok(Opened {
        device: Device::Cpu,
        description: format!("cpu, {} threads, f32", rayon::current_num_threads()),
    })
}

#[cfg(not(feature = "cuda"))]
fn gpus_there() -> bool {
    false
}

#[cfg(not(feature = "cuda"))]
fn on_gpu(ordinal: usize, _: Option<Precision>, _: bool) -> Result<Opened> {
    bail!(
        "--device cuda:{ordinal}: this build computes on the processor only; build with --features cuda \
         (docs/CONTRIBUTING.md) or take --device cpu"
    )
}

/// Makes a GPU's operators known for the device its tensors live on; it stays to the end of the program. This is how an
/// emulated GPU takes the place of the processor in tests.
pub fn register(gpu: Gpu) -> &'static Gpu {
    let gpu: &'static Gpu = Box::leak(Box::new(gpu));
    let location = gpu.device().location();
    let mut open = OPEN.write().unwrap_or_else(|poison| poison.into_inner());
    open.retain(|(at, _)| *at != location);
    open.push((location, gpu));
    gpu
}

/// The GPU that was opened last.
pub fn gpu() -> Option<&'static Gpu> {
    let open = OPEN.read().unwrap_or_else(|poison| poison.into_inner());
    open.last().map(|(_, gpu)| *gpu)
}

/// The operators of a device.
///
/// # Errors
/// If it was not opened.
pub(super) fn kernels(device: &Device) -> Result<&'static dyn Kernels> {
    let location = device.location();
    let open = OPEN.read().unwrap_or_else(|poison| poison.into_inner());
    if let Some((_, gpu)) = open.iter().find(|(at, _)| *at == location) {
        return Ok(*gpu);
    }
    match device {
        Device::Cpu => Ok(&Cpu),
        other => bail!(
            "{:?} was not opened by reid_train::nn::device::open",
            other.location()
        ),
    }
}

impl Precision {
    /// As in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
        }
    }
}

impl Settings {
    /// For people.
    pub fn describe(&self) -> String {
        let repeatable = if self.deterministic {
            ", deterministic"
        } else {
            ""
        };
        format!("{}{repeatable}", self.precision.name())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_a_command_line_may_say() {
        assert_eq!("auto".parse(), Ok(DeviceSpec::Auto));
        assert_eq!("cpu".parse(), Ok(DeviceSpec::Cpu));
        assert_eq!("cuda".parse(), Ok(DeviceSpec::Cuda(0)));
        assert_eq!("cuda:3".parse(), Ok(DeviceSpec::Cuda(3)));
        for wrong in ["gpu", "cuda:", "cuda:x", "cuda:-1", ""] {
            let error = wrong.parse::<DeviceSpec>().unwrap_err();
            assert!(error.contains("known: auto, cpu, cuda:N"), "{error}");
        }
    }

    #[test]
    fn the_processor_refuses_what_only_gpus_do() {
        let error = open(DeviceSpec::Cpu, Some(Precision::Bf16), false).unwrap_err();
        assert!(
            error.to_string().contains("train.precision = \"bf16\""),
            "{error}"
        );
        let cpu = open(DeviceSpec::Cpu, None, true).unwrap();
        assert!(cpu.description.starts_with("cpu"));
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_build_without_cuda_says_how_to_get_one() {
        let error = open(DeviceSpec::Cuda(0), None, false)
            .unwrap_err()
            .to_string();
        assert!(error.contains("--features cuda"), "{error}");
        assert!(matches!(
            open(DeviceSpec::Auto, None, false).unwrap().device,
            Device::Cpu
        ));
    }
}
