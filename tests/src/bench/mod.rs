//! `./reid bench`: the tables of docs/BENCHMARKS.md.
//!
//! [`methods`] trains every method on simulated worlds and says whether what the texts claim holds; [`worlds`] runs the edge on
//! them. [`engine`] measures the
//! training engine, clustering and evaluation beside Python [`peers`] in one run; [`work`] is what its processes do. [`edge`]
//! does the same for the edge runtime.

mod candle;
pub mod edge;
pub mod engine;
pub mod methods;
pub mod peers;
pub mod work;
pub mod worlds;
