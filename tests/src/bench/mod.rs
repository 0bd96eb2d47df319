//! `./reid bench`: the tables of docs/BENCHMARKS.md.
//!
//! [`worlds`] runs the programs a user calls on simulated worlds and prints how accurate they are. [`engine`] measures the
//! training engine, clustering and evaluation beside Python [`peers`] in one run; [`work`] is what its processes do. [`edge`]
//! does the same for the edge runtime.

mod candle;
pub mod edge;
pub mod engine;
pub mod peers;
pub mod work;
pub mod worlds;
