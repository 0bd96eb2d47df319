//! BN-neck (Luo et al. 2019): a batch norm between the pooled feature and everything that compares directions.

use crate::graph::{EMBEDDING, Graph, Init, NECK, ParamKind};
use crate::ops::Op;

/// Lower bound of the norm in the embedding's L2 normalisation, as PyTorch's `normalize`.
pub const L2_EPS: f64 = 1e-12;

/// Appends the neck after tensor `pooled` (D): outputs [`NECK`] (raw BN output) and [`EMBEDDING`] (L2-normalised).
/// The bias is frozen at 0, so that the hypersphere stays centred.
pub fn append(graph: &mut Graph, pooled: &str, width: usize) {
    let params = [
        graph.param(
            "neck.weight",
            &[width],
            ParamKind::Trainable,
            Init::Constant { value: 1.0 },
        ),
        graph.param(
            "neck.bias",
            &[width],
            ParamKind::Frozen,
            Init::Constant { value: 0.0 },
        ),
        graph.param(
            "neck.running_mean",
            &[width],
            ParamKind::Buffer,
            Init::Constant { value: 0.0 },
        ),
        graph.param(
            "neck.running_var",
            &[width],
            ParamKind::Buffer,
            Init::Constant { value: 1.0 },
        ),
    ];
    let names: Vec<&str> = params.iter().map(String::as_str).collect();
    let neck = graph.push(
        "neck",
        Op::BatchNorm {
            eps: 1e-5,
            momentum: 0.1,
        },
        &[pooled],
        &names,
    );
    let embedding = graph.push("embedding", Op::L2Normalize { eps: L2_EPS }, &[&neck], &[]);
    graph.outputs.insert(NECK.into(), neck);
    graph.outputs.insert(EMBEDDING.into(), embedding);
}
