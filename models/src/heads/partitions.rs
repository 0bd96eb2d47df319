//! SCR's partitions (Chen et al., WACV 2020; thesis, chapter 3, figure 3.3): the last layers once for every branch; each branch
//! gives its global maximum and the maxima of horizontal stripes and of groups of channels, all reduced to one width.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::bnneck;
use crate::Graph;
use crate::backbones::BackboneConfig;
use crate::backbones::resnet::{Trunk, batch_norm};
use crate::graph::{FEATURE_MAP, Init, POOLED, ParamKind};
use crate::ops::Op;

/// Width of a reduced vector in the thesis (3.3.1).
pub const WIDTH: usize = 256;

/// How a branch's map is split, written as in the thesis: `1` (not at all), `s2` (two stripes), `c3` (three groups of channels),
/// `s2c2` (both).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Partition {
    /// Horizontal stripes; 0 for none.
    pub stripes: usize,
    /// Groups of channels; 0 for none.
    pub groups: usize,
}

/// The thesis's three branches.
pub const PYRAMID: [Partition; 3] = [
    Partition {
        stripes: 0,
        groups: 0,
    },
    Partition {
        stripes: 2,
        groups: 2,
    },
    Partition {
        stripes: 3,
        groups: 3,
    },
];

/// Most parts of a kind.
const MOST: usize = 8;

impl Partition {
    /// Vectors of a branch: the global one, the stripes, the groups.
    pub fn vectors(self) -> usize {
        1 + self.stripes + self.groups
    }
}

impl FromStr for Partition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "`{text}` is no partition: write 1, or s and a number of stripes, or c and a number of groups of channels, or \
                 both (s2c2); numbers from 2 to {MOST}"
            )
        };
        if text == "1" {
            return Ok(PYRAMID[0]);
        }
        let count = |digits: &str| -> Result<usize, String> {
            let found = digits.parse().ok();
            found.filter(|n| (2..=MOST).contains(n)).ok_or_else(bad)
        };
        let (stripes, groups) = match text.split_once('c') {
            Some((stripes, groups)) => (stripes, Some(groups)),
            None => (text, None),
        };
        let stripes = match stripes.strip_prefix('s') {
            Some(digits) => count(digits)?,
            None if stripes.is_empty() && groups.is_some() => 0,
            None => return Err(bad()),
        };
        Ok(Partition {
            stripes,
            groups: groups.map_or(Ok(0), count)?,
        })
    }
}

