//! Domain-specific batch norm (Chang et al., CVPR 2019): convolutions are shared between domains (a labelled source and an
//! unlabelled target, say), every batch norm has a scale, a shift and running statistics for each domain.
//!
//! A network has one domain until [`Net::split_domains`]; then [`Net::set_domain`] says whose batch norms the next forward
//! passes use. A step on two domains is two forward passes and one backward pass over the sum of their losses. Parameters of
//! domain 0 keep their names; those of domain `d` are called `NAME@d`, in checkpoints and for the optimiser.

use std::collections::BTreeMap;

use candle_core::{Device, Var};
use reid_models::ops::Op;
use reid_models::weights::Weights;

use super::{Net, NnError, Result};

/// Which domains a network knows, and whose turn it is.
pub(super) struct Domains {
    count: usize,
    current: usize,
    /// Per domain from 1 on: names of the graph to names of its own.
    names: Vec<BTreeMap<String, String>>,
}

impl Domains {
    pub(super) fn one() -> Self {
        Domains {
            count: 1,
            current: 0,
            names: Vec::new(),
        }
    }

    /// The name under which the current domain keeps a parameter of the graph.
    pub(super) fn name<'a>(&'a self, name: &'a str) -> &'a str {
        self.of(self.current, name)
    }

    fn of<'a>(&'a self, domain: usize, name: &'a str) -> &'a str {
        let own = domain.checked_sub(1).and_then(|d| self.names.get(d));
        own.and_then(|names| names.get(name))
            .map_or(name, String::as_str)
    }

    /// The names of all parameters that domains from 1 on have.
    pub(super) fn further(&self) -> impl Iterator<Item = &String> {
        self.names.iter().flat_map(BTreeMap::values)
    }

    /// The other domains' names of a parameter of the graph.
    pub(super) fn others<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a String> {
        self.names.iter().filter_map(move |names| names.get(name))
    }
}

