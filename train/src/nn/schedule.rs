//! Learning rates as pure functions of the epoch: nothing to save, nothing to get out of step on resume.

use serde::{Deserialize, Serialize};

/// How the rate falls after the warm-up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "decay", rename_all = "snake_case", deny_unknown_fields)]
pub enum Decay {
    /// It does not.
    #[default]
    Constant,
    /// Times `gamma` at each of these epochs.
    MultiStep {
        /// Epochs, counted from 0.
        milestones: Vec<usize>,
        /// Factor.
        gamma: f64,
    },
    /// Times `gamma` every `every` epochs.
    Step {
        /// Epochs between two falls, at least 1.
        every: usize,
        /// Factor.
        gamma: f64,
    },
    /// Half a cosine from 1 to `floor`, from the end of the warm-up to `epochs`.
    Cosine {
        /// Epoch, counted from the very start, at which the floor is reached.
        epochs: usize,
        /// Factor that remains.
        #[serde(default)]
        floor: f64,
    },
}

/// Linear warm-up, then a decay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// Learning rate after the warm-up.
    pub lr: f64,
    /// Epochs over which the rate rises linearly; 0 is none.
    pub warmup_epochs: usize,
    /// Factor at epoch 0, in 0..1.
    pub warmup_factor: f64,
    /// What follows.
    pub decay: Decay,
}

impl Default for Schedule {
    /// 3.5e-4 with ICE's warm-up (factor 0.1, 10 epochs), then constant.
    fn default() -> Self {
        Schedule {
            lr: 3.5e-4,
            warmup_epochs: 10,
            warmup_factor: 0.1,
            decay: Decay::Constant,
        }
    }
}

impl Schedule {
    /// A rate that never changes.
    pub fn constant(lr: f64) -> Self {
        Schedule {
            lr,
            warmup_epochs: 0,
            warmup_factor: 1.0,
            decay: Decay::Constant,
        }
    }

    /// The rate at `epoch`, counted from 0; a whole number changes it once per epoch, as the reference implementations do,
    /// a fraction (`step / steps_per_epoch`) makes warm-up and cosine smooth.
    pub fn at(&self, epoch: f64) -> f64 {
        let epoch = epoch.max(0.0);
        let whole = epoch.floor() as usize;
        let warmup = self.warmup_epochs as f64;
        let rise = if epoch < warmup {
            let share = epoch / warmup;
            self.warmup_factor * (1.0 - share) + share
        } else {
            1.0
        };
        let fall = match &self.decay {
            Decay::Constant => 1.0,
            Decay::MultiStep { milestones, gamma } => {
                gamma.powi(milestones.iter().filter(|m| **m <= whole).count() as i32)
            }
            Decay::Step { every, gamma } => gamma.powi((whole / (*every).max(1)) as i32),
            Decay::Cosine { epochs, floor } => {
                let length = (epochs.saturating_sub(self.warmup_epochs)).max(1) as f64;
                let share = ((epoch - warmup).max(0.0) / length).min(1.0);
                floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * share).cos())
            }
        };
        self.lr * rise * fall
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} {b}");
    }

    #[test]
    fn ice_warms_up_and_stays() {
        let s = Schedule::default();
        close(s.at(0.0), 3.5e-5);
        close(s.at(5.0), 3.5e-4 * 0.55);
        close(s.at(10.0), 3.5e-4);
        close(s.at(39.0), 3.5e-4);
    }

    #[test]
    fn falls() {
        let decay = |decay| Schedule {
            decay,
            ..Schedule::constant(1.0)
        };
        let multi = decay(Decay::MultiStep {
            milestones: vec![40, 70],
            gamma: 0.1,
        });
        close(multi.at(39.9), 1.0);
        close(multi.at(40.0), 0.1);
        close(multi.at(75.0), 0.01);
        let step = decay(Decay::Step {
            every: 20,
            gamma: 0.1,
        });
        close(step.at(19.0), 1.0);
        close(step.at(59.0), 0.01);
        let cosine = decay(Decay::Cosine {
            epochs: 10,
            floor: 0.2,
        });
        close(cosine.at(0.0), 1.0);
        close(cosine.at(5.0), 0.6);
        close(cosine.at(10.0), 0.2);
        close(cosine.at(15.0), 0.2);
    }

    #[test]
    fn reads_from_toml() {
        let text = "lr = 0.1\nwarmup_epochs = 0\n[decay]\ndecay = \"multi_step\"\nmilestones = [3]\ngamma = 0.5\n";
        let s: Schedule = toml::from_str(text).expect("a schedule");
        close(s.at(3.0), 0.05);
        assert!(toml::from_str::<Schedule>("lrr = 0.1").is_err());
    }
}
