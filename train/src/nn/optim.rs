//! Optimisers with PyTorch's arithmetic, whose state can be saved and resumed.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::cpu::update::{AdamStep, SgdStep, adam, sgd, sum_of_squares};
use super::cpu::{edit, floats};
use super::{NnError, Result};

/// Parameters that share settings. Names are unique over all groups of an optimiser; its saved state uses them.
#[derive(Clone)]
pub struct ParamGroup {
    /// Names and parameters.
    pub params: Vec<(String, Var)>,
    /// Factor on the learning rate given to `step`.
    pub lr_scale: f64,
    /// L2 decay, added to the gradient; `None` takes the optimiser's.
    pub weight_decay: Option<f64>,
}

impl ParamGroup {
    /// A group with the optimiser's own settings.
    pub fn new(params: Vec<(String, Var)>) -> Self {
        ParamGroup {
            params,
            lr_scale: 1.0,
            weight_decay: None,
        }
    }
}

/// Settings of [`Adam`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamConfig {
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the divisor.
    pub eps: f64,
    /// Decay: L2, added to the gradient, or AdamW's with `decoupled`.
    pub weight_decay: f64,
    /// AdamW (Loshchilov and Hutter 2019): the decay shrinks the parameter itself, untouched by the moments.
    pub decoupled: bool,
    /// AMSGrad (Reddi et al. 2018): divides by the largest second moment so far.
    pub amsgrad: bool,
    /// Gradients are scaled down to this norm over all parameters, as `clip_grad_norm_` does.
    pub clip_norm: Option<f64>,
}

impl Default for AdamConfig {
    /// The papers' choice: weight decay 5e-4, the rest as Kingma and Ba.
    fn default() -> Self {
        AdamConfig {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 5e-4,
            decoupled: false,
            amsgrad: false,
            clip_norm: None,
        }
    }
}

/// Settings of [`Sgd`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SgdConfig {
    /// Momentum.
    pub momentum: f64,
    /// Share of the gradient kept from the velocity, but for the first step.
    pub dampening: f64,
    /// Nesterov's form.
    pub nesterov: bool,
    /// L2 decay, added to the gradient.
    pub weight_decay: f64,
    /// Gradients are scaled down to this norm over all parameters, as `clip_grad_norm_` does.
    pub clip_norm: Option<f64>,
}

impl Default for SgdConfig {
    fn default() -> Self {
        SgdConfig {
            momentum: 0.9,
            dampening: 0.0,
            nesterov: false,
            weight_decay: 5e-4,
            clip_norm: None,
        }
    }
}

/// One parameter with its settings and moments.
struct Slot<const N: usize> {
    name: String,
    var: Var,
    lr_scale: f64,
    weight_decay: f64,
    steps: u32,
    moments: [Vec<f32>; N],
}

fn slots<const N: usize>(groups: Vec<ParamGroup>, decay: f64) -> Result<Vec<Slot<N>>> {
    let mut slots: Vec<Slot<N>> = Vec::new();
    for group in groups {
        for (name, var) in group.params {
            if slots.iter().any(|s| s.name == name) {
                return Err(NnError::State(format!(
                    "two parameters are called `{name}`: give one of them a prefix"
                )));
            }
            let len = var.elem_count();
            slots.push(Slot {
                name,
                var,
                lr_scale: group.lr_scale,
                weight_decay: group.weight_decay.unwrap_or(decay),
                steps: 0,
                moments: std::array::from_fn(|_| vec![0.0; len]),
            });
        }
    }
    Ok(slots)
}

/// Euclidean norm of the gradients of all `params`; parameters without a gradient count as 0.
///
/// # Errors
/// [`NnError::GradientNotFinite`], naming the first parameter whose gradient has a NaN or an infinity.
pub fn grad_norm(grads: &GradStore, params: &[(String, Var)]) -> Result<f64> {
    norm(grads, params.iter().map(|(name, var)| (name.as_str(), var)))
}

fn norm<'a>(grads: &GradStore, params: impl Iterator<Item = (&'a str, &'a Var)>) -> Result<f64> {
    let mut total = 0f64;
    for (name, var) in params {
        if let Some(grad) = grads.get(var) {
            let squares = sum_of_squares(&floats(&grad.contiguous()?)?);
            if !squares.is_finite() {
                return Err(NnError::GradientNotFinite { name: name.into() });
            }
            total += squares;
        }
    }
    Ok(total.sqrt())
}

