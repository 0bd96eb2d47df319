//! The network as inference needs it.
//!
//! Only what the embedding depends on is kept. A batch norm in inference is `y = x * scale + shift` per channel; right
//! after a convolution or linear layer that nobody else reads it disappears into the weights, computed in f64.

use std::collections::{BTreeMap, BTreeSet};

use reid_models::Graph;
use reid_models::graph::{EMBEDDING, GraphError, Node};
use reid_models::ops::Op;
use reid_models::weights::Weights;

/// An operator with its weights.
#[derive(Clone, Debug, PartialEq)]
pub enum FoldedOp {
    /// 2-D convolution; `weight` (O, C / groups, kh, kw).
    Conv {
        /// Shape of the weight.
        shape: [usize; 4],
        /// Weight, row-major.
        weight: Vec<f32>,
        /// Bias (O).
        bias: Option<Vec<f32>>,
        /// Stride, height and width.
        stride: [usize; 2],
        /// Padding on both sides.
        padding: [usize; 2],
        /// Dilation.
        dilation: [usize; 2],
        /// Groups.
        groups: usize,
    },
    /// Fully connected; `weight` (O, D).
    Linear {
        /// Shape of the weight.
        shape: [usize; 2],
        /// Weight, row-major.
        weight: Vec<f32>,
        /// Bias (O).
        bias: Option<Vec<f32>>,
    },
    /// `x * scale + shift` per channel: a batch norm that could not be folded.
    Affine {
        /// Factor per channel.
        scale: Vec<f32>,
        /// Addend per channel.
        shift: Vec<f32>,
        /// Whether the input is a map (C, H, W) and not a vector (C).
        map: bool,
    },
    /// Instance norm over space.
    InstanceNorm {
        /// Factor per channel.
        weight: Vec<f32>,
        /// Addend per channel.
        bias: Vec<f32>,
        /// Added to the variance.
        eps: f32,
    },
    /// A range of an axis, counted without the batch.
    Narrow {
        /// Axis.
        axis: usize,
        /// First element.
        start: usize,
        /// Elements.
        len: usize,
    },
    /// Two tensors along an axis, counted without the batch.
    Concat {
        /// Axis.
        axis: usize,
    },
    /// `max(x, 0)`.
    Relu,
    /// Sum of two tensors.
    Add,
    /// Max pooling.
    MaxPool {
        /// Kernel, height and width.
        kernel: [usize; 2],
        /// Stride.
        stride: [usize; 2],
        /// Padding on both sides.
        padding: [usize; 2],
    },
    /// Mean over space.
    GlobalAvgPool,
    /// Maximum over space.
    GlobalMaxPool,
    /// Generalised mean over space.
    GemPool {
        /// Exponent.
        p: f32,
        /// Lower clamp of the input.
        eps: f32,
    },
    /// Division by the L2 norm.
    L2Normalize {
        /// Lower bound of the norm.
        eps: f32,
    },
    /// Logistic function.
    Sigmoid,
    /// A map times a factor per channel.
    Scale,
    /// A map of `width` channels as tokens behind one more, plus `addend` (1 + T, width): class token and places together.
    Tokens {
        /// Channels.
        width: usize,
        /// What is added to zero and to the map's cells.
        addend: Vec<f32>,
    },
    /// The first token.
    FirstToken,
    /// Normalisation of each token.
    LayerNorm {
        /// Factor per channel.
        weight: Vec<f32>,
        /// Addend per channel.
        bias: Vec<f32>,
        /// Added to the variance.
        eps: f32,
    },
    /// A matrix (O, D) for each token.
    TokenLinear {
        /// Shape of the weight.
        shape: [usize; 2],
        /// Weight, row-major.
        weight: Vec<f32>,
        /// Bias (O).
        bias: Option<Vec<f32>>,
    },
    /// `x Phi(x)`.
    Gelu,
    /// Self-attention of `tokens` tokens.
    Attention {
        /// Heads.
        heads: usize,
        /// Tokens.
        tokens: usize,
        /// Width of queries, keys and values together.
        width: usize,
    },
}

