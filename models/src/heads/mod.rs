//! What follows a backbone: pooling and neck.

pub mod bnneck;
pub mod pooling;
