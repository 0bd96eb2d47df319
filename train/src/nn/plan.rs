//! From a graph to the steps that compute some of its outputs: only what is needed, neighbours fused.

use reid_models::Graph;
use reid_models::ops::Op;

/// Index of a tensor: 0 is the graph's input, `i + 1` is what node `i` makes.
pub(super) type TensorId = usize;

/// One or several fused nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// The node that gives the operator.
    pub(super) node: usize,
    /// A batch norm folded into the convolution `node`.
    pub(super) folded: Option<usize>,
    /// A shortcut added to the result.
    pub(super) residual: Option<TensorId>,
    /// Whether a ReLU follows.
    pub(super) relu: bool,
    /// What `node` takes.
    pub(super) inputs: Vec<TensorId>,
    /// What the last of the fused nodes makes.
    pub(super) output: TensorId,
    /// Tensors that nobody needs after this step.
    pub(super) free: Vec<TensorId>,
}

/// Inputs of every node as tensor ids. The graph has been checked.
pub(super) fn resolve(graph: &Graph) -> Vec<Vec<TensorId>> {
    let mut ids = std::collections::BTreeMap::from([(graph.input.as_str(), 0)]);
    let mut inputs = Vec::with_capacity(graph.nodes.len());
    for (i, node) in graph.nodes.iter().enumerate() {
        inputs.push(node.inputs.iter().map(|name| ids[name.as_str()]).collect());
        ids.insert(&node.name, i + 1);
    }
    inputs
}

/// Steps, in order, that compute the tensors `want`. `fold` puts batch norms into the convolutions before them, which
/// is right only when their statistics are constant and no gradient is asked for.
pub(super) fn plan(
    graph: &Graph,
    inputs: &[Vec<TensorId>],
    want: &[TensorId],
    fold: bool,
) -> Vec<Step> {
    let count = graph.nodes.len();
    let mut needed = vec![false; count + 1];
    for &id in want {
        needed[id] = true;
    }
    for node in (0..count).rev() {
        if needed[node + 1] {
            for &id in &inputs[node] {
                needed[id] = true;
            }
        }
    }
    // The one node that takes a tensor, if there is exactly one and the caller doesn't want the tensor itself.
    let mut takers: Vec<Vec<usize>> = vec![Vec::new(); count + 1];
    for node in (0..count).filter(|n| needed[n + 1]) {
        for &id in &inputs[node] {
            takers[id].push(node);
        }
    }
    let next = |id: TensorId| match takers[id].as_slice() {
        [taker] if !want.contains(&id) => Some(*taker),
        _ => None,
    };
    let mut fused = vec![false; count];
    let mut steps: Vec<Step> = Vec::new();
    for node in 0..count {
        if !needed[node + 1] || fused[node] {
            continue;
        }
        let mut step = Step {
            node,
            folded: None,
            residual: None,
            relu: false,
            inputs: inputs[node].clone(),
            output: node + 1,
            free: Vec::new(),
        };
        let op = |n: usize| &graph.nodes[n].op;
        let extend = |step: &mut Step, fused: &mut [bool], taker: usize| {
            fused[taker] = true;
            step.output = taker + 1;
        };
        if fold
            && matches!(op(node), Op::Conv2d { .. })
            && let Some(bn) = next(step.output)
            && matches!(op(bn), Op::BatchNorm { .. })
        {
            step.folded = Some(bn);
            extend(&mut step, &mut fused, bn);
        }
        let normalises = step.folded.is_some() || matches!(op(node), Op::BatchNorm { .. });
        if normalises
            && let Some(add) = next(step.output)
            && matches!(op(add), Op::Add)
            // The other branch may have taken the addition already.
            && !fused[add]
        {
            let other = inputs[add].iter().find(|&&id| id != step.output);
            step.residual = other.copied();
            extend(&mut step, &mut fused, add);
        }
        if (normalises || matches!(op(node), Op::Add))
            && let Some(relu) = next(step.output)
            && matches!(op(relu), Op::Relu)
        {
            step.relu = true;
            extend(&mut step, &mut fused, relu);
        }
        steps.push(step);
    }
    // A fused step runs where its last node stood: by then its shortcut exists.
    steps.sort_by_key(|s| s.output);
    let mut last_use = vec![None; count + 1];
    for (i, step) in steps.iter().enumerate() {
        for &id in step.inputs.iter().chain(&step.residual) {
            last_use[id] = Some(i);
        }
    }
    for (id, last) in last_use.into_iter().enumerate() {
        if let Some(i) = last
            && !want.contains(&id)
        {
            steps[i].free.push(id);
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use reid_models::backbones::{Backbone, BackboneConfig};

    fn resnet18() -> Graph {
        BackboneConfig {
            backbone: Backbone::Resnet18,
            width: 4,
            height: 64,
            input_width: 32,
            ..Default::default()
        }
        .build()
        .unwrap()
    }

    #[test]
    fn only_needed_nodes_and_all_fusions() {
        let graph = resnet18();
        let inputs = resolve(&graph);
        let id = |role: &str| {
            let tensor = graph.output(role).unwrap();
            graph.nodes.iter().position(|n| n.name == tensor).unwrap() + 1
        };
        let steps = plan(&graph, &inputs, &[id("pooled")], false);
        // 20 convolutions, 20 batch norms with everything after them, two pools; no neck.
        assert_eq!(steps.len(), 20 + 20 + 2);
        assert_eq!(steps.iter().filter(|s| s.residual.is_some()).count(), 8);
        assert_eq!(steps.iter().filter(|s| s.relu).count(), 17);
        let folded = plan(&graph, &inputs, &[id("embedding")], true);
        assert_eq!(folded.len(), 20 + 2 + 2);
        // Every tensor but the wanted one is freed exactly once.
        let mut freed: Vec<_> = folded.iter().flat_map(|s| &s.free).collect();
        freed.sort();
        let before = freed.len();
        freed.dedup();
        assert_eq!((freed.len(), before), (24, 24));
    }

    #[test]
    fn a_wanted_tensor_is_not_fused_away() {
        let graph = resnet18();
        let inputs = resolve(&graph);
        let bn = graph.nodes.iter().position(|n| n.name == "bn1").unwrap();
        let steps = plan(&graph, &inputs, &[bn + 1, bn + 2], false);
        assert!(steps.iter().any(|s| s.output == bn + 1));
        assert!(steps.iter().all(|s| !s.relu));
    }
}
