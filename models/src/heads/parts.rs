//! SSG's body parts (Fu et al. 2019): the whole map, its upper and its lower half, each averaged, without necks.

use super::bnneck::{self, L2_EPS};
use crate::Graph;
use crate::backbones::BackboneConfig;
use crate::backbones::resnet::{Trunk, batch_norm};
use crate::graph::{FEATURE_MAP, Init, POOLED, ParamKind};
use crate::ops::Op;

/// Roles of the parts' features.
pub const PARTS: [&str; 3] = ["full", "upper", "lower"];
/// Role of what is learnt on top of the whole: `ReLU(BN(W full))`.
pub const PROJECTED: &str = "projected";

/// Builds the network with outputs [`PARTS`], [`PROJECTED`], `pooled` (the whole), `feature_map` and `embedding`: the unit of
/// the three unit parts one after the other.
pub(crate) fn build(config: &BackboneConfig) -> Graph {
    let mut trunk = Trunk::stem(config);
    (0..4).for_each(|stage| trunk.stage(stage));
    let (mut graph, map, channels) = trunk.into_parts();
    graph.name = format!("{}_parts", graph.name);
    graph.outputs.insert(FEATURE_MAP.into(), map.clone());
    append(&mut graph, &map, channels);
    graph
}

/// Appends the parts of tensor `map` (C, H, W). An odd height gives the lower half the row more.
pub fn append(graph: &mut Graph, map: &str, channels: usize) {
    let shapes = graph.shapes().unwrap_or_default();
    let height = shapes.get(map).map_or(2, |shape| shape[1]);
    let half = height / 2;
    let full = graph.push(PARTS[0], Op::GlobalAvgPool, &[map], &[]);
    let mut units = Vec::new();
    for (part, start, len) in [(PARTS[1], 0, half), (PARTS[2], half, height - half)] {
        let rows = Op::Narrow {
            axis: 1,
            start,
            len,
        };
        let rows = graph.push(format!("{part}.rows"), rows, &[map], &[]);
        let pooled = graph.push(part, Op::GlobalAvgPool, &[&rows], &[]);
        graph.outputs.insert(part.into(), pooled);
    }
    for part in PARTS {
        let unit = Op::L2Normalize { eps: L2_EPS };
        units.push(graph.push(format!("{part}.unit"), unit, &[part], &[]));
    }
    graph.outputs.insert(PARTS[0].into(), full.clone());
    graph.outputs.insert(POOLED.into(), full.clone());
    let weight = graph.param(
        "embed.linear.weight",
        &[channels, channels],
        ParamKind::Trainable,
        Init::KaimingNormalFanOut,
    );
    let linear = Op::Linear {
        out_features: channels,
        bias: false,
    };
    let projected = graph.push("embed.linear", linear, &[&full], &[&weight]);
    let projected = batch_norm(graph, &projected, "embed.bn", channels);
    let projected = graph.push("embed.relu", Op::Relu, &[&projected], &[]);
    graph.outputs.insert(PROJECTED.into(), projected);
    let two = [units[0].as_str(), units[1].as_str()];
    let two = graph.push("full_upper", Op::Concat { axis: 0 }, &two, &[]);
    let three = [two.as_str(), units[2].as_str()];
    let three = graph.push("parts", Op::Concat { axis: 0 }, &three, &[]);
    bnneck::embed(graph, &three);
}
