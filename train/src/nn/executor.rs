//! A graph with parameters, ready to run.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use candle_core::{DType, Device, Tensor, Var};
use reid_models::Graph;
use reid_models::graph::ParamKind;

use super::autograd::attach;
use super::domains::Domains;
use super::kernels::{BatchStats, Kernels};
use super::plan::{TensorId, plan, resolve};
use super::profile::{self, Direction};
use super::tape::{self, Output, Record, StepParam, Tape};
use super::{NnError, Result, init, ops};

/// How batch norms behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Statistics of the batch; the running ones are updated.
    Train,
    /// Running statistics.
    Eval,
}

/// Which statistics enter the running ones when the batch is split into groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunningFrom {
    /// The mean over the groups.
    #[default]
    Mean,
    /// The first group's, as PyTorch's `DataParallel` keeps them.
    First,
}

/// A [`Graph`] with its parameters on a device.
pub struct Net {
    pub(super) graph: Graph,
    pub(super) device: Device,
    pub(super) params: BTreeMap<String, Var>,
    inputs: Vec<Vec<TensorId>>,
    pub(super) norm_groups: usize,
    running_from: RunningFrom,
    pub(super) domains: Domains,
    /// Ties outputs to candle's autograd when the images need no gradient.
    anchor: Var,
}

/// New running statistics, written after the pass succeeded.
pub(super) struct Running {
    pub(super) mean: Var,
    pub(super) var: Var,
    pub(super) momentum: f64,
    pub(super) stats: BatchStats,
}

/// What one pass over the steps makes.
pub(super) struct Pass {
    pub(super) values: Vec<Option<Tensor>>,
    pub(super) records: Vec<Record>,
    pub(super) running: Vec<Running>,
}

impl Net {
    /// Checks the graph and gives every parameter its start; the values depend on `seed` and the parameter's name only.
    ///
    /// # Errors
    /// If the graph does not fit together or the device has no kernels.
    pub fn new(graph: Graph, seed: u64, device: &Device) -> Result<Self> {
        graph.shapes()?;
        ops::kernels(device)?;
        let mut params = BTreeMap::new();
        for p in &graph.params {
            let values = init::initial(p, seed);
            params.insert(
                p.name.clone(),
                Var::from_vec(values, p.shape.as_slice(), device)?,
            );
        }
        Ok(Net {
            inputs: resolve(&graph),
            device: device.clone(),
            anchor: Var::zeros(1, DType::F32, device)?,
            norm_groups: 1,
            running_from: RunningFrom::default(),
            domains: Domains::one(),
            graph,
            params,
        })
    }

