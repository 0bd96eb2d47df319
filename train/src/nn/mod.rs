//! Walks a [`reid_models::Graph`] on candle tensors, with forward and backward passes of our own.
//!
//! * [`Net`] runs a whole graph as *one* node of candle's autograd: inside, a tape of fused steps (convolution, batch
//!   norm + shortcut + ReLU, pooling, ...) keeps what its backward pass needs and frees it as soon as it was used.
//!   candle's own `backward` would write zeros and add to them for every intermediate gradient, and recurse once per
//!   node.
//! * [`backward`] takes the place of `loss.backward()`: it returns the gradients of the parameters inside the nets, too.
//! * [`kernels::Kernels`] is what a device has to provide; [`cpu`] is the implementation for processors, [`gpu`] that for
//!   GPUs; [`device`] opens one.
//! * [`ops`]: single differentiable operators for heads and losses.
//! * [`penalty`]: a critic's gradient penalty, with its second derivative.
//! * [`profile`]: where the time goes, operator by operator.
//! * [`optim`], [`schedule`]: optimisers whose state can be saved, learning rates as pure functions of the step.
//!
//! Tensors outside are (N, C, H, W); inside a net they are (N, H, W, C), where pixels of all images of a batch are rows
//! of one matrix: one matrix product serves many small maps, and the channel is what vector units run along.

pub mod autograd;
pub mod checkpoint;
pub mod cpu;
pub mod device;
mod domains;
pub mod executor;
pub mod gpu;
pub mod init;
pub mod kernels;
pub mod ops;
pub mod optim;
pub mod penalty;
mod plan;
pub mod profile;
pub mod schedule;
mod steps;
mod tape;
mod tokens;

pub use autograd::backward;
pub use executor::{Mode, Net, RunningFrom};

use reid_models::graph::GraphError;

/// What can go wrong while building or running a network.
#[derive(Debug, thiserror::Error)]
pub enum NnError {
    /// From candle or from a kernel.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// The graph does not fit together.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The images do not have the shape the graph declares.
    #[error("network {graph} takes images of shape (N, {want:?}) as f32, got {got:?} {dtype:?}")]
    Input {
        /// Graph.
        graph: String,
        /// Declared shape per sample.
        want: [usize; 3],
        /// Given shape.
        got: Vec<usize>,
        /// Given element type.
        dtype: candle_core::DType,
    },
    /// Batch statistics of a single value do not exist.
    #[error(
        "network {graph}: batch norm `{node}` needs more than one value per channel in training, got a group of {values}: use a larger batch or fewer groups"
    )]
    SingleValue {
        /// Graph.
        graph: String,
        /// Node.
        node: String,
        /// Values per channel in a group.
        values: usize,
    },
    /// The batch cannot be split as asked.
    #[error(
        "network {graph}: a batch of {batch} cannot be split into {groups} equal groups for batch norm"
    )]
    Groups {
        /// Graph.
        graph: String,
        /// Images.
        batch: usize,
        /// Groups.
        groups: usize,
    },
    /// Two networks that should have the same parameters do not.
    #[error(
        "parameter `{name}` of network {graph} has no counterpart of shape {shape:?} in the other network"
    )]
    Counterpart {
        /// Graph.
        graph: String,
        /// Parameter.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// A gradient is NaN or infinite.
    #[error(
        "the gradient of `{name}` is not finite: lower the learning rate or look for a broken loss or input (nothing was updated)"
    )]
    GradientNotFinite {
        /// Parameter.
        name: String,
    },
    /// A loss is NaN or infinite.
    #[error("the loss `{name}` is {value}: lower the learning rate or look for a broken input")]
    LossNotFinite {
        /// Which loss.
        name: String,
        /// Its value.
        value: f32,
    },
    /// A domain that was never split off.
    #[error(
        "network {graph} has {domains} domain(s), numbered from 0: there is no domain {domain}; call split_domains first"
    )]
    Domain {
        /// Graph.
        graph: String,
        /// Asked for.
        domain: usize,
        /// There.
        domains: usize,
    },
    /// Saved state that does not belong to this optimiser.
    #[error("optimiser state: {0}")]
    State(String),
}

/// Result of this module.
pub type Result<T> = std::result::Result<T, NnError>;

/// The value of a scalar loss, or an error that names it if it is NaN or infinite.
///
/// # Errors
/// [`NnError::LossNotFinite`], or candle's error if `loss` is not a scalar.
pub fn finite_loss(name: &str, loss: &candle_core::Tensor) -> Result<f32> {
    let value = loss.to_dtype(candle_core::DType::F32)?.to_scalar::<f32>()?;
    if value.is_finite() {
        Ok(value)
    } else {
        Err(NnError::LossNotFinite {
            name: name.into(),
            value,
        })
    }
}

/// Tells the C allocator to keep freed memory instead of handing it back to the system.
///
/// A training step frees and takes the same few hundred megabytes again and again; with glibc's defaults every large
/// block is a fresh mapping whose pages fault in one by one (13 % of a step, measured). Call once at the start of a
/// program. Does nothing on other C libraries.
pub fn tune_allocator() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `mallopt` only sets parameters of the allocator and may be called at any time.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
    }
}

/// Runs `f` on a thread with a stack of 256 MiB and returns what it returns; a panic is passed on.
///
/// candle's `backward` recurses once per node of its graph. A [`Net`] is one node, so ordinary losses never need this;
/// long chains of candle operators do.
pub fn with_large_stack<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("large-stack".into())
            .stack_size(256 << 20)
            .spawn_scoped(scope, f)
            .expect("the system can start one more thread");
        match thread.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
