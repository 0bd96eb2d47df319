//! What a forward pass leaves for its backward pass, and that backward pass.

use std::time::Instant;

use candle_core::{DType, Result, Tensor, Var, bail};

use super::autograd::collect;
use super::kernels::{BatchStats, ConvShape, GlobalPool, InputGrad, Kernels, PoolShape};
use super::plan::{Step, TensorId};
use super::profile::{self, Direction, Work};
use super::tokens::{self, Attended};

/// What a step's backward pass needs.
pub(super) enum Saved {
    Conv {
        shape: ConvShape,
        x: Tensor,
    },
    /// `y` only if a ReLU follows.
    Norm {
        stats: BatchStats,
        frozen: bool,
        x: Tensor,
        y: Option<Tensor>,
    },
    /// `axis` and `shape` as inside the net.
    Narrow {
        axis: usize,
        start: usize,
        shape: Vec<usize>,
    },
    /// `first`: how much of the axis is the first tensor's.
    Concat {
        axis: usize,
        first: usize,
    },
    Relu {
        y: Tensor,
    },
    /// `y` only if a ReLU follows.
    Add {
        y: Option<Tensor>,
    },
    MaxPool {
        shape: PoolShape,
        positions: Tensor,
    },
    GlobalPool {
        kind: GlobalPool,
        x: Tensor,
        y: Tensor,
    },
    /// `x` as rows; `shape` as it came.
    Linear {
        x: Tensor,
        shape: Vec<usize>,
    },
    L2Normalize {
        x: Tensor,
        eps: f64,
    },
    Sigmoid {
        y: Tensor,
    },
    Scale {
        x: Tensor,
        factors: Tensor,
    },
    /// Shape and number format of the map.
    Tokens {
        shape: Vec<usize>,
        format: DType,
    },
    /// How many there were.
    FirstToken {
        tokens: usize,
    },
    LayerNorm {
        normed: Tensor,
        inverse: Tensor,
    },
    Gelu {
        x: Tensor,
    },
    Attention(Attended),
}

/// A parameter of a step and whether it wants a gradient.
pub(super) struct StepParam {
    pub(super) var: Var,
    pub(super) trained: bool,
}

/// One step, as it ran.
pub(super) struct Record {
    pub(super) step: Step,
    pub(super) saved: Saved,
    pub(super) params: Vec<StepParam>,
}

/// A tensor that left the net.
pub(super) struct Output {
    pub(super) id: TensorId,
    /// Shape outside, batch first.
    pub(super) shape: Vec<usize>,
    /// Where it starts in the flat tensor of all outputs.
    pub(super) start: usize,
}

/// A forward pass, ready to be gone through backwards once.
pub(super) struct Tape {
    pub(super) device: &'static dyn Kernels,
    pub(super) records: Vec<Record>,
    pub(super) outputs: Vec<Output>,
    /// Whether the images want a gradient.
    pub(super) input_grad: bool,
    /// Number of tensor ids.
    pub(super) tensors: usize,
}

/// Gradients by tensor. Every one is held here alone, so that it may be changed in place.
struct Slots {
    device: &'static dyn Kernels,
    grads: Vec<Option<Tensor>>,
}

impl Slots {
    fn add(&mut self, id: TensorId, grad: Tensor) -> Result<()> {
        match &self.grads[id] {
            Some(sum) => self.device.add_assign(sum, &grad)?,
            None => self.grads[id] = Some(grad),
        }
        Ok(())
    }
}

impl Tape {
    /// Goes back from `flat`, the gradients of all outputs one after another. Hands the parameters' gradients to the
    /// running [`super::backward`] and returns the images' gradient if they want one.
    pub(super) fn backward(self, flat: &Tensor) -> Result<Option<Tensor>> {
        let Tape {
            device,
            records,
            outputs,
            input_grad,
            tensors,
        } = self;
        // Tensors that depend on something that wants a gradient.
        let mut wanted = vec![false; tensors];
        wanted[0] = input_grad;
        for r in &records {
            let from = r.step.inputs.iter().chain(&r.step.residual);
            wanted[r.step.output] =
                from.into_iter().any(|&id| wanted[id]) || r.params.iter().any(|p| p.trained);
        }
        let mut slots = Slots {
            device,
            grads: vec![None; tensors],
        };
        for output in &outputs {
            let len = output.shape.iter().product();
            let grad = flat.narrow(0, output.start, len)?;
            // An output that the loss does not use costs nothing.
            if device.is_zero(&grad)? {
                continue;
            }
            let grad = grad.reshape(output.shape.as_slice())?;
            let grad = match output.shape.len() {
                4 => device.to_rows(&grad)?,
                _ => grad.force_contiguous()?,
            };
            slots.add(output.id, grad)?;
        }
        for record in records.into_iter().rev() {
            let Some(dy) = slots.grads[record.step.output].take() else {
                continue;
            };
            if wanted[record.step.output] {
                let measured = profile::on().then(|| {
                    let input = wanted[record.step.inputs[0]];
                    (record.work(Direction::Backward, input), Instant::now())
                });
                record.backward(device, &wanted, &mut slots, dy)?;
                if let Some((work, since)) = measured {
                    device.synchronize()?;
                    profile::add(work, Direction::Backward, since);
                }
            }
        }
        let images = slots.grads[0].take();
        images.map(|g| device.to_planes(&g)).transpose()
    }
}

