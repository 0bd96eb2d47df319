//! Operators a [`Graph`](crate::Graph) is made of. Semantics are those of the PyTorch operator of the same name.

use serde::{Deserialize, Serialize};

/// One operator with its attributes. Spatial pairs are `[height, width]`.
///
/// Every operator takes the tensors named in [`Node::inputs`](crate::graph::Node::inputs) and the parameters named
/// in [`Node::params`](crate::graph::Node::params), in the order given here, and makes exactly one tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// 2-D convolution. Input (C, H, W); params `weight` (O, C / groups, kh, kw) and, if `bias`, `bias` (O).
    Conv2d {
        /// Output channels.
        out_channels: usize,
        /// Kernel size.
        kernel: [usize; 2],
        /// Stride.
        stride: [usize; 2],
        /// Zero padding on both sides.
        padding: [usize; 2],
        /// Dilation.
        dilation: [usize; 2],
        /// Groups.
        groups: usize,
        /// Whether a bias parameter follows the weight.
        bias: bool,
    },
    /// Batch normalisation over (C, H, W) or (D); params `weight`, `bias`, `running_mean`, `running_var`, each (C).
    /// In training the statistics are those of the batch (variance biased for normalising, unbiased for the running value).
    BatchNorm {
        /// Added to the variance.
        eps: f64,
        /// Weight of the new statistics in the running ones.
        momentum: f64,
    },
    /// Instance normalisation over the pixels of (C, H, W), biased variance; params `weight`, `bias`, each (C).
    InstanceNorm {
        /// Added to the variance.
        eps: f64,
    },
    /// A range of one axis: 0 is the channels, 1 the height, 2 the width.
    Narrow {
        /// Axis.
        axis: usize,
        /// First element.
        start: usize,
        /// Number of elements, at least 1.
        len: usize,
    },
    /// Two tensors one after the other along an axis; the other axes agree.
    Concat {
        /// Axis.
        axis: usize,
    },
    /// `max(x, 0)`; the gradient at 0 is 0.
    Relu,
    /// Sum of two tensors of equal shape.
    Add,
    /// Max pooling; padding counts as minus infinity.
    MaxPool2d {
        /// Kernel size.
        kernel: [usize; 2],
        /// Stride.
        stride: [usize; 2],
        /// Padding on both sides.
        padding: [usize; 2],
    },
    /// Mean over space: (C, H, W) to (C).
    GlobalAvgPool,
    /// Maximum over space: (C, H, W) to (C). Ties: the first position gets the gradient.
    GlobalMaxPool,
    /// Generalised mean, `(mean(max(x, eps)^p))^(1/p)` over space; param `p` (1). Radenovic et al. 2018, eq. 3.
    GemPool {
        /// Lower clamp of the input.
        eps: f64,
    },
    /// Fully connected: (D) to (O), or of each token (T, D) to (T, O); params `weight` (O, D) and, if `bias`, `bias` (O).
    Linear {
        /// Output width.
        out_features: usize,
        /// Whether a bias parameter follows the weight.
        bias: bool,
    },
    /// `x / max(|x|, eps)` over the last axis; a zero vector stays zero and has zero gradient.
    L2Normalize {
        /// Lower bound of the norm.
        eps: f64,
    },
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// A map (C, H, W) times a factor per channel (C): squeeze and excitation (Hu et al. 2018, eq. 4).
    Scale,
    /// A map (D, H, W) as tokens (1 + H W, D), row by row behind a class token, plus what says where they are; params `class`
    /// (1, 1, D) and `positions` (1, 1 + H W, D). Dosovitskiy et al. 2021, eq. 1.
    Tokens,
    /// The first of the tokens: (T, D) to (D).
    FirstToken,
    /// Normalisation of each token (T, D) over D, biased variance; params `weight`, `bias`, each (D).
    LayerNorm {
        /// Added to the variance.
        eps: f64,
    },
    /// `x Phi(x)` with the normal distribution function itself, not its approximation by a tanh.
    Gelu,
    /// Self-attention of tokens: queries, keys and values side by side (T, 3 D) to (T, D), each head on D / heads channels,
    /// `softmax(q k^T / sqrt(D / heads)) v`.
    Attention {
        /// Heads.
        heads: usize,
    },
}

impl Op {
    /// Short name for messages and node names in ONNX.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Conv2d { .. } => "conv2d",
            Op::BatchNorm { .. } => "batch_norm",
            Op::InstanceNorm { .. } => "instance_norm",
            Op::Narrow { .. } => "narrow",
            Op::Concat { .. } => "concat",
            Op::Relu => "relu",
            Op::Add => "add",
            Op::MaxPool2d { .. } => "max_pool2d",
            Op::GlobalAvgPool => "global_avg_pool",
            Op::GlobalMaxPool => "global_max_pool",
            Op::GemPool { .. } => "gem_pool",
            Op::Linear { .. } => "linear",
            Op::L2Normalize { .. } => "l2_normalize",
            Op::Sigmoid => "sigmoid",
            Op::Scale => "scale",
            Op::Tokens => "tokens",
            Op::FirstToken => "first_token",
            Op::LayerNorm { .. } => "layer_norm",
            Op::Gelu => "gelu",
            Op::Attention { .. } => "attention",
        }
    }

    /// How many tensors and how many parameters the operator takes.
    pub fn arity(&self) -> (usize, usize) {
        match self {
            Op::Conv2d { bias, .. } | Op::Linear { bias, .. } => (1, 1 + usize::from(*bias)),
            Op::BatchNorm { .. } => (1, 4),
            Op::InstanceNorm { .. } | Op::LayerNorm { .. } | Op::Tokens => (1, 2),
            Op::GemPool { .. } => (1, 1),
            Op::Add | Op::Concat { .. } | Op::Scale => (2, 0),
            _ => (1, 0),
        }
    }
}