    /// Splits every training batch into `groups` equal, consecutive parts with batch statistics of their own ("ghost"
    /// batch norm; what published numbers from several GPUs silently rely on). 1 is the whole batch.
    pub fn set_norm_groups(&mut self, groups: usize, running_from: RunningFrom) {
        self.norm_groups = groups.max(1);
        self.running_from = running_from;
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Where the parameters are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Parameters and running statistics by name.
    pub fn params(&self) -> &BTreeMap<String, Var> {
        &self.params
    }

    /// One parameter or running statistic.
    pub fn param(&self, name: &str) -> Option<&Var> {
        self.params.get(name)
    }

    /// What an optimiser may change, in the graph's order.
    pub fn trainable(&self) -> Vec<(String, Var)> {
        self.of_kind(|kind| kind == ParamKind::Trainable)
            .map(|(name, var)| (name.clone(), var.clone()))
            .collect()
    }

    /// What a moving average covers: all but the running statistics.
    pub(super) fn averaged(&self) -> impl Iterator<Item = (&String, &Var)> {
        self.of_kind(|kind| kind != ParamKind::Buffer)
    }

    fn of_kind(&self, keep: impl Fn(ParamKind) -> bool) -> impl Iterator<Item = (&String, &Var)> {
        self.graph
            .params
            .iter()
            .filter(move |p| keep(p.kind))
            .flat_map(|p| std::iter::once(&p.name).chain(self.domains.others(&p.name)))
            .map(|name| (name, &self.params[name]))
    }

    /// This network's parameter that another one calls `name`.
    pub(super) fn counterpart(&self, other: &Net, name: &str, var: &Var) -> Result<&Var> {
        self.params
            .get(name)
            .filter(|own| own.dims() == var.dims())
            .ok_or_else(|| NnError::Counterpart {
                graph: other.graph.name.clone(),
                name: name.into(),
                shape: var.dims().to_vec(),
            })
    }

    /// Runs the network on `images` (N, C, H, W) and returns the outputs of the roles in `want`, each with the batch axis
    /// first, tied to candle's autograd: see [`super::backward`]. [`Mode::Train`] updates the running statistics.
    ///
    /// # Errors
    /// If the images or a role do not fit the graph, or a batch norm has a single value per channel to learn from.
    pub fn forward(
        &self,
        images: &Tensor,
        mode: Mode,
        want: &[&str],
    ) -> Result<BTreeMap<String, Tensor>> {
        let ids = self.ids(want)?;
        let pass = self.run(images, mode, &ids, true)?;
        let device = ops::kernels(&self.device)?;
        let mut outputs: Vec<Output> = Vec::new();
        let mut flat = Vec::new();
        let mut start = 0;
        for &id in &ids {
            let value = self.outside(device, &pass.values, id)?;
            outputs.push(Output {
                id,
                shape: value.dims().to_vec(),
                start,
            });
            start += value.elem_count();
            flat.push(value.flatten_all()?);
        }
        let flat = Tensor::cat(&flat, 0)?;
        let parts: Vec<(usize, Vec<usize>)> =
            outputs.iter().map(|o| (o.start, o.shape.clone())).collect();
        let tape = Mutex::new(Some(Tape {
            device,
            records: pass.records,
            outputs,
            input_grad: images.track_op(),
            tensors: self.graph.nodes.len() + 1,
        }));
        let flat = if images.track_op() {
            attach("net", &[images, &self.anchor], flat, move |dy| {
                Ok(vec![tape::take(&tape)?.backward(dy)?, None])
            })?
        } else {
            attach("net", &[&self.anchor], flat, move |dy| {
                tape::take(&tape)?.backward(dy)?;
                Ok(vec![None])
            })?
        };
        self.write_running(pass.running)?;
        let mut result = BTreeMap::new();
        for (role, (start, shape)) in want.iter().zip(parts) {
            let part = flat.narrow(0, start, shape.iter().product())?;
            result.insert(role.to_string(), part.reshape(shape)?);
        }
        Ok(result)
    }

    /// As [`Net::forward`], for a teacher or for extraction: keeps nothing for a backward pass and frees every tensor
    /// after its last use; [`Mode::Eval`] folds batch norms into the convolutions before them.
    ///
    /// # Errors
    /// As [`Net::forward`].
    pub fn forward_no_grad(
        &self,
        images: &Tensor,
        mode: Mode,
        want: &[&str],
    ) -> Result<BTreeMap<String, Tensor>> {
        let ids = self.ids(want)?;
        let pass = self.run(&images.detach(), mode, &ids, false)?;
        let device = ops::kernels(&self.device)?;
        let mut result = BTreeMap::new();
        for (role, &id) in want.iter().zip(&ids) {
            result.insert(role.to_string(), self.outside(device, &pass.values, id)?);
        }
        self.write_running(pass.running)?;
        Ok(result)
    }

    /// Tensors behind roles.
    fn ids(&self, want: &[&str]) -> Result<Vec<TensorId>> {
        want.iter()
            .map(|role| {
                let tensor = self.graph.output(role)?;
                let node = self.graph.nodes.iter().position(|n| n.name == tensor);
                // An output may be the input itself: id 0.
                Ok(node.map_or(0, |n| n + 1))
            })
            .collect()
    }

    /// A computed tensor as the caller sees it: maps as (N, C, H, W).
    fn outside(
        &self,
        device: &dyn Kernels,
        values: &[Option<Tensor>],
        id: TensorId,
    ) -> Result<Tensor> {
        let value = values[id].as_ref().expect("a wanted tensor is never freed");
        Ok(if value.rank() == 4 {
            device.to_planes(value)?
        } else {
            value.clone()
        })
    }

    fn run(&self, images: &Tensor, mode: Mode, want: &[TensorId], record: bool) -> Result<Pass> {
        let fits = images.rank() == 4
            && images.dims()[1..] == self.graph.input_shape
            && images.dims()[0] > 0
            && images.dtype() == DType::F32;
        if !fits {
            return Err(NnError::Input {
                graph: self.graph.name.clone(),
                want: self.graph.input_shape,
                got: images.dims().to_vec(),
                dtype: images.dtype(),
            });
        }
        let n = images.dims()[0];
        if mode == Mode::Train && !n.is_multiple_of(self.norm_groups) {
            return Err(NnError::Groups {
                graph: self.graph.name.clone(),
                batch: n,
                groups: self.norm_groups,
            });
        }
        let device = ops::kernels(&self.device)?;
        let mut pass = Pass {
            values: vec![None; self.graph.nodes.len() + 1],
            records: Vec::new(),
            running: Vec::new(),
        };
        pass.values[0] = Some(device.to_rows(&images.detach().contiguous()?)?);
        for step in plan(
            &self.graph,
            &self.inputs,
            want,
            mode == Mode::Eval && !record,
        ) {
            let since = Instant::now();
            let saved = self.step(device, &step, mode, &mut pass)?;
            for id in &step.free {
                pass.values[*id] = None;
            }
            if record || profile::on() {
                let params = self.graph.nodes[step.node]
                    .params
                    .iter()
                    .map(|name| StepParam {
                        var: self.local(name).clone(),
                        trained: self.is_trained(name),
                    })
                    .collect();
                let done = Record {
                    step,
                    saved,
                    params,
                };
                if profile::on() {
                    device.synchronize()?;
                    profile::add(
                        done.work(Direction::Forward, true),
                        Direction::Forward,
                        since,
                    );
                }
                if record {
                    pass.records.push(done);
                }
            }
        }
        Ok(pass)
    }

    fn is_trained(&self, name: &str) -> bool {
        let param = self.graph.params.iter().find(|p| p.name == name);
        param.is_some_and(|p| p.kind == ParamKind::Trainable)
    }

    fn write_running(&self, updates: Vec<Running>) -> Result<()> {
        let device = ops::kernels(&self.device)?;
        for Running {
            mean,
            var,
            momentum,
            stats,
        } in updates
        {
            let used = match self.running_from {
                RunningFrom::Mean => stats.groups,
                RunningFrom::First => 1,
            };
            device.blend(&mean, &stats.mean, used, momentum)?;
            device.blend(&var, &stats.unbiased_var, used, momentum)?;
        }
        Ok(())
    }
}
