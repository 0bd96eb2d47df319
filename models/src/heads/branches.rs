//! ABMT's asymmetric branches (Chen et al. 2021; thesis, chapter 4, figure 4.2): the last stage twice, one copy averaged, the
//! other one block deeper and reduced to its maxima, so that the two can teach each other without becoming the same.

use super::bnneck;
use crate::Graph;
use crate::backbones::BackboneConfig;
use crate::backbones::resnet::Trunk;
use crate::graph::FEATURE_MAP;
use crate::ops::Op;

/// Which branches there are. The thesis's network is the default; the others are its ablation (table 4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Branches {
    /// Whether branch b has a block more than branch a.
    pub deeper: bool,
    /// Whether branch b takes maxima where branch a takes means.
    pub maxima: bool,
}

impl Default for Branches {
    fn default() -> Self {
        Branches {
            deeper: true,
            maxima: true,
        }
    }
}

/// Role of a branch's pooled feature: `pooled_a`, `pooled_b`.
pub const POOLED: [&str; 2] = ["pooled_a", "pooled_b"];
/// Role of a branch's neck output: `neck_a`, `neck_b`.
pub const NECKS: [&str; 2] = ["neck_a", "neck_b"];

/// Builds the network with outputs [`POOLED`], [`NECKS`], `feature_map` (branch a's) and `embedding`, the unit of both necks
/// one after the other. Layers of branch b have `branch_b.` before torchvision's names.
pub(crate) fn build(config: &BackboneConfig, branches: Branches) -> Graph {
    let mut trunk = Trunk::stem(config);
    (0..3).for_each(|stage| trunk.stage(stage));
    let fork = trunk.fork();
    trunk.stage(3);
    let (map_a, channels) = trunk.fork();
    trunk.branch(&fork, "branch_b.");
    trunk.stage(3);
    if branches.deeper {
        trunk.extra_block("extra");
    }
    let (mut graph, map_b, _) = trunk.into_parts();
    graph.name = format!("{}_branches", graph.name);
    graph.outputs.insert(FEATURE_MAP.into(), map_a.clone());
    let pool_b = match branches.maxima {
        true => Op::GlobalMaxPool,
        false => Op::GlobalAvgPool,
    };
    let necks = [(map_a, Op::GlobalAvgPool), (map_b, pool_b)];
    let necks: Vec<String> = necks
        .into_iter()
        .enumerate()
        .map(|(i, (map, pool))| {
            let pooled = graph.push(POOLED[i], pool, &[&map], &[]);
            graph.outputs.insert(POOLED[i].into(), pooled.clone());
            let neck = bnneck::neck(&mut graph, NECKS[i], &pooled, channels);
            graph.outputs.insert(NECKS[i].into(), neck.clone());
            neck
        })
        .collect();
    let both = [necks[0].as_str(), necks[1].as_str()];
    let both = graph.push("necks", Op::Concat { axis: 0 }, &both, &[]);
    bnneck::embed(&mut graph, &both);
    graph
}
