//! Operators for GPUs, above a [`Driver`].

#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(feature = "cudnn")]
mod cudnn;
pub mod driver;
#[cfg(feature = "cuda")]
pub mod upload;

#[cfg(feature = "cuda")]
pub use cuda::Cuda;
pub use driver::{
    Arg, ConvAddresses, ConvPass, Driver, Launch, Matrix, Precision, Product, Settings,
};
#[cfg(feature = "cuda")]
pub use upload::Uploader;