/// One operator of the folded network.
#[derive(Clone, Debug, PartialEq)]
pub struct FoldedNode {
    /// Name of the node and of the tensor it makes: that of the graph's node (of the batch norm, where one was folded).
    pub name: String,
    /// What it does.
    pub op: FoldedOp,
    /// Tensors it takes.
    pub inputs: Vec<String>,
}

/// A network ready to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Folded {
    /// Operators in topological order.
    pub nodes: Vec<FoldedNode>,
    /// Tensor of the embedding.
    pub output: String,
    /// How many batch norms disappeared.
    pub batch_norms_folded: usize,
}

/// Folds a graph whose parameters are all in `weights` with their declared shapes
/// ([`weights::select`](reid_models::weights::select) checks that).
///
/// # Errors
/// If the graph is broken or has no embedding.
///
/// # Panics
/// If a parameter is not in `weights`.
pub fn fold(graph: &Graph, weights: &Weights) -> Result<Folded, GraphError> {
    let shapes = graph.shapes()?;
    let output = graph.output(EMBEDDING)?.to_string();
    let nodes = needed(graph, &output);
    let mut readers: BTreeMap<&str, usize> = BTreeMap::new();
    for node in &nodes {
        for input in &node.inputs {
            *readers.entry(input).or_default() += 1;
        }
    }
    let mut folded: Vec<FoldedNode> = Vec::with_capacity(nodes.len());
    let mut position: BTreeMap<&str, usize> = BTreeMap::new();
    let mut batch_norms_folded = 0;
    for node in nodes {
        if let Op::BatchNorm { eps, .. } = node.op {
            let (scale, shift) = affine(weights, node, eps);
            let source = node.inputs[0].as_str();
            if readers[source] == 1
                && source != output
                && let Some(&index) = position.get(source)
                && absorb(&mut folded[index].op, &scale, &shift)
            {
                folded[index].name.clone_from(&node.name);
                position.insert(&node.name, index);
                batch_norms_folded += 1;
                continue;
            }
            let op = FoldedOp::Affine {
                scale: scale.iter().map(|&v| v as f32).collect(),
                shift: shift.iter().map(|&v| v as f32).collect(),
                map: shapes[source].len() == 3,
            };
            position.insert(&node.name, folded.len());
            folded.push(with(node, op));
            continue;
        }
        position.insert(&node.name, folded.len());
        folded.push(with(node, plain(node, weights, &shapes[&node.inputs[0]])));
    }
    Ok(Folded {
        nodes: folded,
        output,
        batch_norms_folded,
    })
}

/// Nodes that the output depends on, in order.
fn needed<'a>(graph: &'a Graph, output: &str) -> Vec<&'a Node> {
    let mut wanted = BTreeSet::from([output]);
    let mut nodes = Vec::new();
    for node in graph.nodes.iter().rev() {
        if wanted.contains(node.name.as_str()) {
            wanted.extend(node.inputs.iter().map(String::as_str));
            nodes.push(node);
        }
    }
    nodes.reverse();
    nodes
}

fn with(node: &Node, op: FoldedOp) -> FoldedNode {
    FoldedNode {
        name: node.name.clone(),
        op,
        inputs: node.inputs.clone(),
    }
}

/// Scale and shift per channel of a batch norm in inference: `scale = weight / sqrt(var + eps)`,
/// `shift = bias - mean * scale`.
fn affine(weights: &Weights, node: &Node, eps: f64) -> (Vec<f64>, Vec<f64>) {
    let [weight, bias, mean, variance] = [0, 1, 2, 3].map(|i| data(weights, node, i));
    let scale: Vec<f64> = weight
        .iter()
        .zip(variance)
        .map(|(&w, &v)| f64::from(w) / (f64::from(v) + eps).sqrt())
        .collect();
    let shift = bias
        .iter()
        .zip(mean)
        .zip(&scale)
        .map(|((&b, &m), s)| f64::from(b) - f64::from(m) * s)
        .collect();
    (scale, shift)
}

