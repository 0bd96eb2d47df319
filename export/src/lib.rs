//! Trained networks as verified ONNX files.
//!
//! * [`run`]: what a training run left behind: graph, weights, card, probe.
//! * [`fold`]: the network as it is needed for inference: batch norms folded, unused heads gone.
//! * [`onnx`]: that network as an ONNX model with its card and probe inside.
//! * [`write`]: from a run folder to a file that is only kept if it gives the trainer's embeddings.
//! * [`verify`]: the same comparison for a file that exists.
//! * [`inspect`]: what a file says about itself.
//! * [`adopt`]: a card for a file made by others.

pub mod adopt;
mod error;
pub mod fold;
pub mod inspect;
pub mod onnx;
pub mod run;
pub mod verify;
pub mod write;

pub use error::ExportError;
