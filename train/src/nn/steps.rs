//! What each operator of a graph does, and what it keeps for the way back.

use candle_core::{Tensor, Var};
use reid_models::ops::Op;

use super::executor::{Mode, Net, Pass, Running};
use super::kernels::{BatchStats, ConvShape, Epilogue, GlobalPool, Kernels, PoolShape};
use super::plan::{Step, TensorId};
use super::tape::Saved;
use super::{NnError, Result, ops};

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
                let folded = step.folded.map(|bn| self.folded(bn, bias)).transpose()?;
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
                    let (scale, shift, stats) = self.constant_norm(step.node)?;
                    let then = Epilogue {
                        scale: Some(&scale),
                        bias: Some(&shift),
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
                let kind = match node.op {
                    Op::GlobalAvgPool => GlobalPool::Avg,
                    Op::GemPool { eps } => GlobalPool::Gem {
                        p: ops::exponent(param(0))?,
                        eps: eps as f32,
                    },
                    _ => GlobalPool::Max,
                };
                let y = device.global_pool(kind, &x)?;
                (y.clone(), Saved::GlobalPool { kind, x, y })
            }
            Op::Linear { bias, .. } => {
                let bias = bias.then(|| param(1).as_tensor());
                (device.linear(&x, param(0), bias)?, Saved::Linear { x })
            }
            Op::L2Normalize { eps } => {
                (device.l2_normalize(&x, eps)?, Saved::L2Normalize { x, eps })
            }
        };
        pass.values[step.output] = Some(y);
        Ok(saved)
    }

    /// Scale and shift per channel of a batch norm with running statistics, and those statistics.
    fn constant_norm(&self, node: usize) -> Result<(Tensor, Tensor, BatchStats)> {
        let node = &self.graph.nodes[node];
        let Op::BatchNorm { eps, .. } = node.op else {
            unreachable!("asked of batch norms only");
        };
        let read = |i: usize| self.local(&node.params[i]).to_vec1::<f32>();
        let (w, b, mean, var) = (read(0)?, read(1)?, read(2)?, read(3)?);
        let inv_std: Vec<f32> = var
            .iter()
            .map(|v| (1.0 / (f64::from(*v) + eps).sqrt()) as f32)
            .collect();
        let scale: Vec<f32> = w.iter().zip(&inv_std).map(|(w, i)| w * i).collect();
        let shift: Vec<f32> = (0..b.len()).map(|c| b[c] - mean[c] * scale[c]).collect();
        let stats = BatchStats {
            groups: 1,
            mean,
            inv_std,
            unbiased_var: var,
        };
        let channels = scale.len();
        Ok((
            Tensor::from_vec(scale, channels, &self.device)?,
            Tensor::from_vec(shift, channels, &self.device)?,
            stats,
        ))
    }

    /// Scale and bias that make a convolution (with its own bias) do the work of the batch norm after it.
    fn folded(&self, bn: usize, bias: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let (scale, shift, _) = self.constant_norm(bn)?;
        let shift = match bias {
            Some(bias) => ((bias.detach() * &scale)? + shift)?,
            None => shift,
        };
        Ok((scale, shift))
    }
}