impl Net {
    /// Gives every batch norm parameters and statistics for each of `domains` domains; new ones start as copies of the first.
    /// Domains that are there already stay as they are.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn split_domains(&mut self, domains: usize) -> Result<()> {
        let norms: Vec<String> = self
            .graph
            .nodes
            .iter()
            .filter(|node| matches!(node.op, Op::BatchNorm { .. }))
            .flat_map(|node| node.params.clone())
            .collect();
        for domain in self.domains.count..domains {
            let mut names = BTreeMap::new();
            for name in &norms {
                let own = format!("{name}@{domain}");
                let copy = self.params[name].as_tensor().copy()?;
                self.params.insert(own.clone(), Var::from_tensor(&copy)?);
                names.insert(name.clone(), own);
            }
            self.domains.names.push(names);
        }
        self.domains.count = self.domains.count.max(domains);
        Ok(())
    }

    /// Number of domains.
    pub fn domains(&self) -> usize {
        self.domains.count
    }

    /// Chooses the domain (from 0) whose batch norms the next forward passes use.
    ///
    /// # Errors
    /// [`NnError::Domain`] if there is no such domain.
    pub fn set_domain(&mut self, domain: usize) -> Result<()> {
        self.check_domain(domain)?;
        self.domains.current = domain;
        Ok(())
    }

    /// The network of one domain alone, under the graph's own names: what is exported for cameras of that domain.
    ///
    /// # Errors
    /// [`NnError::Domain`] if there is no such domain.
    pub fn domain_weights(&self, domain: usize) -> Result<Weights> {
        self.check_domain(domain)?;
        let mut weights = Weights::default();
        for p in &self.graph.params {
            let var = &self.params[self.domains.of(domain, &p.name)];
            let data = var.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?;
            let tensor = (var.dims().to_vec(), data);
            weights.tensors.insert(p.name.clone(), tensor);
        }
        Ok(weights)
    }

    fn check_domain(&self, domain: usize) -> Result<()> {
        if domain < self.domains.count {
            return Ok(());
        }
        Err(NnError::Domain {
            graph: self.graph.name.clone(),
            domain,
            domains: self.domains.count,
        })
    }

    /// A parameter of the graph, as the current domain has it.
    pub(super) fn local(&self, name: &str) -> &Var {
        &self.params[self.domains.name(name)]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Mode, backward};
    use super::*;
    use candle_core::Tensor;
    use reid_models::backbones::{Backbone, BackboneConfig};

    fn small(seed: u64) -> Net {
        let config = BackboneConfig {
            backbone: Backbone::Resnet18,
            width: 4,
            height: 32,
            input_width: 16,
            ..BackboneConfig::default()
        };
        Net::new(config.build().unwrap(), seed, &Device::Cpu).unwrap()
    }

    fn images(seed: usize) -> Tensor {
        let value = |i: usize| (((i + 131 * seed) * 7919 % 1009) as f32 / 504.0 - 1.0) * 1.5;
        let data: Vec<f32> = (0..4 * 3 * 32 * 16).map(value).collect();
        Tensor::from_vec(data, (4, 3, 32, 16), &Device::Cpu).unwrap()
    }

    fn loss(net: &Net, x: &Tensor) -> Tensor {
        let y = net.forward(x, Mode::Train, &["neck"]).unwrap();
        y["neck"].sqr().unwrap().sum_all().unwrap()
    }

    fn values(t: &Tensor) -> Vec<f32> {
        t.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// Two domains in one network do what two networks with common convolutions do.
    #[test]
    fn two_domains_are_two_networks_that_share_their_convolutions() {
        let mut net = small(5);
        net.split_domains(2).unwrap();
        let pair = [small(5), small(5)];
        let (source, target) = (images(1), images(2));

        let first = loss(&net, &source);
        net.set_domain(1).unwrap();
        let second = loss(&net, &target);
        let grads = backward(&(first + second).unwrap()).unwrap();
        let apart = [&source, &target].map(|x| x.clone());
        let alone: Vec<_> = pair
            .iter()
            .zip(&apart)
            .map(|(net, x)| backward(&loss(net, x)).unwrap())
            .collect();

        let near = |a: &[f32], b: &[f32], what: &str| {
            let scale = b.iter().fold(1e-3f32, |m, v| m.max(v.abs()));
            let far = a.iter().zip(b).any(|(a, b)| (a - b).abs() > 1e-4 * scale);
            assert!(!far && a.len() == b.len(), "{what}");
        };
        for p in &small(5).graph().params {
            let of = |net: &Net, name: &str, grads: &candle_core::backprop::GradStore| {
                grads.get(net.param(name).unwrap()).map(values)
            };
            let wanted = [0, 1].map(|d| of(&pair[d], &p.name, &alone[d]));
            let own = format!("{}@1", p.name);
            if net.param(&own).is_some() {
                // A batch norm: each domain's gradient and statistics are those of its network.
                for (d, name) in [&p.name, &own].into_iter().enumerate() {
                    let got = of(&net, name, &grads);
                    assert_eq!(got.is_some(), wanted[d].is_some(), "{name}");
                    if let (Some(got), Some(want)) = (got, &wanted[d]) {
                        near(&got, want, name);
                    }
                    let (got, want) = (net.param(name).unwrap(), pair[d].param(&p.name).unwrap());
                    near(&values(got), &values(want), name);
                }
            } else if let (Some(got), [Some(a), Some(b)]) = (of(&net, &p.name, &grads), wanted) {
                let sum: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
                near(&got, &sum, &p.name);
            }
        }
    }

    #[test]
    fn a_domain_alone_is_an_ordinary_network() {
        let mut net = small(6);
        net.split_domains(2).unwrap();
        net.set_domain(1).unwrap();
        // Statistics that the other domain doesn't have.
        loss(&net, &images(3));
        let mut plain = small(7);
        plain.load(&net.domain_weights(1).unwrap()).unwrap();
        let x = images(4);
        let neck = |net: &Net| {
            let y = net.forward_no_grad(&x, Mode::Eval, &["neck"]).unwrap();
            values(&y["neck"])
        };
        let second = neck(&net);
        assert_eq!(second, neck(&plain));
        net.set_domain(0).unwrap();
        assert_ne!(second, neck(&net));
        // A checkpoint carries both.
        let mut again = small(8);
        again.split_domains(2).unwrap();
        again.load(&net.to_weights().unwrap()).unwrap();
        again.set_domain(1).unwrap();
        assert_eq!(second, neck(&again));
        assert!(
            net.trainable()
                .iter()
                .any(|(name, _)| name == "bn1.weight@1")
        );
    }

    #[test]
    fn a_domain_that_is_not_there_is_an_error() {
        let message = small(1).set_domain(1).unwrap_err().to_string();
        assert!(message.contains("1 domain"), "{message}");
        assert!(small(1).domain_weights(3).is_err());
    }
}
