//! Shape inference: what an operator makes of what it takes. Per-sample shapes, no batch axis.

use crate::ops::Op;

/// Shapes that don't fit.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ShapeError {
    /// An input has the wrong rank.
    #[error("node `{node}` ({op}) takes a tensor of rank {want}, got {got:?}")]
    Rank {
        /// Node.
        node: String,
        /// Operator.
        op: &'static str,
        /// Wanted rank, per sample.
        want: &'static str,
        /// Given shape.
        got: Vec<usize>,
    },
    /// A parameter has the wrong shape.
    #[error("node `{node}` ({op}): parameter {index} has shape {got:?}, wants {want:?}")]
    Param {
        /// Node.
        node: String,
        /// Operator.
        op: &'static str,
        /// Which parameter.
        index: usize,
        /// Given shape.
        got: Vec<usize>,
        /// Wanted shape.
        want: Vec<usize>,
    },
    /// Two inputs should have one shape.
    #[error("node `{node}` ({op}): shapes {a:?} and {b:?} differ")]
    Mismatch {
        /// Node.
        node: String,
        /// Operator.
        op: &'static str,
        /// First.
        a: Vec<usize>,
        /// Second.
        b: Vec<usize>,
    },
    /// A range that is not inside an axis.
    #[error(
        "node `{node}` (narrow): {start}..{start}+{len} of axis {axis} does not lie in {input:?}"
    )]
    Range {
        /// Node.
        node: String,
        /// Axis.
        axis: usize,
        /// First element.
        start: usize,
        /// Elements.
        len: usize,
        /// Input shape.
        input: Vec<usize>,
    },
    /// A width that heads cannot share.
    #[error(
        "node `{node}` (attention): {width} channels are not queries, keys and values of {heads} heads"
    )]
    Heads {
        /// Node.
        node: String,
        /// Heads.
        heads: usize,
        /// Channels of queries, keys and values together.
        width: usize,
    },
    /// A window larger than the padded input, or a zero stride, dilation or group.
    #[error(
        "node `{node}` ({op}): window {kernel:?} with stride {stride:?} does not fit input {input:?}"
    )]
    Window {
        /// Node.
        node: String,
        /// Operator.
        op: &'static str,
        /// Kernel.
        kernel: [usize; 2],
        /// Stride.
        stride: [usize; 2],
        /// Input shape.
        input: Vec<usize>,
    },
}

/// Length of one axis after a sliding window; `None` if the window doesn't fit.
pub fn window(
    len: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    dilation: usize,
) -> Option<usize> {
    if kernel == 0 || stride == 0 || dilation == 0 {
        return None;
    }
    let reach = dilation * (kernel - 1) + 1;
    (len + 2 * padding)
        .checked_sub(reach)
        .map(|rest| rest / stride + 1)
}

