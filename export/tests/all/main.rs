//! Tests of reid-export: against PyTorch, in both engines, through the command line, and with everything broken that
//! can be broken.
#![allow(clippy::unwrap_used)]

mod adopt;
mod adopt_detect;
mod cli;
mod faults;
mod folded_bits;
mod networks;
mod reference;
mod run_folder;
