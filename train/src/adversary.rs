//! CANU's adversary: a discriminator that tells cameras by their pictures' features, against which the features are learnt.
//!
//! Delorme et al. 2021, section IV. With `min over the network, max over the discriminator` of `L_ID - mu L_CAM`, both are
//! stepped at once: the discriminator descends on `L_CAM`, and what reaches the network comes through a gradient reversal of
//! weight mu. Conditioned on the centre of a picture's cluster (no gradient through it), it may use what a person looks like, so
//! that a person seen by one camera alone is not blurred to hide that camera.

use anyhow::Result;
use candle_core::{Device, Tensor, Var};
use reid_models::weights::Weights;

use crate::config::{AdversaryConfig, Condition};
use crate::losses::cross_entropy;
use crate::nn::{init, ops};

/// Added to the variance in its batch norms.
const EPS: f64 = 1e-5;

/// Two input branches (the feature's, the condition's), summed; a hidden layer; the cameras. Batch norm (of the batch) and
/// ReLU after all layers but the last, which alone has a bias: a batch norm takes one out again.
pub struct Adversary {
    name: String,
    feature: Layer,
    condition: Option<Layer>,
    hidden: Layer,
    cameras: [Var; 2],
}

/// Linear, batch norm, ReLU.
struct Layer {
    weight: Var,
    norm: [Var; 2],
}

impl Layer {
    fn new(name: &str, seed: u64, [input, output]: [usize; 2], device: &Device) -> Result<Self> {
        Ok(Layer {
            weight: uniform(name, "weight", seed, &[output, input], input, device)?,
            norm: [
                Var::ones(output, candle_core::DType::F32, device)?,
                Var::zeros(output, candle_core::DType::F32, device)?,
            ],
        })
    }

    fn normed(&self, x: &Tensor, relu: bool) -> Result<Tensor> {
        let x = ops::linear(x, self.weight.as_tensor(), None)?;
        Ok(ops::batch_norm(
            &x,
            &self.norm[0],
            &self.norm[1],
            EPS,
            relu,
        )?)
    }

    fn parameters(&self, name: &str) -> Vec<(String, Var)> {
        [
            ("weight", &self.weight),
            ("bn.weight", &self.norm[0]),
            ("bn.bias", &self.norm[1]),
        ]
        .map(|(part, var)| (format!("{name}.{part}"), var.clone()))
        .into()
    }
}

/// A linear layer's weight or bias, uniform within one over the root of its inputs (PyTorch's start).
fn uniform(
    name: &str,
    part: &str,
    seed: u64,
    shape: &[usize],
    inputs: usize,
    device: &Device,
) -> Result<Var> {
    let mut rng = init::stream(seed, &format!("{name}.{part}"));
    let bound = 1.0 / (inputs as f32).sqrt();
    let values = init::uniform(&mut rng, bound, shape.iter().product());
    Ok(Var::from_vec(values, shape, device)?)
}

impl Adversary {
    /// A discriminator of `cameras` cameras for features of `width` and centres of `condition_width`. `None` if it is off.
    ///
    /// # Errors
    /// candle's.
    pub fn new(
        config: &AdversaryConfig,
        name: &str,
        seed: u64,
        [width, condition_width, cameras]: [usize; 3],
        device: &Device,
    ) -> Result<Option<Self>> {
        let hidden = config.hidden;
        let layer = |part: &str, sizes| Layer::new(&format!("{name}.{part}"), seed, sizes, device);
        let condition = match config.condition {
            Condition::Off => return Ok(None),
            Condition::None => None,
            Condition::Centroid => Some(layer("condition", [condition_width, hidden])?),
        };
        let last = |part: &str, shape: &[usize]| {
            let name = format!("{name}.cameras");
            uniform(&name, part, seed, shape, hidden, device)
        };
        Ok(Some(Adversary {
            name: name.to_owned(),
            feature: layer("feature", [width, hidden])?,
            condition,
            hidden: layer("hidden", [hidden, hidden])?,
            cameras: [
                last("weight", &[cameras, hidden])?,
                last("bias", &[cameras])?,
            ],
        }))
    }

    /// `CE(camera)`, batch mean (eq. 8; eq. 5 without condition): its gradient in the discriminator as it is, in the features
    /// times `-mu`. Add it with weight 1.
    ///
    /// Shapes: `features` (B, D); `centres` (B, E), the centre of each picture's cluster; `cameras` B numbers from 0; result ().
    ///
    /// # Errors
    /// If shapes or a camera do not fit.
    pub fn loss(
        &self,
        features: &Tensor,
        centres: Option<&Tensor>,
        cameras: &[u32],
        mu: f64,
    ) -> Result<Tensor> {
        let reversed = ops::gradient_reversal(features, mu)?;
        let mut x = self.feature.normed(&reversed, true)?;
        if let Some(condition) = &self.condition {
            let centres = centres.ok_or_else(|| {
                anyhow::anyhow!("a conditioned adversary wants the centres of the clusters")
            })?;
            x = (x + condition.normed(&centres.detach(), true)?)?;
        }
        let x = self.hidden.normed(&x, true)?;
        let [weight, bias] = &self.cameras;
        let logits = ops::linear(&x, weight.as_tensor(), Some(bias.as_tensor()))?;
        Ok(cross_entropy(&logits, cameras, 0.0)?)
    }

    /// Parameters by name.
    pub fn parameters(&self) -> Vec<(String, Var)> {
        let mut all = self.feature.parameters("feature");
        if let Some(condition) = &self.condition {
            all.extend(condition.parameters("condition"));
        }
        all.extend(self.hidden.parameters("hidden"));
        let [weight, bias] = &self.cameras;
        all.push(("cameras.weight".into(), weight.clone()));
        all.push(("cameras.bias".into(), bias.clone()));
        let named = all.into_iter();
        named
            .map(|(part, var)| (format!("{}.{part}", self.name), var))
            .collect()
    }

    /// Parameters for a checkpoint.
    ///
    /// # Errors
    /// If a tensor cannot be read back.
    pub fn save(&self, weights: &mut Weights) -> Result<()> {
        for (name, var) in self.parameters() {
            let values = var.flatten_all()?.to_vec1()?;
            weights.tensors.insert(name, (var.dims().to_vec(), values));
        }
        Ok(())
    }

    /// Takes parameters over from a checkpoint.
    ///
    /// # Errors
    /// If one is missing or has another shape.
    pub fn load(&self, weights: &Weights) -> Result<()> {
        for (name, var) in self.parameters() {
            match weights.tensors.get(&name) {
                Some((shape, values)) if shape.as_slice() == var.dims() => {
                    var.set(&Tensor::from_slice(values, shape.as_slice(), var.device())?)?;
                }
                _ => anyhow::bail!(
                    "the checkpoint has no fitting `{name}`: it belongs to another configuration"
                ),
            }
        }
        Ok(())
    }
}
