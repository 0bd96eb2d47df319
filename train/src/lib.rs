//! Unsupervised person re-identification: training.
//!
//! * [`nn`]: walks a [`reid_models::Graph`] on candle, with operators whose backward passes are ours.
//! * [`data`]: data sets, samplers, augmentation, the parallel loader.
//! * [`losses`], [`memory`], [`clustering`], [`eval`]: leaves; none imports a sibling.
//! * [`methods`]: one file per method of a paper, built from those and [`adversary`]; [`trainer`] owns the loop around it,
//!   [`optimisers`] what it steps with.
//! * [`capacity`]: memory that is needed against memory that there is; anyone may ask.
//! * [`test_set`]: the test half of a data set, evaluated by its own protocol or another.
//! * [`report`], [`tensorboard`]: what a run looks like.
//! * [`profile`]: where the time of a training step goes.
//! * [`fit`], [`extract`], [`run`], [`config`], [`thresholds`]: from a command line to a finished run folder.

pub mod adversary;
pub mod capacity;
pub mod clustering;
pub mod config;
pub mod data;
pub mod eval;
pub mod extract;
pub mod fit;
pub mod losses;
pub mod memory;
pub mod methods;
pub mod nn;
pub mod optimisers;
pub mod profile;
pub mod report;
pub mod rerank;
pub mod run;
mod simd;
mod start;
pub mod tensorboard;
pub mod test_set;
pub mod thresholds;
pub mod trainer;
