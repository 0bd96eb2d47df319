//! Losses, one file each: candle tensors in, a scalar (the batch mean) out, safe for any finite input.

pub mod centre;
pub mod cross_camera;
pub mod cross_entropy;
pub mod hard_instance;
pub mod memory_nce;
pub mod proxy_nce;
pub mod soft_identity;
pub mod soft_instance;
pub mod triplet;

pub use centre::centre;
pub use cross_camera::{CrossForm, Proxies, cross_camera};
pub use cross_entropy::cross_entropy;
pub use hard_instance::{Negatives, hard_instance};
pub use memory_nce::memory_nce;
pub use proxy_nce::proxy_nce;
pub use soft_identity::soft_identity;
pub use soft_instance::{KlDirection, similarity_gap, soft_instance};
pub use triplet::{TripletMargin, semi_hard_triplet, soft_triplet, triplet};

/// A loss whose inputs do not fit together.
#[derive(Debug, thiserror::Error)]
pub enum LossError {
    /// Widths, batch sizes or ranks differ.
    #[error("{loss}: {what}")]
    Shape {
        /// Which loss.
        loss: &'static str,
        /// What does not fit.
        what: String,
    },
    /// A label outside the classes.
    #[error("{loss}: label {label} of sample {sample} is not below {classes}")]
    Label {
        /// Which loss.
        loss: &'static str,
        /// The label.
        label: u32,
        /// Its sample.
        sample: usize,
        /// Number of classes.
        classes: usize,
    },
    /// A number outside its range.
    #[error("{loss}: {name} must be {range}, got {value}")]
    Range {
        /// Which loss.
        loss: &'static str,
        /// Which number.
        name: &'static str,
        /// Its range.
        range: &'static str,
        /// Its value.
        value: f64,
    },
    /// From candle.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// Result of a loss.
pub type Result<T> = std::result::Result<T, LossError>;

fn positive(loss: &'static str, name: &'static str, value: f64) -> Result<f64> {
    if value > 0.0 && value.is_finite() {
        Ok(value)
    } else {
        Err(LossError::Range {
            loss,
            name,
            range: "positive and finite",
            value,
        })
    }
}

/// Two dimensions of a tensor whose first is the batch, not empty.
fn matrix(loss: &'static str, name: &str, t: &candle_core::Tensor) -> Result<(usize, usize)> {
    match t.dims() {
        [n, d] if *n > 0 && *d > 0 => Ok((*n, *d)),
        other => Err(LossError::Shape {
            loss,
            what: format!("`{name}` has shape {other:?}, wants (N, D), neither 0"),
        }),
    }
}

fn same(loss: &'static str, what: &str, a: usize, b: usize) -> Result<()> {
    if a == b {
        return Ok(());
    }
    Err(LossError::Shape {
        loss,
        what: format!("{what} differ: {a} and {b}"),
    })
}
