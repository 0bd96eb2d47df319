//! The optimisers of a run: one for each group of parameters that a method asks for.

use std::collections::BTreeMap;

use anyhow::Result;
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, TensorId};
use reid_models::weights::Weights;

use crate::methods::{Group, Rate, Rule};
use crate::nn::optim::{Adam, AdamConfig, GradNorm, ParamGroup, Sgd, SgdConfig};

/// Entries of a checkpoint that hold an optimiser's moments start with this.
const PREFIX: &str = "optimiser-";

/// One optimiser per group.
#[derive(Default)]
pub struct Optimisers {
    members: BTreeMap<&'static str, Member>,
    /// Saved moments that wait for their optimiser.
    pending: BTreeMap<String, Weights>,
}

struct Member {
    stepper: Stepper,
    rate: Rate,
    fresh: bool,
    /// Tells whether the parameters are still those it was made for.
    parameters: Vec<TensorId>,
}

enum Stepper {
    Adam(Adam),
    Sgd(Sgd),
}

impl Optimisers {
    /// Makes the optimisers of `groups`. One that is there goes on; where a parameter was replaced (a classifier of another
    /// width) that parameter starts anew, and so does everything in a group that is to start anew.
    ///
    /// # Errors
    /// If two parameters of a group have one name.
    pub fn prepare(&mut self, groups: Vec<Group>, weight_decay: f64) -> Result<()> {
        let mut members = BTreeMap::new();
        for group in groups {
            let name = group.name;
            let variables = group.parameters.iter();
            let parameters: Vec<TensorId> = variables.map(|(_, v)| v.as_tensor().id()).collect();
            let fresh = group.fresh;
            let rate = group.rate;
            let saved = self.pending.remove(name).filter(|_| !fresh);
            let old = self.members.remove(name).filter(|_| !fresh);
            let member = match old {
                Some(old) if old.parameters == parameters => old,
                old => {
                    let mut stepper = Stepper::new(group, weight_decay)?;
                    match (old, saved) {
                        (Some(old), _) => stepper.take_over(&old.stepper.state()?)?,
                        (None, Some(saved)) => stepper.take_over(&tensors(saved)?)?,
                        (None, None) => {}
                    }
                    Member {
                        stepper,
                        rate,
                        fresh,
                        parameters,
                    }
                }
            };
            members.insert(name, member);
        }
        self.members = members;
        Ok(())
    }

    /// One step of all, without waiting for a GPU: see [`Adam::step_later`]. `lr` is the schedule's.
    ///
    /// # Errors
    /// candle's.
    pub fn step_later(&mut self, grads: &GradStore, lr: f64) -> Result<Vec<GradNorm>> {
        let step = |member: &mut Member| {
            let lr = match member.rate {
                Rate::Scheduled(factor) => factor * lr,
                Rate::Fixed(own) => own,
            };
            Ok(match &mut member.stepper {
                Stepper::Adam(adam) => adam.step_later(grads, lr)?,
                Stepper::Sgd(sgd) => sgd.step_later(grads, lr)?,
            })
        };
        self.members.values_mut().map(step).collect()
    }

    /// Moments of all that go on beyond an epoch, as entries of a checkpoint.
    ///
    /// # Errors
    /// If a tensor cannot be read back.
    pub fn save(&self) -> Result<BTreeMap<String, Weights>> {
        let mut entries = BTreeMap::new();
        for (name, member) in self.members.iter().filter(|(_, m)| !m.fresh) {
            let mut saved = Weights::default();
            for (key, tensor) in member.stepper.state()? {
                // Step counts are integers; f32 holds them exactly up to 16 million.
                let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
                saved.tensors.insert(key, (tensor.dims().to_vec(), values));
            }
            entries.insert(format!("{PREFIX}{name}"), saved);
        }
        Ok(entries)
    }

    /// Keeps the moments of a checkpoint until their groups are known; returns its other entries.
    pub fn load(&mut self, entries: BTreeMap<String, Weights>) -> BTreeMap<String, Weights> {
        let mut others = BTreeMap::new();
        for (name, weights) in entries {
            match name.strip_prefix(PREFIX) {
                Some(group) => self.pending.insert(group.to_owned(), weights),
                None => others.insert(name, weights),
            };
        }
        others
    }
}

impl Stepper {
    fn new(group: Group, weight_decay: f64) -> Result<Self> {
        let mut parameters = ParamGroup::new(group.parameters);
        parameters.weight_decay = group.weight_decay;
        let parameters = vec![parameters];
        Ok(match group.rule {
            Rule::Adam { amsgrad } => {
                let config = AdamConfig {
                    weight_decay,
                    amsgrad,
                    ..AdamConfig::default()
                };
                Stepper::Adam(Adam::new(parameters, config)?)
            }
            Rule::Sgd { momentum } => {
                let config = SgdConfig {
                    weight_decay,
                    momentum,
                    ..SgdConfig::default()
                };
                Stepper::Sgd(Sgd::new(parameters, config)?)
            }
        })
    }

    fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        Ok(match self {
            Stepper::Adam(adam) => adam.state()?,
            Stepper::Sgd(sgd) => sgd.state()?,
        })
    }

    /// Takes over the moments of every parameter that `state` has in the same shape.
    fn take_over(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let mut own = self.state()?;
        let parameter = |key: &str| key.rsplit_once('.').map(|(name, _)| name.to_owned());
        let misfits: Vec<String> = own
            .iter()
            .filter(|(key, value)| state.get(*key).is_none_or(|s| s.dims() != value.dims()))
            .filter_map(|(key, _)| parameter(key))
            .collect();
        for (key, value) in &mut own {
            if let (Some(saved), Some(name)) = (state.get(key), parameter(key))
                && !misfits.contains(&name)
            {
                *value = saved.clone();
            }
        }
        match self {
            Stepper::Adam(adam) => adam.load_state(&own)?,
            Stepper::Sgd(sgd) => sgd.load_state(&own)?,
        }
        Ok(())
    }
}

fn tensors(weights: Weights) -> Result<BTreeMap<String, Tensor>> {
    weights
        .tensors
        .into_iter()
        .map(|(name, (shape, values))| Ok((name, Tensor::from_vec(values, shape, &Device::Cpu)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::Var;

    use super::*;

    fn group(parameters: &[(&str, &Var)], fresh: bool) -> Group {
        Group {
            fresh,
            ..Group::adam(
                "net",
                parameters
                    .iter()
                    .map(|(n, v)| ((*n).to_owned(), (*v).clone()))
                    .collect(),
            )
        }
    }

    /// One step with gradient 1 everywhere.
    fn step(optimisers: &mut Optimisers, parameters: &[&Var]) {
        let sums = parameters.iter().map(|p| p.as_tensor().sum_all().unwrap());
        let loss = sums.reduce(|a, b| (a + b).unwrap()).unwrap();
        let grads = loss.backward().unwrap();
        for norm in optimisers.step_later(&grads, 0.1).unwrap() {
            norm.read().unwrap();
        }
    }

    fn counts(optimisers: &Optimisers) -> Vec<(String, f32)> {
        let entries = optimisers.save().unwrap();
        let all = entries.values().flat_map(|w| &w.tensors);
        all.filter(|(key, _)| key.ends_with(".step"))
            .map(|(key, (_, values))| (key.clone(), values[0]))
            .collect()
    }

    #[test]
    fn a_replaced_classifier_starts_anew_and_the_rest_goes_on() {
        let net = Var::ones(3, DType::F32, &Device::Cpu).unwrap();
        let old = Var::ones((5, 3), DType::F32, &Device::Cpu).unwrap();
        let new = Var::ones((4, 3), DType::F32, &Device::Cpu).unwrap();
        let mut optimisers = Optimisers::default();
        let groups = |c| vec![group(&[("w", &net), ("classifier", c)], false)];
        optimisers.prepare(groups(&old), 0.0).unwrap();
        step(&mut optimisers, &[&net, &old]);
        // Nothing was replaced: both go on.
        optimisers.prepare(groups(&old), 0.0).unwrap();
        step(&mut optimisers, &[&net, &old]);
        optimisers.prepare(groups(&new), 0.0).unwrap();
        step(&mut optimisers, &[&net, &new]);
        let want = [
            ("classifier.step".to_owned(), 1.0),
            ("w.step".to_owned(), 3.0),
        ];
        assert_eq!(counts(&optimisers), want);
        // Through a checkpoint: the same.
        let mut resumed = Optimisers::default();
        let mut entries = optimisers.save().unwrap();
        entries.insert("student".into(), Weights::default());
        let others = resumed.load(entries);
        assert_eq!(others.keys().collect::<Vec<_>>(), ["student"]);
        resumed.prepare(groups(&new), 0.0).unwrap();
        assert_eq!(counts(&resumed), want);
        resumed.prepare(groups(&old), 0.0).unwrap();
        assert_eq!(counts(&resumed)[0].1, 0.0);
    }

    #[test]
    fn a_fresh_group_forgets_and_is_not_saved() {
        let net = Var::ones(3, DType::F32, &Device::Cpu).unwrap();
        let mut optimisers = Optimisers::default();
        for _ in 0..2 {
            let groups = vec![group(&[("w", &net)], true)];
            optimisers.prepare(groups, 0.0).unwrap();
            step(&mut optimisers, &[&net]);
            let state = optimisers.members["net"].stepper.state().unwrap();
            assert_eq!(state["w.step"].to_vec1::<u32>().unwrap(), [1]);
        }
        assert!(optimisers.save().unwrap().is_empty());
    }
}