impl Record {
    fn backward(
        self,
        device: &dyn Kernels,
        wanted: &[bool],
        slots: &mut Slots,
        dy: Tensor,
    ) -> Result<()> {
        let Record {
            step,
            saved,
            params,
        } = self;
        let input = step.inputs[0];
        let trained = |i: usize| params.get(i).is_some_and(|p| p.trained);
        let give = |i: usize, grad: Option<Tensor>| match (params.get(i), grad) {
            (Some(p), Some(grad)) if p.trained => collect(p.var.as_tensor(), grad),
            _ => Ok(()),
        };
        let dx = match saved {
            Saved::Conv { shape, x } => {
                let target = match slots.grads[input].take() {
                    _ if !wanted[input] => InputGrad::Skip,
                    Some(sum) => InputGrad::AddTo(sum),
                    None => InputGrad::New,
                };
                let need = [trained(0), trained(1)];
                let g = device.conv2d_backward(&shape, &x, &params[0].var, &dy, target, need)?;
                give(0, g.dw)?;
                give(1, g.db)?;
                slots.grads[input] = g.dx;
                return Ok(());
            }
            Saved::Norm {
                stats,
                frozen,
                x,
                y,
            } => {
                let shortcut = step.residual;
                let g = device.batch_norm_backward(
                    &stats,
                    frozen,
                    &x,
                    &params[0].var,
                    y.as_ref(),
                    dy,
                    shortcut.is_some(),
                )?;
                give(0, Some(g.dw))?;
                give(1, Some(g.db))?;
                if let (Some(id), Some(grad)) = (shortcut, g.dresidual)
                    && wanted[id]
                {
                    slots.add(id, grad)?;
                }
                g.dx
            }
            Saved::Narrow { axis, start, shape } => {
                let rest = shape[axis] - start - dy.dim(axis)?;
                dy.pad_with_zeros(axis, start, rest)?.force_contiguous()?
            }
            Saved::Concat { axis, first } => {
                let other = step.inputs[1];
                if wanted[other] {
                    let rest = dy.narrow(axis, first, dy.dim(axis)? - first)?;
                    slots.add(other, rest.force_contiguous()?)?;
                }
                dy.narrow(axis, 0, first)?.force_contiguous()?
            }
            Saved::Relu { y } => device.relu_backward(&y, dy)?,
            Saved::Add { y } => {
                let grad = match y {
                    Some(y) => device.relu_backward(&y, dy)?,
                    None => dy,
                };
                let other = step.inputs[1];
                if wanted[other] {
                    slots.add(other, grad.force_contiguous()?)?;
                }
                grad
            }
            Saved::MaxPool { shape, positions } => {
                device.max_pool2d_backward(&shape, &positions, &dy)?
            }
            Saved::GlobalPool { kind, x, y } => {
                let p = params.first().map(|p| p.var.as_tensor());
                let (dx, dp) = device.global_pool_backward(kind, p, &x, &y, &dy)?;
                give(0, dp)?;
                dx
            }
            Saved::Linear { x, shape } => {
                let need = [wanted[input], trained(0), trained(1)];
                let dy = tokens::rows(&dy)?;
                let g = device.linear_backward(&x, &params[0].var, &dy, need)?;
                give(0, g.dw)?;
                give(1, g.db)?;
                match g.dx {
                    Some(dx) => dx.reshape(shape)?,
                    None => return Ok(()),
                }
            }
            Saved::L2Normalize { x, eps } => device.l2_normalize_backward(&x, &dy, eps)?,
            Saved::Sigmoid { y } => tokens::sigmoid_backward(&dy, &y)?,
            Saved::Scale { x, factors } => {
                let [dx, dfactors] = tokens::scale_backward(&dy, &x, &factors)?;
                let other = step.inputs[1];
                if wanted[other] {
                    slots.add(other, dfactors)?;
                }
                dx
            }
            Saved::Tokens { shape, format } => {
                let [dx, class, positions] = tokens::tokens_backward(&dy, &shape, format)?;
                give(0, Some(class))?;
                give(1, Some(positions))?;
                dx
            }
            Saved::FirstToken { tokens } => tokens::first_backward(&dy, tokens)?,
            Saved::LayerNorm { normed, inverse } => {
                let weight = params[0].var.as_detached_tensor();
                let [dx, dw, db] = tokens::layer_norm_backward(&dy, &normed, &inverse, &weight)?;
                give(0, Some(dw))?;
                give(1, Some(db))?;
                dx
            }
            Saved::Gelu { x } => tokens::gelu_backward(&dy, &x)?,
            Saved::Attention(kept) => tokens::attention_backward(&dy, &kept)?,
        };
        if wanted[input] {
            slots.add(input, dx)?;
        }
        Ok(())
    }
}

