//! Optimisers with PyTorch's arithmetic, whose state can be saved and resumed.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::kernels::{AdamItem, AdamRates, Kernels, SgdItem, SgdRates};
use super::{NnError, Result, ops};

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
    /// Of the parameter's shape, where the parameter is; `None` for one that isn't used.
    moments: [Option<Tensor>; N],
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
            let mut moments = [const { None }; N];
            for moment in &mut moments {
                *moment = Some(var.zeros_like()?);
            }
            slots.push(Slot {
                name,
                var,
                lr_scale: group.lr_scale,
                weight_decay: group.weight_decay.unwrap_or(decay),
                steps: 0,
                moments,
            });
        }
    }
    Ok(slots)
}

/// The norm of all gradients of a step, which a GPU may still be computing.
#[must_use = "a step with gradients that aren't finite changed nothing, and only this says so"]
pub struct GradNorm {
    /// Of each gradient, (count) in f64; `None` without gradients.
    squares: Option<Tensor>,
    names: Vec<String>,
}

impl GradNorm {
    fn of<'a>(
        grads: &GradStore,
        params: impl Iterator<Item = (&'a str, &'a Var)>,
    ) -> Result<(Self, Vec<Tensor>)> {
        let (mut names, mut found) = (Vec::new(), Vec::new());
        for (name, var) in params {
            if let Some(grad) = grads.get(var) {
                names.push(name.to_owned());
                found.push(grad.contiguous()?);
            }
        }
        let squares = match found.first() {
            Some(first) => {
                let all: Vec<&Tensor> = found.iter().collect();
                Some(ops::kernels(first.device())?.squares(&all)?)
            }
            None => None,
        };
        Ok((GradNorm { squares, names }, found))
    }

    /// Waits for the Euclidean norm over all gradients.
    ///
    /// # Errors
    /// [`NnError::GradientNotFinite`], naming the first parameter whose gradient has a NaN or an infinity: then the step
    /// changed nothing.
    pub fn read(&self) -> Result<f64> {
        let Some(squares) = &self.squares else {
            return Ok(0.0);
        };
        let squares = squares.to_vec1::<f64>()?;
        match squares.iter().position(|s| !s.is_finite()) {
            Some(i) => Err(NnError::GradientNotFinite {
                name: self.names[i].clone(),
            }),
            None => Ok(squares.iter().sum::<f64>().sqrt()),
        }
    }
}

