//! A student and the teacher that follows it.

use anyhow::Result;
use candle_core::{Device, Var};
use reid_models::Graph;
use reid_models::weights::{LoadReport, Weights};

use super::State;
use crate::config::RunConfig;
use crate::nn::{Net, RunningFrom, ops};

/// A network being trained and the moving average of its parameters.
pub struct Pair {
    /// Trained.
    pub student: Net,
    /// The average; runs in train mode with batch statistics of its own.
    pub teacher: Net,
}

impl Pair {
    /// Both with the same parameters: `init`'s, the rest drawn from `seed`.
    ///
    /// # Errors
    /// If the graph does not fit together.
    pub fn new(
        config: &RunConfig,
        seed: u64,
        device: &Device,
        graph: Graph,
        init: Option<&Weights>,
    ) -> Result<(Self, LoadReport)> {
        let (student, report) = start(config, seed, device, graph.clone(), init)?;
        let (teacher, _) = start(config, seed, device, graph, None)?;
        teacher.clone_weights_from(&student)?;
        Ok((Pair { student, teacher }, report))
    }

    /// One step of the average with weight `alpha` of the old value.
    ///
    /// # Errors
    /// candle's.
    pub fn average(&self, alpha: f64) -> Result<()> {
        Ok(self.teacher.ema_update(&self.student, alpha)?)
    }

    /// Both into a checkpoint under these names.
    pub(super) fn save(&self, state: &mut State, [student, teacher]: [&str; 2]) -> Result<()> {
        state.insert(student.to_owned(), self.student.to_weights()?);
        state.insert(teacher.to_owned(), self.teacher.to_weights()?);
        Ok(())
    }

    /// Both from a checkpoint.
    pub(super) fn load(&mut self, state: &State, [student, teacher]: [&str; 2]) -> Result<()> {
        super::load_whole(&mut self.student, state, student)?;
        super::load_whole(&mut self.teacher, state, teacher)
    }
}

/// A network with `init`'s weights, the rest drawn from `seed`, and its batch norms in groups as the run says.
///
/// # Errors
/// If the graph does not fit together.
pub fn start(
    config: &RunConfig,
    seed: u64,
    device: &Device,
    graph: Graph,
    init: Option<&Weights>,
) -> Result<(Net, LoadReport)> {
    let mut net = Net::new(graph, seed, device)?;
    let report = match init {
        Some(weights) => net.load(&reid_models::heads::spread(net.graph(), weights))?,
        None => LoadReport::default(),
    };
    net.set_norm_groups(config.train.norm_groups, RunningFrom::default());
    Ok((net, report))
}

/// Weight of the old value at step `t`, from 0: `min(1 - 1 / (t + 1), plateau)` with the ramp (MMT, ABMT), else the plateau.
pub fn weight_of_old(t: u64, plateau: f64, ramp: bool) -> f64 {
    match ramp {
        true => (1.0 - 1.0 / (t as f64 + 1.0)).min(plateau),
        false => plateau,
    }
}

/// One step of a single parameter's average.
///
/// # Errors
/// candle's.
pub(super) fn average_one(teacher: &Var, student: &Var, alpha: f64) -> Result<()> {
    let pair = [(teacher.as_tensor(), student.as_tensor())];
    Ok(ops::kernels(teacher.device())?.ema(&pair, alpha as f32)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ramp_begins_with_the_student_and_ends_at_the_plateau() {
        assert_eq!(weight_of_old(0, 0.999, true), 0.0);
        assert_eq!(weight_of_old(3, 0.999, true), 0.75);
        assert_eq!(weight_of_old(100_000, 0.999, true), 0.999);
        assert_eq!(weight_of_old(0, 0.999, false), 0.999);
    }
}
