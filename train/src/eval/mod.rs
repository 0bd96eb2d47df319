//! How good a model is, and what that looks like.
//!
//! [`rank`] is the standard protocol (CMC, mAP, mINP), counted rather than sorted. [`pool`] makes one feature of several
//! (multi-query, tracklets; [`temporal`]: in their order), [`single_shot`] draws one gallery image a person (CUHK03, CUHK01), [`rerank`] mixes in k-reciprocal
//! Jaccard distances, [`open_set`] asks whether two images are one person at all; [`protocol`] chooses among them. [`command`] is
//! `reid-train rank` for features from anywhere, [`npz`] its files; [`ranked`] is a contact sheet of ranked lists and [`plots`]
//! the curves of a run.

pub mod command;
mod count;
mod error;
mod labels;
pub mod npz;
pub mod open_set;
pub mod plots;
pub mod pool;
pub mod protocol;
pub mod rank;
pub mod ranked;
pub mod rerank;
mod result;
mod similarity;
pub mod single_shot;
pub mod temporal;

pub use rank::{Embeddings, EvalError, EvalResult, Labels, Metric, Ranking, evaluate};