/// Shape of the tensor that `op` makes of `inputs` with parameters of shapes `params`.
///
/// # Errors
/// Names the node and what doesn't fit.
pub fn infer(
    node: &str,
    op: &Op,
    inputs: &[&[usize]],
    params: &[&[usize]],
) -> Result<Vec<usize>, ShapeError> {
    let input = inputs[0];
    let chw = || match *input {
        [c, h, w] => Ok((c, h, w)),
        _ => Err(ShapeError::Rank {
            node: node.into(),
            op: op.name(),
            want: "3 (C, H, W)",
            got: input.to_vec(),
        }),
    };
    let vector = || match *input {
        [d] => Ok(d),
        _ => Err(ShapeError::Rank {
            node: node.into(),
            op: op.name(),
            want: "1 (D)",
            got: input.to_vec(),
        }),
    };
    let tokens = || match *input {
        [t, d] => Ok((t, d)),
        _ => Err(ShapeError::Rank {
            node: node.into(),
            op: op.name(),
            want: "2 (T, D)",
            got: input.to_vec(),
        }),
    };
    let param = |index: usize, want: &[usize]| {
        if params[index] == want {
            return Ok(());
        }
        Err(ShapeError::Param {
            node: node.into(),
            op: op.name(),
            index,
            got: params[index].to_vec(),
            want: want.to_vec(),
        })
    };
    let slide =
        |kernel: [usize; 2], stride: [usize; 2], padding: [usize; 2], dilation: [usize; 2]| {
            let (_, h, w) = chw()?;
            window(h, kernel[0], stride[0], padding[0], dilation[0])
                .zip(window(w, kernel[1], stride[1], padding[1], dilation[1]))
                .ok_or_else(|| ShapeError::Window {
                    node: node.into(),
                    op: op.name(),
                    kernel,
                    stride,
                    input: input.to_vec(),
                })
        };
    match *op {
        Op::Conv2d {
            out_channels,
            kernel,
            stride,
            padding,
            dilation,
            groups,
            bias,
        } => {
            let (c, ..) = chw()?;
            if groups == 0 || c % groups != 0 || out_channels % groups != 0 {
                return Err(ShapeError::Window {
                    node: node.into(),
                    op: op.name(),
                    kernel,
                    stride,
                    input: input.to_vec(),
                });
            }
            param(0, &[out_channels, c / groups, kernel[0], kernel[1]])?;
            if bias {
                param(1, &[out_channels])?;
            }
            let (h, w) = slide(kernel, stride, padding, dilation)?;
            Ok(vec![out_channels, h, w])
        }
        Op::MaxPool2d {
            kernel,
            stride,
            padding,
        } => {
            let (c, ..) = chw()?;
            let (h, w) = slide(kernel, stride, padding, [1, 1])?;
            Ok(vec![c, h, w])
        }
        Op::BatchNorm { .. } => {
            let channels = match *input {
                [c, _, _] | [c] => c,
                _ => {
                    return Err(ShapeError::Rank {
                        node: node.into(),
                        op: op.name(),
                        want: "3 or 1",
                        got: input.to_vec(),
                    });
                }
            };
            for index in 0..4 {
                param(index, &[channels])?;
            }
            Ok(input.to_vec())
        }
        Op::InstanceNorm { .. } => {
            let (c, ..) = chw()?;
            param(0, &[c])?;
            param(1, &[c])?;
            Ok(input.to_vec())
        }
        Op::Narrow { axis, start, len } => {
            let mut shape = input.to_vec();
            let fits = |have: usize| len > 0 && start.checked_add(len).is_some_and(|e| e <= have);
            match shape.get_mut(axis).filter(|have| fits(**have)) {
                Some(have) => *have = len,
                None => {
                    return Err(ShapeError::Range {
                        node: node.into(),
                        axis,
                        start,
                        len,
                        input: input.to_vec(),
                    });
                }
            }
            Ok(shape)
        }
        Op::Concat { axis } => {
            let other = inputs[1];
            let agree = input.len() == other.len()
                && axis < input.len()
                && (0..input.len()).all(|i| i == axis || input[i] == other[i]);
            if !agree {
                return Err(ShapeError::Mismatch {
                    node: node.into(),
                    op: op.name(),
                    a: input.to_vec(),
                    b: other.to_vec(),
                });
            }
            let mut shape = input.to_vec();
            shape[axis] += other[axis];
            Ok(shape)
        }
        Op::Relu => Ok(input.to_vec()),
        Op::Add => {
            if inputs[1] != input {
                return Err(ShapeError::Mismatch {
                    node: node.into(),
                    op: op.name(),
                    a: input.to_vec(),
                    b: inputs[1].to_vec(),
                });
            }
            Ok(input.to_vec())
        }
        Op::GlobalAvgPool | Op::GlobalMaxPool => Ok(vec![chw()?.0]),
        Op::GemPool { .. } => {
            param(0, &[1])?;
            Ok(vec![chw()?.0])
        }
        Op::Linear { out_features, bias } => {
            let (before, width) = match *input {
                [t, d] => (vec![t], d),
                _ => (vec![], vector()?),
            };
            param(0, &[out_features, width])?;
            if bias {
                param(1, &[out_features])?;
            }
            Ok([before, vec![out_features]].concat())
        }
        Op::L2Normalize { .. } => Ok(vec![vector()?]),
        Op::Sigmoid | Op::Gelu => Ok(input.to_vec()),
        Op::Scale => match (input, inputs[1]) {
            ([c, _, _], [factors]) if c == factors => Ok(input.to_vec()),
            (a, b) => Err(ShapeError::Mismatch {
                node: node.into(),
                op: op.name(),
                a: a.to_vec(),
                b: b.to_vec(),
            }),
        },
        Op::Tokens => {
            let (d, h, w) = chw()?;
            param(0, &[1, 1, d])?;
            param(1, &[1, 1 + h * w, d])?;
            Ok(vec![1 + h * w, d])
        }
        Op::FirstToken => Ok(vec![tokens()?.1]),
        Op::LayerNorm { .. } => {
            let (_, d) = tokens()?;
            param(0, &[d])?;
            param(1, &[d])?;
            Ok(input.to_vec())
        }
        Op::Attention { heads } => {
            let (t, d) = tokens()?;
            if heads == 0 || d % (3 * heads) != 0 {
                return Err(ShapeError::Heads {
                    node: node.into(),
                    heads,
                    width: d,
                });
            }
            Ok(vec![t, d / 3])
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn windows_as_in_pytorch() {
        assert_eq!(window(256, 7, 2, 3, 1), Some(128));
        assert_eq!(window(7, 3, 2, 1, 1), Some(4));
        assert_eq!(window(5, 3, 1, 2, 2), Some(5));
        assert_eq!(window(2, 5, 1, 1, 1), None);
        assert_eq!(window(4, 2, 0, 0, 1), None);
    }

    #[test]
    fn a_wrong_weight_is_named() {
        let op = Op::Linear {
            out_features: 4,
            bias: false,
        };
        let err = infer("fc", &op, &[&[8]], &[&[4, 7]]).unwrap_err();
        assert!(
            err.to_string().contains("`fc`") && err.to_string().contains("[4, 8]"),
            "{err}"
        );
    }
}
