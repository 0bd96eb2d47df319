//! ABMT's asymmetric branches (Chen et al. 2021; thesis, chapter 4, figure 4.2): the last stage twice, one copy averaged, the
//! other one block deeper and reduced to its maxima, so that the two can teach each other without becoming the same.

use super::bnneck;
use crate::Graph;
use crate::backbones::BackboneConfig;
use crate::backbones::resnet::Trunk;
use crate::graph::{self, FEATURE_MAP};
use crate::ops::Op;

/// Which branches there are. The thesis's network is the default; the others are its ablation (table 4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Branches {
    /// Whether branch b has a block more than branch a.
    pub deeper: bool,
    /// Whether branch b takes maxima where branch a takes means.
    pub maxima: bool,
    /// Whether there is a branch c, two blocks deeper than branch a and averaged.
    pub third: bool,
}

impl Default for Branches {
    fn default() -> Self {
        Branches {
            deeper: true,
            maxima: true,
            third: false,
        }
    }
}

/// Role of a branch's pooled feature.
pub const POOLED: [&str; 3] = ["pooled_a", "pooled_b", "pooled_c"];
/// Role of a branch's neck output.
pub const NECKS: [&str; 3] = ["neck_a", "neck_b", "neck_c"];

/// Roles of the branches that a network has, pooled and neck; of one without branches its only ones.
pub fn roles(graph: &Graph) -> Vec<[&'static str; 2]> {
    let all = POOLED.into_iter().zip(NECKS);
    let there = all.filter(|(_, neck)| graph.output(neck).is_ok());
    let roles: Vec<_> = there.map(|(pooled, neck)| [pooled, neck]).collect();
    if roles.is_empty() {
        return vec![[graph::POOLED, graph::NECK]];
    }
    roles
}

/// Builds the network with outputs [`POOLED`], [`NECKS`], `feature_map` (branch a's) and `embedding`, the unit of all necks
/// one after the other. Layers of branch b have `branch_b.` before torchvision's names, those of c `branch_c.`.
pub(crate) fn build(config: &BackboneConfig, branches: Branches) -> Graph {
    let mut trunk = Trunk::stem(config);
    (0..3).for_each(|stage| trunk.stage(stage));
    let fork = trunk.fork();
    trunk.stage(3);
    let (map_a, channels) = trunk.fork();
    let copy = |trunk: &mut Trunk, prefix: &str, extra: &[&str]| {
        trunk.branch(&fork, prefix);
        trunk.stage(3);
        extra.iter().for_each(|name| trunk.extra_block(name));
        trunk.fork().0
    };
    let extra: &[&str] = if branches.deeper { &["extra"] } else { &[] };
    let pool_b = match branches.maxima {
        true => Op::GlobalMaxPool,
        false => Op::GlobalAvgPool,
    };
    let map_b = copy(&mut trunk, "branch_b.", extra);
    let mut maps = vec![(map_a.clone(), Op::GlobalAvgPool), (map_b, pool_b)];
    if branches.third {
        let map_c = copy(&mut trunk, "branch_c.", &["extra", "extra2"]);
        maps.push((map_c, Op::GlobalAvgPool));
    }
    let (mut graph, ..) = trunk.into_parts();
    graph.name = format!("{}_branches", graph.name);
    graph.outputs.insert(FEATURE_MAP.into(), map_a);
    let necks = maps.into_iter().enumerate().map(|(i, (map, pool))| {
        let pooled = graph.push(POOLED[i], pool, &[&map], &[]);
        graph.outputs.insert(POOLED[i].into(), pooled.clone());
        let neck = bnneck::neck(&mut graph, NECKS[i], &pooled, channels);
        graph.outputs.insert(NECKS[i].into(), neck.clone());
        neck
    });
    let necks: Vec<String> = necks.collect();
    let mut all = necks[0].clone();
    for (i, neck) in necks.iter().enumerate().skip(1) {
        let name = if i == 1 { "necks" } else { "necks_c" };
        all = graph.push(name, Op::Concat { axis: 0 }, &[&all, neck], &[]);
    }
    bnneck::embed(&mut graph, &all);
    graph
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::backbones::Backbone;

    #[test]
    fn branches_differ_in_depth_and_all_are_in_the_embedding() {
        let config = BackboneConfig {
            backbone: Backbone::Resnet18,
            width: 4,
            height: 64,
            input_width: 32,
            ..Default::default()
        };
        let of = |third| {
            let branches = Branches {
                third,
                ..Default::default()
            };
            let graph = config.build_branches(branches).unwrap();
            let convolutions = |prefix: &str| {
                let nodes = graph.nodes.iter().filter(|n| n.name.starts_with(prefix));
                nodes.filter(|n| matches!(n.op, Op::Conv2d { .. })).count()
            };
            let depths = ["layer4.", "branch_b.", "branch_c."].map(convolutions);
            (
                roles(&graph).len(),
                graph.width("embedding").unwrap(),
                depths,
            )
        };
        // Each stage has a convolution in its shortcut.
        assert_eq!(of(false), (2, 2 * 32, [5, 7, 0]));
        assert_eq!(of(true), (3, 3 * 32, [5, 7, 9]));
    }
}
