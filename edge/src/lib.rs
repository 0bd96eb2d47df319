//! Live person re-identification on camera streams.
//!
//! `ingest` -> `detect` -> `track` -> `embed` -> `associate` -> `gallery` -> `serve`. A stage imports [`types`], never
//! another stage; [`engine`] and [`pipeline`] wire them. Bounded queues everywhere: a slow stage lowers the analysed frame
//! rate.

pub mod associate;
pub mod bench;
mod best_crops;
pub mod check;
pub mod clock;
pub mod config;
pub mod detect;
pub mod embed;
pub mod engine;
pub mod events;
pub mod gallery;
pub mod harvest;
pub mod health;
pub mod ingest;
pub mod latency;
pub mod memory;
pub mod metrics;
pub mod pipeline;
pub mod replay;
pub mod run;
pub mod score;
pub mod search;
pub mod serve;
pub mod service;
pub mod track;
pub mod types;
pub mod warm;