/// Puts `y * scale + shift` into the layer that makes y; false if it is no such layer.
fn absorb(op: &mut FoldedOp, scale: &[f64], shift: &[f64]) -> bool {
    let (weight, bias) = match op {
        FoldedOp::Conv { weight, bias, .. } | FoldedOp::Linear { weight, bias, .. } => {
            (weight, bias)
        }
        _ => return false,
    };
    let row = weight.len() / scale.len();
    for (weights, &s) in weight.chunks_exact_mut(row).zip(scale) {
        for w in weights {
            *w = (f64::from(*w) * s) as f32;
        }
    }
    let old = bias.take().unwrap_or_else(|| vec![0.0; scale.len()]);
    let new = old.iter().zip(scale).zip(shift);
    *bias = Some(
        new.map(|((&b, s), t)| (f64::from(b) * s + t) as f32)
            .collect(),
    );
    true
}

/// `input`: shape of what it takes.
fn plain(node: &Node, weights: &Weights, input: &[usize]) -> FoldedOp {
    let vector = |index: usize| data(weights, node, index).to_vec();
    match node.op {
        Op::Conv2d {
            stride,
            padding,
            dilation,
            groups,
            bias,
            ..
        } => FoldedOp::Conv {
            shape: shape(weights, node, 0),
            weight: vector(0),
            bias: bias.then(|| vector(1)),
            stride,
            padding,
            dilation,
            groups,
        },
        Op::Linear { bias, .. } if input.len() == 2 => FoldedOp::TokenLinear {
            shape: shape(weights, node, 0),
            weight: vector(0),
            bias: bias.then(|| vector(1)),
        },
        Op::Linear { bias, .. } => FoldedOp::Linear {
            shape: shape(weights, node, 0),
            weight: vector(0),
            bias: bias.then(|| vector(1)),
        },
        Op::BatchNorm { .. } => unreachable!("batch norms are handled by the caller"),
        Op::InstanceNorm { eps } => FoldedOp::InstanceNorm {
            weight: vector(0),
            bias: vector(1),
            eps: eps as f32,
        },
        Op::Narrow { axis, start, len } => FoldedOp::Narrow { axis, start, len },
        Op::Concat { axis } => FoldedOp::Concat { axis },
        Op::Relu => FoldedOp::Relu,
        Op::Add => FoldedOp::Add,
        Op::MaxPool2d {
            kernel,
            stride,
            padding,
        } => FoldedOp::MaxPool {
            kernel,
            stride,
            padding,
        },
        Op::GlobalAvgPool => FoldedOp::GlobalAvgPool,
        Op::GlobalMaxPool => FoldedOp::GlobalMaxPool,
        Op::GemPool { eps } => FoldedOp::GemPool {
            p: data(weights, node, 0)[0],
            eps: eps as f32,
        },
        Op::L2Normalize { eps } => FoldedOp::L2Normalize { eps: eps as f32 },
        Op::Sigmoid => FoldedOp::Sigmoid,
        Op::Scale => FoldedOp::Scale,
        Op::Tokens => {
            let (class, mut addend) = (data(weights, node, 0), vector(1));
            addend.iter_mut().zip(class).for_each(|(a, c)| *a += c);
            FoldedOp::Tokens {
                width: class.len(),
                addend,
            }
        }
        Op::FirstToken => FoldedOp::FirstToken,
        Op::LayerNorm { eps } => FoldedOp::LayerNorm {
            weight: vector(0),
            bias: vector(1),
            eps: eps as f32,
        },
        Op::Gelu => FoldedOp::Gelu,
        Op::Attention { heads } => FoldedOp::Attention {
            heads,
            tokens: input[0],
            width: input[1],
        },
    }
}

fn data<'a>(weights: &'a Weights, node: &Node, index: usize) -> &'a [f32] {
    &weights.tensors[&node.params[index]].1
}

