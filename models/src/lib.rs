//! What training, export and the edge agree on.
//!
//! * [`graph`]: a network is data. A backbone is a function that builds a [`Graph`]; the trainer walks it on
//!   candle, the exporter walks it into ONNX. Nobody writes an architecture twice.
//! * [`card`]: what a model file says about itself: input, output, thresholds, origin, fingerprint.
//! * [`preprocess`]: the only definition of "picture to tensor", for training and for the edge.
//! * [`distance`]: how embeddings are compared.
//! * [`runtime`]: the only place that opens an ONNX file.
//! * [`probe`]: 16 synthetic crops and the embeddings a model must give for them.
//! * [`files`], [`pipe`]: files that are whole or not there; output whose reader has gone.
//! * [`weights`]: named tensors in safetensors files; [`naming`]: which of them is which parameter.
//!
//! This crate never links candle, and nothing in it depends on another crate of the workspace.

pub mod backbones;
pub mod card;
pub mod distance;
pub mod files;
pub mod graph;
pub mod heads;
pub mod naming;
pub mod ops;
pub mod picture;
pub mod pipe;
mod planes;
pub mod preprocess;
pub mod probe;
pub mod runtime;
pub mod shape;
pub mod temporal;
pub mod weights;

pub use card::ModelCard;
pub use graph::Graph;
