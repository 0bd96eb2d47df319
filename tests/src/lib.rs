//! What the end-to-end tests, the demo and the benches share: running the project's own programs as a user would.

pub mod bench;
pub mod demo;
pub mod programs;
