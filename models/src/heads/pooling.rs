//! Global pooling of a feature map to one vector.

use serde::{Deserialize, Serialize};

use crate::graph::{Graph, Init, POOLED, ParamKind};
use crate::ops::Op;

/// Which pooling follows the last stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// Global average (GAP).
    #[default]
    Gap,
    /// Global maximum (GMP).
    Gmp,
    /// Generalised mean (GeM) with a learned exponent that starts at 3.
    Gem,
}

/// Appends the pooling after tensor `map` (C, H, W); the result is output [`POOLED`] (C).
pub fn append(graph: &mut Graph, map: &str, pooling: Pooling) -> String {
    let pooled = match pooling {
        Pooling::Gap => graph.push("pool", Op::GlobalAvgPool, &[map], &[]),
        Pooling::Gmp => graph.push("pool", Op::GlobalMaxPool, &[map], &[]),
        Pooling::Gem => {
            let p = graph.param(
                "pool.p",
                &[1],
                ParamKind::Trainable,
                Init::Constant { value: 3.0 },
            );
            graph.push("pool", Op::GemPool { eps: 1e-6 }, &[map], &[&p])
        }
    };
    graph.outputs.insert(POOLED.into(), pooled.clone());
    pooled
}
