//! Live person re-identification on camera streams.
//!
//! `ingest` -> `detect` -> `track` -> `embed` -> `associate` -> `gallery` -> `serve`. A stage imports [`types`], never
//! another stage; [`pipeline`] wires them. Bounded queues everywhere: a slow stage lowers the analysed frame rate.

pub mod associate;
pub mod check;
pub mod config;
pub mod detect;
pub mod embed;
pub mod events;
pub mod gallery;
pub mod harvest;
pub mod ingest;
pub mod perception;
pub mod pipeline;
pub mod replay;
pub mod run;
pub mod score;
pub mod search;
pub mod serve;
pub mod service;
pub mod track;
pub mod types;