/// Limits every element of the gradients of `params` to -limit..limit, as `clip_grad_value_`.
///
/// # Errors
/// candle's.
pub fn clip_value(grads: &mut GradStore, params: &[(String, Var)], limit: f64) -> Result<()> {
    for (_, var) in params {
        if let Some(grad) = grads.get(var) {
            let clipped = grad.clamp(-limit, limit)?;
            grads.insert(var, clipped);
        }
    }
    Ok(())
}

/// Applies a step to every parameter that has a gradient; `apply` is told the factor that brings the norm of all gradients
/// to `clip`. Returns the norm before.
fn update<const N: usize>(
    slots: &mut [Slot<N>],
    grads: &GradStore,
    clip: Option<f64>,
    apply: impl Fn(&Slot<N>, f32, &mut [Vec<f32>; N], &mut [f32], &[f32]),
) -> Result<f64> {
    let norm = norm(grads, slots.iter().map(|s| (s.name.as_str(), &s.var)))?;
    let scale = clip.map_or(1.0, |limit| (limit / (norm + 1e-6)).min(1.0)) as f32;
    for slot in slots {
        let Some(grad) = grads.get(&slot.var) else {
            continue;
        };
        slot.steps += 1;
        let grad = grad.contiguous()?;
        let grad = floats(&grad)?;
        let mut moments = std::mem::replace(&mut slot.moments, [const { Vec::new() }; N]);
        let done = edit(&slot.var, |p| apply(slot, scale, &mut moments, p, &grad));
        slot.moments = moments;
        done?;
    }
    Ok(norm)
}

const STEP: &str = "step";

fn save<const N: usize>(slots: &[Slot<N>], names: [&str; N]) -> Result<BTreeMap<String, Tensor>> {
    let mut state = BTreeMap::new();
    for slot in slots {
        let steps = Tensor::new(&[slot.steps], &Device::Cpu)?;
        state.insert(format!("{}.{STEP}", slot.name), steps);
        let kept = names.iter().zip(&slot.moments);
        for (name, moment) in kept.filter(|(_, moment)| !moment.is_empty()) {
            let moment = Tensor::from_slice(moment, slot.var.dims(), &Device::Cpu)?;
            state.insert(format!("{}.{name}", slot.name), moment);
        }
    }
    Ok(state)
}

fn load<const N: usize>(
    slots: &mut [Slot<N>],
    names: [&str; N],
    state: &BTreeMap<String, Tensor>,
) -> Result<()> {
    // Everything is read before anything is changed.
    let mut read = Vec::with_capacity(slots.len());
    for slot in slots.iter() {
        let find = |part: &str| {
            let key = format!("{}.{part}", slot.name);
            state
                .get(&key)
                .ok_or_else(|| NnError::State(format!("`{key}` is missing")))
        };
        let steps = find(STEP)?
            .flatten_all()?
            .to_dtype(DType::U32)?
            .to_vec1::<u32>()?;
        let [steps] = steps[..] else {
            return Err(NnError::State(format!(
                "`{}.{STEP}` is not one number",
                slot.name
            )));
        };
        let mut moments = [const { Vec::new() }; N];
        let kept = names.iter().zip(&slot.moments).zip(&mut moments);
        for ((name, _), moment) in kept.filter(|((_, own), _)| !own.is_empty()) {
            let tensor = find(name)?;
            if tensor.dims() != slot.var.dims() {
                return Err(NnError::State(format!(
                    "`{}.{name}` has shape {:?}, the parameter {:?}",
                    slot.name,
                    tensor.dims(),
                    slot.var.dims()
                )));
            }
            *moment = tensor.flatten_all()?.to_vec1::<f32>()?;
        }
        read.push((steps, moments));
    }
    for (slot, (steps, moments)) in slots.iter_mut().zip(read) {
        slot.steps = steps;
        slot.moments = moments;
    }
    Ok(())
}

/// Adam (Kingma and Ba 2015) as `torch.optim.Adam`, or AdamW, or either with AMSGrad. A parameter without a gradient is
/// left alone: no decay, and its step is not counted.
pub struct Adam {
    config: AdamConfig,
    slots: Vec<Slot<3>>,
}