/// Euclidean norm of the gradients of all `params`; parameters without a gradient count as 0.
///
/// # Errors
/// [`NnError::GradientNotFinite`], naming the first parameter whose gradient has a NaN or an infinity.
pub fn grad_norm(grads: &GradStore, params: &[(String, Var)]) -> Result<f64> {
    let params = params.iter().map(|(name, var)| (name.as_str(), var));
    GradNorm::of(grads, params)?.0.read()
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

/// Applies a step to every parameter that has a gradient: `apply` is given those, each with its gradient, and the sums of
/// squares that guard the step.
fn update<const N: usize>(
    slots: &mut [Slot<N>],
    grads: &GradStore,
    wait: bool,
    apply: impl FnOnce(&dyn Kernels, &[(&Slot<N>, &Tensor)], &Tensor) -> candle_core::Result<()>,
) -> Result<GradNorm> {
    let params = slots.iter().map(|s| (s.name.as_str(), &s.var));
    let (norm, found) = GradNorm::of(grads, params)?;
    let Some(squares) = &norm.squares else {
        return Ok(norm);
    };
    if wait {
        norm.read()?;
    }
    let mut steps = Vec::with_capacity(found.len());
    let mut found = found.iter();
    for slot in slots {
        if grads.get(&slot.var).is_some() {
            slot.steps += 1;
            steps.extend(found.next().map(|grad| (&*slot, grad)));
        }
    }
    apply(ops::kernels(squares.device())?, &steps, squares)?;
    Ok(norm)
}

/// A moment that is always there.
fn moment<const N: usize>(slot: &Slot<N>, i: usize) -> candle_core::Result<&Tensor> {
    match &slot.moments[i] {
        Some(moment) => Ok(moment),
        None => candle_core::bail!("the optimiser has no moment {i} for `{}`", slot.name),
    }
}

const STEP: &str = "step";

fn save<const N: usize>(slots: &[Slot<N>], names: [&str; N]) -> Result<BTreeMap<String, Tensor>> {
    let mut state = BTreeMap::new();
    for slot in slots {
        let steps = Tensor::new(&[slot.steps], &Device::Cpu)?;
        state.insert(format!("{}.{STEP}", slot.name), steps);
        for (name, moment) in names.iter().zip(&slot.moments) {
            if let Some(moment) = moment {
                // A copy: what was saved must not change with the next step.
                let saved = moment.to_device(&Device::Cpu)?.copy()?;
                state.insert(format!("{}.{name}", slot.name), saved);
            }
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
        let mut moments = [const { None }; N];
        let kept = names.iter().zip(&slot.moments).zip(&mut moments);
        for ((name, _), moment) in kept.filter(|((_, own), _)| own.is_some()) {
            let tensor = find(name)?;
            if tensor.dims() != slot.var.dims() {
                return Err(NnError::State(format!(
                    "`{}.{name}` has shape {:?}, the parameter {:?}",
                    slot.name,
                    tensor.dims(),
                    slot.var.dims()
                )));
            }
            let tensor = tensor.to_dtype(DType::F32)?.force_contiguous()?;
            *moment = Some(tensor.to_device(slot.var.device())?.copy()?);
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
                slot.moments[2] = None;
            }
        }
        Ok(Adam { slots, config })
    }

    /// One step with learning rate `lr` (times each group's factor); returns the norm of all gradients.
    ///
    /// # Errors
    /// [`NnError::GradientNotFinite`], with nothing updated.
    pub fn step(&mut self, grads: &GradStore, lr: f64) -> Result<f64> {
        self.launch(grads, lr, true)?.read()
    }

    /// As [`Adam::step`], without waiting for a GPU. If a gradient turns out not to be finite, no parameter and no moment
    /// has changed, and reading the norm is an error.
    ///
    /// # Errors
    /// candle's.
    pub fn step_later(&mut self, grads: &GradStore, lr: f64) -> Result<GradNorm> {
        self.launch(grads, lr, false)
    }

    fn launch(&mut self, grads: &GradStore, lr: f64, wait: bool) -> Result<GradNorm> {
        let c = self.config;
        let rates = AdamRates {
            beta1: c.beta1 as f32,
            beta2: c.beta2 as f32,
            eps: c.eps as f32,
        };
        update(&mut self.slots, grads, wait, |device, steps, squares| {
            let items = steps.iter().map(|(slot, grad)| {
                let t = slot.steps as i32;
                let (lr, decay) = (lr * slot.lr_scale, slot.weight_decay);
                Ok(AdamItem {
                    param: slot.var.as_tensor(),
                    grad,
                    mean: moment(slot, 0)?,
                    square: moment(slot, 1)?,
                    top: slot.moments[2].as_ref(),
                    rate: (lr / (1.0 - c.beta1.powi(t))) as f32,
                    inv_sqrt_correction: (1.0 / (1.0 - c.beta2.powi(t)).sqrt()) as f32,
                    decay: if c.decoupled { 0.0 } else { decay as f32 },
                    keep: if c.decoupled {
                        (1.0 - lr * decay) as f32
                    } else {
                        1.0
                    },
                })
            });
            let items = items.collect::<candle_core::Result<Vec<_>>>()?;
            device.adam(&items, rates, squares, c.clip_norm)
        })
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
        self.launch(grads, lr, true)?.read()
    }

    /// As [`Sgd::step`], without waiting for a GPU: see [`Adam::step_later`].
    ///
    /// # Errors
    /// candle's.
    pub fn step_later(&mut self, grads: &GradStore, lr: f64) -> Result<GradNorm> {
        self.launch(grads, lr, false)
    }

    fn launch(&mut self, grads: &GradStore, lr: f64, wait: bool) -> Result<GradNorm> {
        let c = self.config;
        let rates = SgdRates {
            momentum: c.momentum as f32,
            nesterov: c.nesterov,
        };
        update(&mut self.slots, grads, wait, |device, steps, squares| {
            let items = steps.iter().map(|(slot, grad)| {
                Ok(SgdItem {
                    param: slot.var.as_tensor(),
                    grad,
                    velocity: moment(slot, 0)?,
                    lr: (lr * slot.lr_scale) as f32,
                    share: match slot.steps {
                        1 => 1.0,
                        _ => (1.0 - c.dampening) as f32,
                    },
                    decay: slot.weight_decay as f32,
                })
            });
            let items = items.collect::<candle_core::Result<Vec<_>>>()?;
            device.sgd(&items, rates, squares, c.clip_norm)
        })
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
