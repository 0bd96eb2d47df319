//! Between a [`Net`] and named weights.

use candle_core::{Device, Tensor};
use reid_models::weights::{LoadReport, Weights, select};

use super::{Net, Result, ops};

impl Net {
    /// Takes every parameter and running statistic that `weights` has under its name (also behind a framework's prefix);
    /// the rest keeps its values, also the batch norms of further domains. The report says what was taken, missing, left
    /// over or of another shape.
    ///
    /// # Errors
    /// If a tensor cannot be written.
    pub fn load(&mut self, weights: &Weights) -> Result<LoadReport> {
        let (selected, mut report) = select(self.graph(), weights);
        let further: Vec<&String> = self.domains.further().collect();
        for name in further {
            let (Some(var), Some((shape, data))) = (self.param(name), weights.tensors.get(name))
            else {
                continue;
            };
            if var.dims() == shape.as_slice() {
                let value = Tensor::from_slice(data, shape.as_slice(), self.device())?;
                var.set(&value)?;
                report.unused.retain(|unused| unused != name);
            }
        }
        for (name, (shape, data)) in selected.tensors {
            if let Some(var) = self.param(&name) {
                var.set(&Tensor::from_vec(data, shape, self.device())?)?;
            }
        }
        Ok(report)
    }

    /// All parameters and running statistics by name.
    ///
    /// # Errors
    /// If a tensor cannot be read.
    pub fn to_weights(&self) -> Result<Weights> {
        let mut weights = Weights::default();
        for (name, var) in self.params() {
            let data = var.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?;
            weights
                .tensors
                .insert(name.clone(), (var.dims().to_vec(), data));
        }
        Ok(weights)
    }

    /// Takes over all parameters and running statistics of a network with the same graph.
    ///
    /// # Errors
    /// [`super::NnError::Counterpart`] if a parameter is missing there or has another shape.
    pub fn clone_weights_from(&self, other: &Net) -> Result<()> {
        if std::ptr::eq(self, other) {
            return Ok(());
        }
        for (name, var) in self.params() {
            var.set(&other.counterpart(self, name, var)?.detach())?;
        }
        Ok(())
    }

    /// Exponential moving average: every parameter becomes `alpha * own + (1 - alpha) * student's`. Running statistics
    /// are not averaged: a teacher gets its own from its own forward passes.
    ///
    /// # Errors
    /// [`super::NnError::Counterpart`] if a parameter is missing there or has another shape.
    pub fn ema_update(&self, student: &Net, alpha: f64) -> Result<()> {
        if std::ptr::eq(self, student) {
            return Ok(());
        }
        let pairs = self
            .averaged()
            .map(|(name, var)| {
                let from = student.counterpart(self, name, var)?;
                Ok((var.as_tensor(), from.as_tensor()))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(ops::kernels(self.device())?.ema(&pairs, alpha as f32)?)
    }
}
