//! A training step with candle's and candle-nn's own operators: what the engine would be without ours.

use std::time::Instant;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use candle_nn::{
    AdamW, BatchNorm, Conv2d, Conv2dConfig, ModuleT, Optimizer, ParamsAdamW, VarBuilder, VarMap,
};

/// A convolution and its batch norm.
struct ConvNorm {
    conv: Conv2d,
    norm: BatchNorm,
}

impl ConvNorm {
    fn new(
        [from, to, kernel, stride]: [usize; 4],
        vars: &VarBuilder,
        name: &str,
    ) -> candle_core::Result<Self> {
        let config = Conv2dConfig {
            padding: kernel / 2,
            stride,
            ..Default::default()
        };
        let vars = vars.pp(name);
        Ok(ConvNorm {
            conv: candle_nn::conv2d_no_bias(from, to, kernel, config, vars.pp("conv"))?,
            norm: candle_nn::batch_norm(to, 1e-5, vars.pp("norm"))?,
        })
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let y = candle_core::Module::forward(&self.conv, x)?;
        self.norm.forward_t(&y.contiguous()?, true)?.contiguous()
    }
}

/// A residual block: its convolutions, and the shortcut's where sizes change.
struct Block {
    convs: Vec<ConvNorm>,
    shortcut: Option<ConvNorm>,
}

/// A ResNet without its classifier. Its stem pools 2x2: candle has no gradient for the published 3x3 pool with stride 2.
struct Resnet {
    stem: ConvNorm,
    blocks: Vec<Block>,
}

impl Resnet {
    fn new(
        width: usize,
        counts: [usize; 4],
        bottleneck: bool,
        last_stride: usize,
        vars: &VarBuilder,
    ) -> candle_core::Result<Self> {
        let stem = ConvNorm::new([3, width, 7, 2], vars, "stem")?;
        let mut blocks = Vec::new();
        let mut from = width;
        for (stage, count) in counts.into_iter().enumerate() {
            let planes = width << stage;
            let to = if bottleneck { 4 * planes } else { planes };
            for number in 0..count {
                let stride = match (number, stage) {
                    (0, 1 | 2) => 2,
                    (0, 3) => last_stride,
                    _ => 1,
                };
                let vars = vars.pp(format!("stage{stage}.{number}"));
                let sizes: &[[usize; 4]] = if bottleneck {
                    &[
                        [from, planes, 1, 1],
                        [planes, planes, 3, stride],
                        [planes, to, 1, 1],
                    ]
                } else {
                    &[[from, planes, 3, stride], [planes, planes, 3, 1]]
                };
                let convs = sizes
                    .iter()
                    .enumerate()
                    .map(|(i, size)| ConvNorm::new(*size, &vars, &i.to_string()))
                    .collect::<candle_core::Result<_>>()?;
                let shortcut = (stride != 1 || from != to)
                    .then(|| ConvNorm::new([from, to, 1, stride], &vars, "shortcut"))
                    .transpose()?;
                blocks.push(Block { convs, shortcut });
                from = to;
            }
        }
        Ok(Resnet { stem, blocks })
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let mut x = self.stem.forward(x)?.relu()?.max_pool2d(2)?;
        for block in &self.blocks {
            let mut y = x.clone();
            for (i, conv) in block.convs.iter().enumerate() {
                y = conv.forward(&y)?;
                if i + 1 < block.convs.len() {
                    y = y.relu()?;
                }
            }
            let shortcut = match &block.shortcut {
                Some(conv) => conv.forward(&x)?,
                None => x,
            };
            x = (y + shortcut)?.relu()?;
        }
        x.mean(3)?.mean(2)
    }
}

/// Images per second of forward, backward and AdamW.
///
/// # Errors
/// If candle fails.
pub fn step(resnet50: bool, seconds: f64) -> Result<f64> {
    let vars = VarMap::new();
    let build = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
    let (batch, height, width, net) = if resnet50 {
        let net = Resnet::new(64, [3, 4, 6, 3], true, 2, &build)?;
        (8, 256, 128, net)
    } else {
        let net = Resnet::new(16, [2, 2, 2, 2], false, 1, &build)?;
        (32, 128, 64, net)
    };
    let images = Tensor::rand(0f32, 1.0, (batch, 3, height, width), &Device::Cpu)?;
    let mut adam = AdamW::new(vars.all_vars(), ParamsAdamW::default())?;
    let mut one = || -> Result<()> {
        let loss = net.forward(&images)?.sqr()?.mean_all()?;
        adam.backward_step(&loss)?;
        Ok(())
    };
    one()?;
    let (start, mut done) = (Instant::now(), 0);
    while start.elapsed().as_secs_f64() < seconds {
        one()?;
        done += 1;
    }
    Ok((done * batch) as f64 / start.elapsed().as_secs_f64())
}
