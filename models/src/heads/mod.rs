//! What follows a backbone: pooling and neck, or what a method has in their place.

pub mod bnneck;
pub mod branches;
pub mod partitions;
pub mod parts;
pub mod pooling;

use crate::Graph;
use crate::weights::{Weights, select};

/// Weights for a network some of whose layers are there twice: a copy, `PREFIX.layer4.0.conv1.weight`, that the file doesn't
/// have gets the values of the original, `layer4.0.conv1.weight`. Names are looked up as [`select`] does.
pub fn spread(graph: &Graph, weights: &Weights) -> Weights {
    let (found, report) = select(graph, weights);
    let original = |name: &str| -> Option<String> {
        let (_, rest) = name.split_once('.')?;
        rest.starts_with("layer").then(|| rest.to_owned())
    };
    let copies: Vec<_> = graph
        .params
        .iter()
        .filter(|p| report.missing.contains(&p.name))
        .filter_map(|p| Some((p, original(&p.name)?)))
        .collect();
    if copies.is_empty() {
        return weights.clone();
    }
    let mut originals = graph.clone();
    originals.params = copies
        .iter()
        .map(|(p, name)| {
            let mut p = (*p).clone();
            p.name.clone_from(name);
            p
        })
        .collect();
    let (values, _) = select(&originals, weights);
    let mut all = found;
    for (p, name) in copies {
        if let Some(tensor) = values.tensors.get(&name) {
            all.tensors.insert(p.name.clone(), tensor.clone());
        }
    }
    // What no layer wanted stays, so that it is told.
    for (name, tensor) in &weights.tensors {
        if report.unused.contains(name) {
            all.tensors
                .entry(name.clone())
                .or_insert_with(|| tensor.clone());
        }
    }
    all
}
