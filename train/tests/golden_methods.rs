//! Whole training steps of every method against PyTorch: loss, its terms, every gradient, every parameter, running statistic,
//! teacher and memory after the step.
//!
//! `golden_methods/*.safetensors` were made by the scripts of the same name beside them, which were written from the texts
//! apart from this crate; `golden_methods/CHOICES.md` says what they took where a text leaves it open.
#![allow(clippy::unwrap_used)]

#[path = "golden_methods/abmt.rs"]
mod abmt;
#[path = "golden_methods/canu.rs"]
mod canu;
#[path = "golden_methods/cluster_contrast.rs"]
mod cluster_contrast;
#[path = "golden_methods/diagnostics.rs"]
mod diagnostics;
#[path = "golden_methods/harness.rs"]
mod harness;
#[path = "golden_methods/ice.rs"]
mod ice;
#[path = "golden_methods/mmt.rs"]
mod mmt;
#[path = "golden_methods/scr.rs"]
mod scr;
#[path = "golden_methods/spcl.rs"]
mod spcl;
#[path = "golden_methods/ssg.rs"]
mod ssg;
#[path = "golden_methods/supervised.rs"]
mod supervised;
#[path = "golden_methods/temporal.rs"]
mod temporal;
#[path = "golden_methods/triplet.rs"]
mod triplet;
