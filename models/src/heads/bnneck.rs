//! BN-neck (Luo et al. 2019): a batch norm between the pooled feature and everything that compares directions.

use crate::graph::{EMBEDDING, Graph, Init, NECK, ParamKind};
use crate::ops::Op;

/// Lower bound of the norm in the embedding's L2 normalisation, as PyTorch's `normalize`.
pub const L2_EPS: f64 = 1e-12;

/// Appends the neck after tensor `pooled` (D): outputs [`NECK`] (raw BN output) and [`EMBEDDING`] (L2-normalised).
/// The bias is frozen at 0, so that the hypersphere stays centred.
pub fn append(graph: &mut Graph, pooled: &str, width: usize) {
    let neck = neck(graph, "neck", pooled, width);
    embed(graph, &neck);
    graph.outputs.insert(NECK.into(), neck);
}

/// Appends a batch norm called `name` with a bias frozen at 0; returns its tensor.
pub(super) fn neck(graph: &mut Graph, name: &str, input: &str, width: usize) -> String {
    let parts = [
        ("weight", ParamKind::Trainable, 1.0),
        ("bias", ParamKind::Frozen, 0.0),
        ("running_mean", ParamKind::Buffer, 0.0),
        ("running_var", ParamKind::Buffer, 1.0),
    ];
    let params = parts.map(|(part, kind, value)| {
        let name = format!("{name}.{part}");
        graph.param(name, &[width], kind, Init::Constant { value })
    });
    let norm = Op::BatchNorm {
        eps: 1e-5,
        momentum: 0.1,
    };
    let names: Vec<&str> = params.iter().map(String::as_str).collect();
    graph.push(name, norm, &[input], &names)
}

/// L2-normalises tensor `input` and makes it the [`EMBEDDING`].
pub(super) fn embed(graph: &mut Graph, input: &str) {
    let embedding = graph.push("embedding", Op::L2Normalize { eps: L2_EPS }, &[input], &[]);
    graph.outputs.insert(EMBEDDING.into(), embedding);
}
