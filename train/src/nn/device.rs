//! Which device a program computes on, and how.
//!
//! A program opens at most a few devices and keeps them to its end. Networks and tensors say where they are; the matrices
//! of clustering and evaluation, whose data are on the host, go to the GPU that was opened last, if any.

use std::str::FromStr;
#[cfg(feature = "cuda")]
use std::sync::Arc;
use std::sync::RwLock;

use candle_core::{Device, DeviceLocation, Result, Tensor, bail};

use super::cpu::Cpu;
#[cfg(feature = "cuda")]
use super::gpu::cuda::Cuda;
#[cfg(feature = "cuda")]
use super::gpu::upload::Uploader;
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

/// Whether opening this would open a GPU.
pub fn is_gpu(spec: DeviceSpec) -> bool {
    match spec {
        DeviceSpec::Cpu => false,
        DeviceSpec::Auto => gpus_there(),
        DeviceSpec::Cuda(_) => true,
    }
}

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

#[cfg(feature = "cuda")]
fn gpus_there() -> bool {
    candle_core::utils::cuda_is_available() && super::gpu::cuda::count() > 0
}

#[cfg(not(feature = "cuda"))]
fn gpus_there() -> bool {
    false
}

/// GPUs behind what [`OPEN`] holds, to change their settings, to upload to them and to ask for their memory.
#[cfg(feature = "cuda")]
static CUDA: RwLock<Vec<(usize, Arc<Cuda>)>> = RwLock::new(Vec::new());

#[cfg(feature = "cuda")]
fn on_gpu(ordinal: usize, precision: Option<Precision>, deterministic: bool) -> Result<Opened> {
    let mut open = CUDA.write().unwrap_or_else(|poison| poison.into_inner());
    let known = open.iter().find(|(at, _)| *at == ordinal);
    let cuda = match known {
        Some((_, cuda)) => cuda.clone(),
        None => {
            let exact = Settings {
                precision: Precision::F32,
                deterministic,
            };
            let cuda = Arc::new(Cuda::open(ordinal, exact)?);
            register(Gpu::new(cuda.clone()));
            open.push((ordinal, cuda.clone()));
            cuda
        }
    };
    let (major, minor) = cuda.compute_capability();
    let settings = Settings {
        precision: precision.unwrap_or(match major {
            8.. => Precision::Bf16,
            _ => Precision::F32,
        }),
        deterministic,
    };
    cuda.set_settings(settings)?;
    let (free, total) = cuda.memory()?;
    let gib = |bytes: usize| bytes as f64 / f64::from(1 << 30);
    Ok(Opened {
        device: candle_core::Device::clone(super::gpu::Driver::device(&*cuda)),
        description: format!(
            "cuda:{ordinal}, {} (compute capability {major}.{minor}), {:.1} of {:.1} GiB free, {}",
            cuda.name(),
            gib(free),
            gib(total),
            settings.describe()
        ),
    })
}

#[cfg(not(feature = "cuda"))]
fn on_gpu(ordinal: usize, _: Option<Precision>, _: bool) -> Result<Opened> {
    bail!(
        "--device cuda:{ordinal}: this build computes on the processor only; build with --features cuda \
         (docs/CONTRIBUTING.md) or take --device cpu"
    )
}

/// The most that a device's networks and tensors took at a time since the last call, in bytes, and starts anew; `None` where
/// nothing counts it.
///
/// # Errors
/// If a GPU doesn't answer.
pub fn peak_memory(device: &Device) -> Result<Option<u64>> {
    #[cfg(feature = "cuda")]
    {
        let open = CUDA.read().unwrap_or_else(|poison| poison.into_inner());
        let mut gpus = open.iter().map(|(_, cuda)| cuda);
        if let Some(cuda) = gpus.find(|c| super::gpu::Driver::device(&***c).same_device(device)) {
            let peak = cuda.peak()?;
            cuda.forget_peak()?;
            return Ok(peak);
        }
    }
    let _ = device;
    Ok(None)
}

/// Carries batches to a device while it computes.
pub struct Feed {
    device: Device,
    #[cfg(feature = "cuda")]
    uploader: Option<Uploader>,
}

impl Feed {
    /// For a device that was opened.
    ///
    /// # Errors
    /// If a GPU gives no stream for copies.
    pub fn new(device: &Device) -> Result<Self> {
        #[cfg(feature = "cuda")]
        let uploader = {
            let open = CUDA.read().unwrap_or_else(|poison| poison.into_inner());
            let mut gpus = open.iter().map(|(_, cuda)| cuda);
            let own = gpus.find(|c| super::gpu::Driver::device(&***c).same_device(device));
            own.map(|cuda| Uploader::new(cuda.clone())).transpose()?
        };
        Ok(Feed {
            device: device.clone(),
            #[cfg(feature = "cuda")]
            uploader,
        })
    }

    /// A tensor of this shape on the device; a GPU need not have it yet when this returns.
    ///
    /// # Errors
    /// If the lengths differ or the device has no memory left.
    pub fn tensor(&mut self, values: Vec<f32>, shape: &[usize]) -> Result<Tensor> {
        match self.device {
            // Nothing is copied.
            Device::Cpu => Tensor::from_vec(values, shape, &self.device),
            _ => self.copy(&values, shape),
        }
    }

    /// As [`Feed::tensor`], from values that are still needed.
    ///
    /// # Errors
    /// As there.
    pub fn copy(&mut self, values: &[f32], shape: &[usize]) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let Some(uploader) = &mut self.uploader {
            return uploader.upload(values, shape);
        }
        Tensor::from_slice(values, shape, &self.device)
    }
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