impl Record {
    /// What this step has to do in a direction; `input` says whether the input's gradient is wanted.
    pub(super) fn work(&self, direction: Direction, input: bool) -> Work {
        let elements = |t: &Tensor| (t.dtype().size_in_bytes() * t.elem_count()) as f64;
        let relu = if self.step.relu { " + relu" } else { "" };
        let shortcut = if self.step.residual.is_some() {
            " + shortcut"
        } else {
            ""
        };
        // (name, operations forward, bytes of what comes in, bytes of what goes out)
        let (operator, flops, x, y) = match &self.saved {
            Saved::Conv { shape: s, x } => {
                let ([kh, kw], [oh, ow]) = (s.kernel, s.out());
                let size = x.dtype().size_in_bytes() as f64;
                let outputs = (s.rows() * s.o) as f64;
                let name = format!(
                    "conv {kh}x{kw}/{} {}>{} {oh}x{ow}{shortcut}{relu}",
                    s.stride[0], s.c, s.o
                );
                let flops = 2.0 * outputs * s.filter_len() as f64;
                (name, flops, elements(x), size * outputs)
            }
            Saved::Norm { x, .. } => {
                let x = elements(x);
                let shortcuts = if shortcut.is_empty() { 0.0 } else { x };
                (format!("batch norm{shortcut}{relu}"), 0.0, x + shortcuts, x)
            }
            Saved::Linear { x, .. } => {
                let wide = self.params.first().map_or(0, |p| p.var.elem_count()) as f64;
                let rows = x.dims().first().copied().unwrap_or(1) as f64;
                ("linear".into(), 2.0 * rows * wide, elements(x), 0.0)
            }
            Saved::MaxPool {
                shape: s,
                positions,
            } => {
                let x = 4.0 * (s.n * s.h * s.w * s.c) as f64;
                ("max pool".into(), 0.0, x, 2.0 * elements(positions))
            }
            Saved::GlobalPool { x, y, .. } => ("global pool".into(), 0.0, elements(x), elements(y)),
            Saved::Relu { y } => ("relu".into(), 0.0, elements(y), elements(y)),
            Saved::Add { y } => {
                let y = y.as_ref().map_or(0.0, elements);
                (format!("add{relu}"), 0.0, 2.0 * y, y)
            }
            Saved::L2Normalize { x, .. } => ("l2 normalize".into(), 0.0, elements(x), elements(x)),
            Saved::Sigmoid { y } => ("sigmoid".into(), 0.0, elements(y), elements(y)),
            Saved::Scale { x, .. } => ("scale".into(), 0.0, elements(x), elements(x)),
            Saved::LayerNorm { normed, .. } => {
                let x = elements(normed);
                ("layer norm".into(), 0.0, x, x)
            }
            Saved::Gelu { x } => ("gelu".into(), 0.0, elements(x), elements(x)),
            Saved::Attention(kept) => {
                // Two products of heads x T x T x d.
                let [q, ..] = &kept.parts;
                let size = q.dtype().size_in_bytes() as f64;
                let side = kept.shares.dims().last().copied().unwrap_or(1) as f64;
                let flops = 4.0 * q.elem_count() as f64 * side;
                let x = 3.0 * elements(q);
                ("attention".into(), flops, x, size * q.elem_count() as f64)
            }
            Saved::Tokens { .. } => ("tokens".into(), 0.0, 0.0, 0.0),
            Saved::FirstToken { .. } => ("first token".into(), 0.0, 0.0, 0.0),
            Saved::Narrow { .. } => ("narrow".into(), 0.0, 0.0, 0.0),
            Saved::Concat { .. } => ("concat".into(), 0.0, 0.0, 0.0),
        };
        let weights: f64 = self
            .params
            .iter()
            .map(|p| 4.0 * p.var.elem_count() as f64)
            .sum();
        let (flops, bytes) = match direction {
            Direction::Forward => (flops, x + y + weights),
            // Both gradients, each from two of the three; without the input's, one.
            Direction::Backward if input => (2.0 * flops, 2.0 * x + y + 2.0 * weights),
            Direction::Backward => (flops, x + y + weights),
        };
        Work {
            operator,
            flops,
            bytes,
        }
    }
}

/// Takes a tape out of its cell, or explains why it is gone.
pub(super) fn take(cell: &std::sync::Mutex<Option<Tape>>) -> Result<Tape> {
    match cell.lock().ok().and_then(|mut tape| tape.take()) {
        Some(tape) => Ok(tape),
        None => bail!(
            "this forward pass was gone through backwards already and what it kept is freed: run forward again"
        ),
    }
}
