//! A transformer's operators in ONNX.

use super::{Writer, float, int, ints};
use crate::ExportError;
use crate::fold::FoldedOp;

impl Writer<'_> {
    /// Writes an operator of tokens (N, T, D).
    pub(super) fn token_node(
        &mut self,
        name: &str,
        op: &FoldedOp,
        mut inputs: Vec<String>,
        output: String,
    ) -> Result<(), ExportError> {
        let x = inputs[0].clone();
        match op {
            FoldedOp::Tokens { width, addend } => {
                let shape = self.integers(&format!("{name}.shape"), &[0, *width as i64, -1]);
                let cells = self.step(name, "Reshape", vec![x, shape]);
                let cells = self.transpose(name, cells, &[0, 2, 1]);
                // A place for the class token, which is zero until the addend comes.
                let before = self.integers(&format!("{name}.pads"), &[0, 1, 0, 0, 0, 0]);
                let all = self.step(name, "Pad", vec![cells, before]);
                let shape = [1, addend.len() / width, *width];
                let addend = self.weight(&format!("{name}.addend"), &shape, addend)?;
                self.push(name, "Add", vec![all, addend], output, vec![]);
            }
            FoldedOp::FirstToken => {
                for (what, value) in [("starts", 0), ("ends", 1), ("axes", 1)] {
                    inputs.push(self.integers(&format!("{name}.{what}"), &[value]));
                }
                let first = self.step(name, "Slice", inputs);
                self.flatten(name, first, output);
            }
            FoldedOp::LayerNorm { weight, bias, eps } => {
                let shape = [weight.len()];
                inputs.push(self.weight(&format!("{name}.weight"), &shape, weight)?);
                inputs.push(self.weight(&format!("{name}.bias"), &shape, bias)?);
                let attributes = vec![int("axis", -1), float("epsilon", *eps)];
                self.push(name, "LayerNormalization", inputs, output, attributes);
            }
            FoldedOp::TokenLinear {
                shape: [outputs, width],
                weight,
                bias,
            } => {
                let turned: Vec<f32> = (0..weight.len())
                    .map(|i| weight[(i % outputs) * width + i / outputs])
                    .collect();
                let shape = [*width, *outputs];
                let weight = self.weight(&format!("{name}.weight"), &shape, &turned)?;
                let Some(bias) = bias else {
                    self.push(name, "MatMul", vec![x, weight], output, vec![]);
                    return Ok(());
                };
                let product = self.step(name, "MatMul", vec![x, weight]);
                let bias = self.weight(&format!("{name}.bias"), &[*outputs], bias)?;
                self.push(name, "Add", vec![product, bias], output, vec![]);
            }
            FoldedOp::Gelu => {
                // Opset 20 has an operator for it; this is what it stands for, for all.
                let number = |w: &mut Self, what: &str, value: f32| {
                    w.weight(&format!("{name}.{what}"), &[], &[value])
                };
                let root = number(self, "root", std::f32::consts::SQRT_2)?;
                let one = number(self, "one", 1.0)?;
                let half = number(self, "half", 0.5)?;
                let share = self.step(name, "Div", vec![x.clone(), root]);
                let share = self.step(name, "Erf", vec![share]);
                let share = self.step(name, "Add", vec![share, one]);
                let twice = self.step(name, "Mul", vec![x, share]);
                self.push(name, "Mul", vec![twice, half], output, vec![]);
            }
            FoldedOp::Attention {
                heads,
                tokens,
                width,
            } => {
                let each = width / 3 / heads;
                let split = [0, *tokens as i64, *heads as i64, each as i64];
                let split = self.integers(&format!("{name}.split"), &split);
                let mut parts = Vec::with_capacity(3);
                for (i, what) in ["q", "k", "v"].into_iter().enumerate() {
                    let part = format!("{name}.{what}");
                    let mut slice = vec![x.clone()];
                    let start = i * width / 3;
                    let bounds = [("starts", start), ("ends", start + width / 3), ("axes", 2)];
                    for (bound, value) in bounds {
                        slice.push(self.integers(&format!("{part}.{bound}"), &[value as i64]));
                    }
                    let own = self.step(&part, "Slice", slice);
                    let own = self.step(&part, "Reshape", vec![own, split.clone()]);
                    // Keys lie as their transpose.
                    let order = if what == "k" {
                        [0, 2, 3, 1]
                    } else {
                        [0, 2, 1, 3]
                    };
                    parts.push(self.transpose(&part, own, &order));
                }
                let product = vec![parts[0].clone(), parts[1].clone()];
                let logits = self.step(&format!("{name}.logits"), "MatMul", product);
                let root = self.weight(&format!("{name}.root"), &[], &[(each as f32).sqrt()])?;
                let logits = self.step(name, "Div", vec![logits, root]);
                let shares = format!("{name}.Softmax");
                let last = vec![int("axis", -1)];
                self.push(&shares, "Softmax", vec![logits], shares.clone(), last);
                let product = vec![shares, parts[2].clone()];
                let y = self.step(&format!("{name}.values"), "MatMul", product);
                let y = self.transpose(name, y, &[0, 2, 1, 3]);
                let joined = [0, *tokens as i64, (width / 3) as i64];
                let joined = self.integers(&format!("{name}.joined"), &joined);
                self.push(name, "Reshape", vec![y, joined], output, vec![]);
            }
            _ => unreachable!("the others are written by their own"),
        }
        Ok(())
    }

    fn transpose(&mut self, name: &str, x: String, order: &[usize]) -> String {
        let tensor = format!("{name}.Transpose");
        let attributes = vec![ints("perm", order)];
        self.push(&tensor, "Transpose", vec![x], tensor.clone(), attributes);
        tensor
    }
}