/// The last one is empty, and not saved, without AMSGrad.
const ADAM_MOMENTS: [&str; 3] = ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"];

impl Adam {
    /// An optimiser at step 0.
    ///
    /// # Errors
    /// If two parameters have one name.
    pub fn new(groups: Vec<ParamGroup>, config: AdamConfig) -> Result<Self> {
        let mut slots = slots(groups, config.weight_decay)?;
        if !config.amsgrad {
            for slot in &mut slots {
                let Slot {
                    moments: [_, _, top],
                    ..
                } = slot;
                *top = Vec::new();
            }
        }
        Ok(Adam { slots, config })
    }

    /// One step with learning rate `lr` (times each group's factor); returns the norm of all gradients.
    ///
    /// # Errors
    /// [`NnError::GradientNotFinite`], with nothing updated.
    pub fn step(&mut self, grads: &GradStore, lr: f64) -> Result<f64> {
        let c = self.config;
        update(
            &mut self.slots,
            grads,
            c.clip_norm,
            |slot, scale, [m, v, top], p, g| {
                let t = slot.steps as i32;
                let (lr, decay) = (lr * slot.lr_scale, slot.weight_decay);
                let step = AdamStep {
                    scale,
                    decay: if c.decoupled { 0.0 } else { decay as f32 },
                    keep: if c.decoupled {
                        (1.0 - lr * decay) as f32
                    } else {
                        1.0
                    },
                    beta1: c.beta1 as f32,
                    beta2: c.beta2 as f32,
                    rate: (lr / (1.0 - c.beta1.powi(t))) as f32,
                    inv_sqrt_correction: (1.0 / (1.0 - c.beta2.powi(t)).sqrt()) as f32,
                    eps: c.eps as f32,
                };
                adam(p, g, [m, v, top], step);
            },
        )
    }

    /// `NAME.step`, `NAME.exp_avg`, `NAME.exp_avg_sq` and, with AMSGrad, `NAME.max_exp_avg_sq` of every parameter.
    ///
    /// # Errors
    /// candle's.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        save(&self.slots, ADAM_MOMENTS)
    }

    /// Takes over a saved state; tensors of other names are ignored.
    ///
    /// # Errors
    /// If one is missing or has another shape; then nothing is changed.
    pub fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        load(&mut self.slots, ADAM_MOMENTS, state)
    }
}

/// Stochastic gradient descent with momentum and L2 decay, as `torch.optim.SGD`.
pub struct Sgd {
    config: SgdConfig,
    slots: Vec<Slot<1>>,
}

const SGD_MOMENTS: [&str; 1] = ["momentum_buffer"];

impl Sgd {
    /// An optimiser at step 0.
    ///
    /// # Errors
    /// If two parameters have one name.
    pub fn new(groups: Vec<ParamGroup>, config: SgdConfig) -> Result<Self> {
        Ok(Sgd {
            slots: slots(groups, config.weight_decay)?,
            config,
        })
    }

    /// One step with learning rate `lr` (times each group's factor); returns the norm of all gradients.
    ///
    /// # Errors
    /// [`NnError::GradientNotFinite`], with nothing updated.
    pub fn step(&mut self, grads: &GradStore, lr: f64) -> Result<f64> {
        let c = self.config;
        update(
            &mut self.slots,
            grads,
            c.clip_norm,
            |slot, scale, [velocity], p, g| {
                let first = slot.steps == 1;
                let step = SgdStep {
                    scale,
                    share: if first {
                        1.0
                    } else {
                        (1.0 - c.dampening) as f32
                    },
                    lr: (lr * slot.lr_scale) as f32,
                    momentum: c.momentum as f32,
                    nesterov: c.nesterov,
                    decay: slot.weight_decay as f32,
                };
                sgd(p, g, velocity, step);
            },
        )
    }

    /// `NAME.step` and `NAME.momentum_buffer` of every parameter.
    ///
    /// # Errors
    /// candle's.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        save(&self.slots, SGD_MOMENTS)
    }

    /// Takes over a saved state; tensors of other names are ignored.
    ///
    /// # Errors
    /// If one is missing or has another shape; then nothing is changed.
    pub fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        load(&mut self.slots, SGD_MOMENTS, state)
    }
}
