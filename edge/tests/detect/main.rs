//! Detectors against references made elsewhere, and end to end with files of a few operators.
#![allow(clippy::unwrap_used)]

mod golden;
mod heads;
mod media;
mod onnx;
mod refused;
mod tiny_head;
