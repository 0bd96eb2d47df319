//! Tests of reid-models against references and files made by others, in one binary.
#![allow(clippy::unwrap_used)]

mod foreign;
mod preprocess;
mod runtime;
mod tiny_onnx;
mod weights;
mod yuv;