fn shape<const N: usize>(weights: &Weights, node: &Node, index: usize) -> [usize; N] {
    let shape = &weights.tensors[&node.params[index]].0;
    shape[..]
        .try_into()
        .expect("shape inference has checked the rank of every weight")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use reid_models::backbones::{Backbone, BackboneConfig};
    use reid_models::graph::{Init, ParamKind};

    fn ones(graph: &Graph) -> Weights {
        let tensors = graph
            .params
            .iter()
            .map(|p| {
                let n = p.shape.iter().product();
                (p.name.clone(), (p.shape.clone(), vec![1.0; n]))
            })
            .collect();
        Weights { tensors }
    }

    #[test]
    fn every_batch_norm_of_a_backbone_disappears_and_the_neck_stays() {
        let graph = BackboneConfig {
            width: 4,
            height: 64,
            input_width: 32,
            backbone: Backbone::Resnet50,
            ..Default::default()
        }
        .build()
        .unwrap();
        let folded = fold(&graph, &ones(&graph)).unwrap();
        assert_eq!(folded.batch_norms_folded, 53);
        let affine = |n: &&FoldedNode| matches!(n.op, FoldedOp::Affine { map: false, .. });
        assert_eq!(folded.nodes.iter().filter(affine).count(), 1);
        let names: Vec<&str> = folded.nodes.iter().map(|n| n.name.as_str()).collect();
        assert!(names.contains(&"layer1.0.downsample.1"));
        assert!(!names.contains(&"layer1.0.downsample.0"));
        // Every input is made before it is read.
        for (i, node) in folded.nodes.iter().enumerate() {
            for input in &node.inputs {
                assert!(input == "images" || names[..i].contains(&input.as_str()));
            }
        }
    }

    /// conv -> bn and conv -> relu: the convolution is read twice.
    #[test]
    fn a_convolution_that_others_read_keeps_its_weights() {
        let mut graph = Graph::new("fork", [1, 2, 2]);
        let weight = graph.param(
            "conv.weight",
            &[1, 1, 1, 1],
            ParamKind::Trainable,
            Init::KaimingNormalFanOut,
        );
        let op = Op::Conv2d {
            out_channels: 1,
            kernel: [1, 1],
            stride: [1, 1],
            padding: [0, 0],
            dilation: [1, 1],
            groups: 1,
            bias: false,
        };
        graph.push("conv", op, &["images"], &[&weight]);
        let bn: Vec<String> = ["weight", "bias", "running_mean", "running_var"]
            .map(|n| {
                graph.param(
                    format!("bn.{n}"),
                    &[1],
                    ParamKind::Trainable,
                    Init::Constant { value: 1.0 },
                )
            })
            .to_vec();
        let names: Vec<&str> = bn.iter().map(String::as_str).collect();
        let op = Op::BatchNorm {
            eps: 0.0,
            momentum: 0.1,
        };
        graph.push("bn", op, &["conv"], &names);
        graph.push("relu", Op::Relu, &["conv"], &[]);
        graph.push("dead", Op::Relu, &["bn"], &[]);
        graph.push("sum", Op::Add, &["bn", "relu"], &[]);
        graph.push("pool", Op::GlobalAvgPool, &["sum"], &[]);
        graph.outputs.insert(EMBEDDING.into(), "pool".into());
        let mut weights = ones(&graph);
        weights.tensors.get_mut("bn.running_var").unwrap().1[0] = 4.0;
        let folded = fold(&graph, &weights).unwrap();
        assert_eq!(folded.batch_norms_folded, 0);
        assert!(folded.nodes.iter().all(|n| n.name != "dead"));
        let bn = folded.nodes.iter().find(|n| n.name == "bn").unwrap();
        let want = FoldedOp::Affine {
            scale: vec![0.5],
            shift: vec![0.5],
            map: true,
        };
        assert_eq!(bn.op, want);
    }
}
