//! Steps of optimisers and moving averages: one launch for all parameters, from a table of addresses.

use candle_core::{DType, Result, Tensor, bail};

use super::launch::int;
use super::{Arg, Gpu};
use crate::nn::kernels::{AdamItem, AdamRates, SgdItem, SgdRates};

/// Blocks that share the work on one parameter.
const BLOCKS: usize = 32;

/// A line of the table, `struct Item` of `update.cu`.
#[derive(Clone, Copy, Default)]
struct Item {
    /// Parameter, gradient, three moments.
    pointers: [u64; 5],
    len: u64,
    /// Rate, correction (Adam) or share (SGD), decay, keep.
    rates: [f32; 4],
}

impl Item {
    /// As 16 words of 32 bits, the low half of an address first.
    fn words(&self) -> [u32; 16] {
        let mut words = [0; 16];
        let wide = self.pointers.iter().chain([&self.len]);
        for (pair, value) in words.chunks_exact_mut(2).zip(wide) {
            pair[0] = *value as u32;
            pair[1] = (*value >> 32) as u32;
        }
        for (word, rate) in words[12..].iter_mut().zip(self.rates) {
            *word = rate.to_bits();
        }
        words
    }
}

impl Gpu {
    fn item(&self, tensors: [Option<&Tensor>; 5], rates: [f32; 4]) -> Result<Item> {
        let mut item = Item {
            rates,
            ..Default::default()
        };
        let mut len = None;
        for (pointer, t) in item.pointers.iter_mut().zip(tensors) {
            let Some(t) = t else { continue };
            if t.dtype() != DType::F32 || len.is_some_and(|len| len != t.elem_count()) {
                bail!(
                    "an update takes f32 tensors of one size, got {:?} {:?}",
                    t.dtype(),
                    t.shape()
                );
            }
            len = Some(t.elem_count());
            *pointer = self.driver.address(t)?;
        }
        item.len = len.unwrap_or(0) as u64;
        Ok(item)
    }

    fn table(&self, items: &[Item]) -> Result<Tensor> {
        let words: Vec<u32> = items.iter().flat_map(Item::words).collect();
        let count = words.len();
        Tensor::from_vec(words, count, self.device())
    }

    fn update(&self, kernel: &str, items: &[Item], more: &[Arg]) -> Result<()> {
        let table = self.table(items)?;
        let args = [&[self.pointer(&table)?], more].concat();
        self.run("update", kernel, [BLOCKS, items.len(), 1], &args)
    }

    pub(super) fn sums_of_squares(&self, tensors: &[&Tensor]) -> Result<Tensor> {
        let items = tensors
            .iter()
            .map(|t| self.item([None, Some(t), None, None, None], [0.0; 4]))
            .collect::<Result<Vec<_>>>()?;
        let part = self.empty((items.len(), BLOCKS), DType::F64)?;
        self.update("sums_of_squares", &items, &[self.pointer(&part)?])?;
        let sums = self.empty(items.len(), DType::F64)?;
        self.run(
            "update",
            "sums_of_squares_end",
            super::launch::blocks(items.len()),
            &[
                self.pointer(&part)?,
                int(BLOCKS)?,
                self.pointer(&sums)?,
                int(items.len())?,
            ],
        )?;
        Ok(sums)
    }

    /// The factor on all gradients, or NaN if their norm isn't finite, where the step's kernel will look for it.
    fn control(&self, squares: &Tensor, clip: Option<f64>) -> Result<Tensor> {
        let control = self.empty(1, DType::F32)?;
        self.run(
            "update",
            "clip_scale",
            [1, 1, 1],
            &[
                self.pointer(squares)?,
                int(squares.elem_count())?,
                Arg::F64(clip.unwrap_or(0.0)),
                self.pointer(&control)?,
            ],
        )?;
        Ok(control)
    }

    pub(super) fn step_adam(
        &self,
        items: &[AdamItem],
        rates: AdamRates,
        squares: &Tensor,
        clip: Option<f64>,
    ) -> Result<()> {
        let control = self.control(squares, clip)?;
        let amsgrad = items.iter().any(|i| i.top.is_some());
        let lines = items
            .iter()
            .map(|i| {
                if i.top.is_some() != amsgrad {
                    bail!("all parameters of a step have AMSGrad's third moment, or none");
                }
                self.item(
                    [
                        Some(i.param),
                        Some(i.grad),
                        Some(i.mean),
                        Some(i.square),
                        i.top,
                    ],
                    [i.rate, i.inv_sqrt_correction, i.decay, i.keep],
                )
            })
            .collect::<Result<Vec<_>>>()?;
        let more = [
            self.pointer(&control)?,
            Arg::F32(rates.beta1),
            Arg::F32(rates.beta2),
            Arg::F32(rates.eps),
            Arg::I32(amsgrad.into()),
        ];
        self.update("adam", &lines, &more)
    }

    pub(super) fn step_sgd(
        &self,
        items: &[SgdItem],
        rates: SgdRates,
        squares: &Tensor,
        clip: Option<f64>,
    ) -> Result<()> {
        let control = self.control(squares, clip)?;
        let lines = items
            .iter()
            .map(|i| {
                self.item(
                    [Some(i.param), Some(i.grad), Some(i.velocity), None, None],
                    [i.lr, i.share, i.decay, 1.0],
                )
            })
            .collect::<Result<Vec<_>>>()?;
        let more = [
            self.pointer(&control)?,
            Arg::F32(rates.momentum),
            Arg::I32(rates.nesterov.into()),
        ];
        self.update("sgd", &lines, &more)
    }

    pub(super) fn move_averages(&self, pairs: &[(&Tensor, &Tensor)], alpha: f32) -> Result<()> {
        let lines = pairs
            .iter()
            .map(|(own, from)| self.item([Some(own), Some(from), None, None, None], [0.0; 4]))
            .collect::<Result<Vec<_>>>()?;
        self.update("ema", &lines, &[Arg::F32(alpha)])
    }
}

#[cfg(test)]
mod tests {
    use super::Item;

    #[test]
    fn a_line_is_laid_out_as_the_kernel_reads_it() {
        let item = Item {
            pointers: [0x1_0000_0002, 3, 4, 5, 6],
            len: 7,
            rates: [1.0, 2.0, 3.0, 4.0],
        };
        let bytes: Vec<u8> = item.words().iter().flat_map(|w| w.to_le_bytes()).collect();
        assert_eq!(bytes.len(), 64);
        assert_eq!(bytes[..8], 0x1_0000_0002u64.to_le_bytes());
        assert_eq!(bytes[40..48], 7i64.to_le_bytes());
        assert_eq!(bytes[48..52], 1f32.to_le_bytes());
        assert_eq!(bytes[60..], 4f32.to_le_bytes());
    }
}
