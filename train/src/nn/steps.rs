//! What each operator of a graph does, and what it keeps for the way back.

use candle_core::{Tensor, Var};
use reid_models::ops::Op;

use super::executor::{Mode, Net, Pass, Running};
use super::kernels::{BatchStats, ConvShape, Epilogue, FoldedNorm, GlobalPool, Kernels, PoolShape};
use super::plan::{Step, TensorId};
use super::tape::Saved;
use super::{NnError, Result, tokens};

/// Where an axis of (C, H, W) or (D) lies inside a network, where maps are (N, H, W, C).
fn axis_inside(x: &Tensor, axis: usize) -> usize {
    match (x.rank(), axis) {
        (4, 0) => 3,
        (4, _) => axis,
        _ => axis + 1,
    }
}

impl Net {
    /// Runs one step, stores its result and returns what its backward pass needs.
    pub(super) fn step(
        &self,
        device: &dyn Kernels,
        step: &Step,
        mode: Mode,
        pass: &mut Pass,
    ) -> Result<Saved> {
        let node = &self.graph.nodes[step.node];
        let value = |id: TensorId| -> &Tensor {
            pass.values[id]
                .as_ref()
                .expect("steps are in topological order")
        };
        let param = |i: usize| -> &Var { self.local(&node.params[i]) };
        let x = value(step.inputs[0]).clone();
        let residual = step.residual.map(value);
        let (y, saved) = match node.op {
            Op::Conv2d {
                out_channels,
                kernel,
                stride,
                padding,
                dilation,
                groups,
                bias,
            } => {
                let (n, h, w, c) = x.dims4()?;
                let shape = ConvShape {
                    n,
                    c,
                    h,
                    w,
                    o: out_channels,
                    kernel,
                    stride,
                    padding,
                    dilation,
                    groups,
                };
                let bias = bias.then(|| param(1).as_tensor());
                let folded = step.folded;
                let folded = folded.map(|bn| self.folded(device, bn, bias)).transpose()?;
                let then = Epilogue {
                    scale: folded.as_ref().map(|f| &f.0),
                    bias: folded.as_ref().map(|f| &f.1).or(bias),
                    residual,
                    relu: step.relu,
                };
                let y = device.conv2d(&shape, &x, param(0), then)?;
                (y, Saved::Conv { shape, x })
            }
            Op::BatchNorm { eps, momentum } => {
                let (weight, bias) = (param(0).as_tensor(), param(1).as_tensor());
                let (y, stats) = if mode == Mode::Train {
                    let channels = weight.elem_count();
                    let values = x.elem_count() / channels / self.norm_groups;
                    if values < 2 {
                        return Err(NnError::SingleValue {
                            graph: self.graph.name.clone(),
                            node: node.name.clone(),
                            values,
                        });
                    }
                    let (y, stats) = device.batch_norm_train(
                        &x,
                        weight,
                        bias,
                        eps,
                        self.norm_groups,
                        residual,
                        step.relu,
                    )?;
                    pass.running.push(Running {
                        mean: param(2).clone(),
                        var: param(3).clone(),
                        momentum,
                        stats: stats.clone(),
                    });
                    (y, stats)
                } else {
                    let folded = self.constant_norm(device, step.node)?;
                    let stats = BatchStats {
                        groups: 1,
                        mean: param(2).as_tensor().copy()?,
                        inv_std: folded.inv_std,
                        unbiased_var: param(3).as_tensor().copy()?,
                    };
                    let then = Epilogue {
                        scale: Some(&folded.scale),
                        bias: Some(&folded.shift),
                        residual,
                        relu: step.relu,
                    };
                    (device.affine(&x, then)?, stats)
                };
                let saved = Saved::Norm {
                    stats,
                    frozen: mode == Mode::Eval,
                    x,
                    y: step.relu.then(|| y.clone()),
                };
                (y, saved)
            }
            Op::InstanceNorm { eps } => {
                let (weight, bias) = (param(0).as_tensor(), param(1).as_tensor());
                let n = x.dim(0)?;
                if x.elem_count() / n / weight.elem_count() < 2 {
                    return Err(NnError::SingleValue {
                        graph: self.graph.name.clone(),
                        node: node.name.clone(),
                        values: 1,
                    });
                }
                // The statistics of each image alone, in training and in evaluation.
                let (y, stats) = device.batch_norm_train(&x, weight, bias, eps, n, None, false)?;
                let saved = Saved::Norm {
                    stats,
                    frozen: false,
                    x,
                    y: None,
                };
                (y, saved)
            }
            Op::Narrow { axis, start, len } => {
                let axis = axis_inside(&x, axis);
                let shape = x.dims().to_vec();
                let y = x.narrow(axis, start, len)?.force_contiguous()?;
                (y, Saved::Narrow { axis, start, shape })
            }
            Op::Concat { axis } => {
                let axis = axis_inside(&x, axis);
                let other = value(step.inputs[1]);
                let first = x.dim(axis)?;
                let y = Tensor::cat(&[&x, other], axis)?.contiguous()?;
                (y, Saved::Concat { axis, first })
            }
            Op::Relu => {
                let y = device.relu(&x)?;
                (y.clone(), Saved::Relu { y })
            }
            Op::Add => {
                let y = device.add(&x, value(step.inputs[1]), step.relu)?;
                let kept = step.relu.then(|| y.clone());
                (y, Saved::Add { y: kept })
            }
            Op::MaxPool2d {
                kernel,
                stride,
                padding,
            } => {
                let (n, h, w, c) = x.dims4()?;
                let shape = PoolShape {
                    n,
                    c,
                    h,
                    w,
                    kernel,
                    stride,
                    padding,
                };
                let (y, positions) = device.max_pool2d(&shape, &x)?;
                (y, Saved::MaxPool { shape, positions })
            }
            Op::GlobalAvgPool | Op::GlobalMaxPool | Op::GemPool { .. } => {
                let (kind, p) = match node.op {
                    Op::GlobalAvgPool => (GlobalPool::Avg, None),
                    Op::GemPool { eps } => {
                        let kind = GlobalPool::Gem { eps: eps as f32 };
                        (kind, Some(param(0).as_tensor()))
                    }
                    _ => (GlobalPool::Max, None),
                };
                let y = device.global_pool(kind, p, &x)?;
                (y.clone(), Saved::GlobalPool { kind, x, y })
            }
            Op::Linear { bias, .. } => {
                let bias = bias.then(|| param(1).as_tensor());
                let (shape, x) = (x.dims().to_vec(), tokens::rows(&x)?);
                let y = device.linear(&x, param(0), bias)?;
                let before = &shape[..shape.len() - 1];
                let y = y.reshape([before, &[y.dim(1)?]].concat())?;
                (y, Saved::Linear { x, shape })
            }
            Op::L2Normalize { eps } => {
                (device.l2_normalize(&x, eps)?, Saved::L2Normalize { x, eps })
            }
            Op::Sigmoid => {
                let y = tokens::sigmoid(&x)?;
                (y.clone(), Saved::Sigmoid { y })
            }
            Op::Scale => {
                let factors = value(step.inputs[1]).clone();
                let y = tokens::scale(&x, &factors)?;
                (y, Saved::Scale { x, factors })
            }
            Op::Tokens => {
                let (class, positions) = (param(0).as_detached_tensor(), param(1));
                let y = tokens::tokens(&x, &class, &positions.as_detached_tensor())?;
                let (shape, format) = (x.dims().to_vec(), x.dtype());
                (y, Saved::Tokens { shape, format })
            }
            Op::FirstToken => {
                let tokens = x.dim(1)?;
                (tokens::first(&x)?, Saved::FirstToken { tokens })
            }
            Op::LayerNorm { eps } => {
                let [weight, bias] = [0, 1].map(|i| param(i).as_detached_tensor());
                let [y, normed, inverse] = tokens::layer_norm(&x, &weight, &bias, eps)?;
                (y, Saved::LayerNorm { normed, inverse })
            }
            Op::Gelu => (tokens::gelu(&x)?, Saved::Gelu { x }),
            Op::Attention { heads } => {
                let (y, kept) = tokens::attention(&x, heads)?;
                (y, Saved::Attention(kept))
            }
        };
        pass.values[step.output] = Some(y);
        Ok(saved)
    }

    /// A batch norm with its running statistics.
    fn constant_norm(&self, device: &dyn Kernels, node: usize) -> Result<FoldedNorm> {
        let node = &self.graph.nodes[node];
        let Op::BatchNorm { eps, .. } = node.op else {
            unreachable!("asked of batch norms only");
        };
        let [w, b, mean, var] = [0, 1, 2, 3].map(|i| self.local(&node.params[i]).as_tensor());
        Ok(device.fold_norm(w, b, mean, var, eps)?)
    }

    /// Scale and bias that make a convolution (with its own bias) do the work of the batch norm after it.
    fn folded(
        &self,
        device: &dyn Kernels,
        bn: usize,
        bias: Option<&Tensor>,
    ) -> Result<(Tensor, Tensor)> {
        let FoldedNorm { scale, shift, .. } = self.constant_norm(device, bn)?;
        let shift = match bias {
            Some(bias) => ((bias.detach() * &scale)? + shift)?,
            None => shift,
        };
        Ok((scale, shift))
    }
}