impl TryFrom<String> for Partition {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Partition> for String {
    fn from(p: Partition) -> String {
        let part = |letter: &str, n: usize| match n {
            0 => String::new(),
            n => format!("{letter}{n}"),
        };
        let text = part("s", p.stripes) + &part("c", p.groups);
        if text.is_empty() { "1".into() } else { text }
    }
}

/// Role of reduced vector `i`.
pub fn vector(i: usize) -> String {
    format!("vector_{i}")
}

/// Which of the vectors are the branches' global ones.
pub fn globals(partitions: &[Partition]) -> Vec<usize> {
    partitions
        .iter()
        .scan(0, |next, p| {
            let own = *next;
            *next += p.vectors();
            Some(own)
        })
        .collect()
}

/// Builds the network: branches begin after the first block of the third stage. Outputs: every [`vector`], branch after branch,
/// each the global one, the stripes from above, the groups of channels in order; `pooled` (the first global vector),
/// `feature_map` (the first branch's) and `embedding`, the unit of all vectors one after the other. Layers of branch i have
/// `p{i}.` before torchvision's names, from 1.
pub(crate) fn build(config: &BackboneConfig, partitions: &[Partition], width: usize) -> Graph {
    let mut trunk = Trunk::stem(config);
    trunk.stage(0);
    trunk.stage(1);
    trunk.block(2, 0);
    let fork = trunk.fork();
    let maps: Vec<(String, usize)> = (1..=partitions.len())
        .map(|branch| {
            trunk.branch(&fork, &format!("p{branch}."));
            (1..trunk.blocks(2)).for_each(|block| trunk.block(2, block));
            trunk.stage(3);
            trunk.fork()
        })
        .collect();
    let (mut graph, _, _) = trunk.into_parts();
    graph.name = format!("{}_partitions", graph.name);
    if let Some((map, _)) = maps.first() {
        graph.outputs.insert(FEATURE_MAP.into(), map.clone());
    }
    append(&mut graph, &maps, partitions, width);
    graph
}

/// Appends partitions, one of each map (C, H, W) given with its channels, and what reduces them to `width`.
pub fn append(graph: &mut Graph, maps: &[(String, usize)], partitions: &[Partition], width: usize) {
    let shapes = graph.shapes().unwrap_or_default();
    let mut vectors: Vec<String> = Vec::new();
    for (branch, ((map, channels), partition)) in maps.iter().zip(partitions).enumerate() {
        let name = |what: &str| format!("p{}.{what}", branch + 1);
        let global = graph.push(name("global"), Op::GlobalMaxPool, &[map], &[]);
        let mut parts = vec![(global.clone(), *channels)];
        let height = shapes.get(map).map_or(1, |shape| shape[1]);
        for (i, (start, len)) in split(height, partition.stripes).into_iter().enumerate() {
            let rows = Op::Narrow {
                axis: 1,
                start,
                len,
            };
            let rows = graph.push(name(&format!("stripe_{i}.rows")), rows, &[map], &[]);
            let pooled = name(&format!("stripe_{i}"));
            let pooled = graph.push(pooled, Op::GlobalMaxPool, &[&rows], &[]);
            parts.push((pooled, *channels));
        }
        for (i, (start, len)) in split(*channels, partition.groups).into_iter().enumerate() {
            let group = Op::Narrow {
                axis: 0,
                start,
                len,
            };
            let group = graph.push(name(&format!("group_{i}")), group, &[&global], &[]);
            parts.push((group, len));
        }
        for (part, from) in parts {
            let own = vectors.len();
            let weight = graph.param(
                format!("reduce.{own}.weight"),
                &[width, from],
                ParamKind::Trainable,
                Init::KaimingNormalFanOut,
            );
            let linear = Op::Linear {
                out_features: width,
                bias: false,
            };
            let reduced = format!("reduce.{own}");
            let reduced = graph.push(reduced, linear, &[&part], &[&weight]);
            let reduced = batch_norm(graph, &reduced, &format!("reduce.{own}.bn"), width);
            graph.outputs.insert(vector(own), reduced.clone());
            vectors.push(reduced);
        }
    }
    if let Some(first) = vectors.first().cloned() {
        graph.outputs.insert(POOLED.into(), first.clone());
        let all = vectors[1..]
            .iter()
            .enumerate()
            .fold(first, |all, (i, next)| {
                let name = format!("vectors_{}", i + 1);
                graph.push(name, Op::Concat { axis: 0 }, &[&all, next], &[])
            });
        bnneck::embed(graph, &all);
    }
}

/// `count` parts of `whole`, as equal as can be, the larger ones first: (start, length) each.
fn split(whole: usize, count: usize) -> Vec<(usize, usize)> {
    (0..count)
        .scan(0, |start, i| {
            let len = whole / count + usize::from(i < whole % count);
            let own = (*start, len);
            *start += len;
            Some(own)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::graph::EMBEDDING;

    #[test]
    fn partitions_are_written_as_in_the_thesis() {
        for text in ["1", "s2", "c3", "s3c3", "s2c4"] {
            let partition: Partition = text.parse().unwrap();
            assert_eq!(String::from(partition), text);
        }
        for bad in ["", "s", "s1", "c9", "2", "s2c", "c2s2", "sc"] {
            assert!(bad.parse::<Partition>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_thesis_network_has_13_vectors_of_256() {
        let config = BackboneConfig {
            height: 384,
            input_width: 192,
            ..Default::default()
        };
        let graph = build(&config, &PYRAMID, WIDTH);
        assert_eq!(graph.width(EMBEDDING).unwrap(), 3328);
        let shapes = graph.shapes().unwrap();
        assert_eq!(shapes[graph.output(FEATURE_MAP).unwrap()], [2048, 24, 12]);
        assert_eq!(shapes["p3.stripe_2.rows"], [2048, 8, 12]);
        let groups = ["p3.group_0", "p3.group_1", "p3.group_2"];
        assert_eq!(groups.map(|g| shapes[g][0]), [683, 683, 682]);
        assert_eq!(globals(&PYRAMID), [0, 1, 6]);
        assert!(graph.output(&vector(12)).is_ok() && graph.output(&vector(13)).is_err());
    }
}
