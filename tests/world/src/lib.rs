//! A simulated multi-camera world of pedestrians with ground truth.
//!
//! It stands in for data that nobody can ship, so it is hard where reality is hard: most clothes are dark,
//! front and back differ, some people are near-twins, and every camera has its own place, light, colours,
//! resolution and carelessness. People are articulated solids drawn as generalised cylinders; nothing in a
//! picture is taken from footage of anybody.
//!
//! Everything follows from a seed, independently of the number of threads.

pub mod background;
pub mod blocks;
pub mod body;
pub mod camera;
pub mod colour;
pub mod crops;
pub mod domain;
pub mod encode;
pub mod garment;
pub mod histogram;
pub mod keypoints;
pub mod market;
mod material;
pub mod matlab;
pub mod output;
pub mod part;
pub mod pattern;
pub mod person;
pub mod pose;
pub mod prop;
pub mod render;
pub mod route;
pub mod seed;
pub mod sensor;
pub mod sheet;
pub mod shot;
pub mod stage;
pub mod surface;
pub mod tracklets;
pub mod videos;
pub mod view;
mod worn;

pub use camera::Camera;
pub use domain::Domain;
pub use output::{Usage, usage};
pub use person::Person;
pub use sheet::probe_crops;
pub use shot::{Crop, Framing, Shot, Track, render_crop};

/// Version of the world. Pictures of one version and seed never change; a change that moves a pixel gets a
/// new version, its reason is written before its results, and every published row is measured again.
pub const WORLD_VERSION: u32 = 1;
