//! Operators for GPUs, above a [`Driver`].

pub mod driver;

pub use driver::{
    Arg, ConvAddresses, ConvPass, Driver, Launch, Matrix, Precision, Product, Settings,
};
