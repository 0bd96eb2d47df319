//! The goldens of `golden_nn` again, on an emulated GPU.

#[path = "golden_nn.rs"]
mod golden_nn;
