//! ResNet-18 and ResNet-50 (He et al. 2016) of any width, with torchvision's parameter names; with IBN-Net's norms or squeeze and
//! excitation, if asked for.

use super::{Backbone, BackboneConfig};
use crate::Graph;
use crate::graph::{FEATURE_MAP, Init, ParamKind};
use crate::heads::{bnneck, pooling};
use crate::ops::Op;

/// Builds backbone, pooling and BN-neck. Ranges are checked by [`BackboneConfig::build`].
pub(super) fn build(config: &BackboneConfig) -> Graph {
    let mut trunk = Trunk::stem(config);
    (0..4).for_each(|stage| trunk.stage(stage));
    let (mut graph, map, channels) = trunk.into_parts();
    graph.outputs.insert(FEATURE_MAP.into(), map.clone());
    let pooled = pooling::append(&mut graph, &map, config.pooling);
    bnneck::append(&mut graph, &pooled, channels);
    graph
}

/// A network under construction, up to some layer.
pub struct Trunk<'a> {
    config: &'a BackboneConfig,
    graph: Graph,
    /// The newest tensor and its channels.
    at: (String, usize),
    blocks: [usize; 4],
    expansion: usize,
    /// Before the names of what comes.
    prefix: String,
}

impl<'a> Trunk<'a> {
    /// The stem.
    pub fn stem(config: &'a BackboneConfig) -> Self {
        let (name, blocks, expansion) = match config.backbone {
            Backbone::Resnet18 => ("resnet18", [2, 2, 2, 2], 1),
            Backbone::Resnet50 => ("resnet50", [3, 4, 6, 3], 4),
            Backbone::Resnet50IbnA => ("resnet50_ibn_a", [3, 4, 6, 3], 4),
            Backbone::Resnet18IbnA => ("resnet18_ibn_a", [2, 2, 2, 2], 1),
            Backbone::SeResnet18 => ("se_resnet18", [2, 2, 2, 2], 1),
            Backbone::SeResnet50 => ("se_resnet50", [3, 4, 6, 3], 4),
            Backbone::VitSmall16 => unreachable!("BackboneConfig asks for stages first"),
        };
        let mut graph = Graph::new(name, [3, config.height, config.input_width]);
        let input = graph.input.clone();
        let x = conv_bn(&mut graph, &input, "conv1", "bn1", 3, config.width, 7, 2);
        let x = graph.push("relu", Op::Relu, &[&x], &[]);
        let pool = Op::MaxPool2d {
            kernel: [3, 3],
            stride: [2, 2],
            padding: [1, 1],
        };
        let x = graph.push("maxpool", pool, &[&x], &[]);
        Trunk {
            config,
            graph,
            at: (x, config.width),
            blocks,
            expansion,
            prefix: String::new(),
        }
    }

    /// Blocks in stage `stage`, from 0.
    pub fn blocks(&self, stage: usize) -> usize {
        self.blocks[stage]
    }

    /// Where a branch can begin: the newest tensor and its channels.
    pub fn fork(&self) -> (String, usize) {
        self.at.clone()
    }

    /// Goes on at `at` with `prefix` before the names of layers: a copy of layers of its own.
    pub fn branch(&mut self, at: &(String, usize), prefix: &str) {
        self.at = at.clone();
        self.prefix = prefix.to_owned();
    }

    /// A whole stage, from 0: torchvision's `layer1` to `layer4`.
    pub fn stage(&mut self, stage: usize) {
        (0..self.blocks[stage]).for_each(|block| self.block(stage, block));
    }

    /// One block of a stage.
    pub fn block(&mut self, stage: usize, block: usize) {
        let first_stride = match stage {
            0 => 1,
            3 => self.config.last_stride,
            _ => 2,
        };
        let stride = if block == 0 { first_stride } else { 1 };
        let norm = match self.config.backbone {
            Backbone::Resnet50IbnA | Backbone::Resnet18IbnA if stage < 3 => Norm::InstanceBatch,
            _ => Norm::Batch,
        };
        let name = format!("{}layer{}.{block}", self.prefix, stage + 1);
        self.residual(&name, self.config.width << stage, stride, norm);
    }

    /// A further block as those of the last stage, with names after `name`.
    pub fn extra_block(&mut self, name: &str) {
        let name = format!("{}{name}", self.prefix);
        self.residual(&name, self.config.width << 3, 1, Norm::Batch);
    }

    fn residual(&mut self, name: &str, planes: usize, stride: usize, norm: Norm) {
        let (input, channels) = &self.at;
        let sizes = [*channels, planes, stride, self.expansion];
        let excite = matches!(
            self.config.backbone,
            Backbone::SeResnet18 | Backbone::SeResnet50
        );
        let x = residual(&mut self.graph, input, name, sizes, norm, excite);
        self.at = (x, planes * self.expansion);
    }

    /// The network, its newest tensor and that one's channels.
    pub fn into_parts(self) -> (Graph, String, usize) {
        (self.graph, self.at.0, self.at.1)
    }
}

/// What normalises the first convolution of a block.
#[derive(Clone, Copy, PartialEq)]
enum Norm {
    Batch,
    InstanceBatch,
}

/// A basic block (expansion 1) or bottleneck (expansion 4): `relu(f(x) + shortcut(x))`. With `excite` the channels of `f(x)` are
/// weighed first.
fn residual(
    graph: &mut Graph,
    input: &str,
    prefix: &str,
    [channels, planes, stride, expansion]: [usize; 4],
    norm: Norm,
    excite: bool,
) -> String {
    let name = |part: &str| format!("{prefix}.{part}");
    // (kernel, stride, output channels); torchvision puts the bottleneck's stride on the 3x3 ("v1.5").
    let convs: &[(usize, usize, usize)] = if expansion == 1 {
        &[(3, stride, planes), (3, 1, planes)]
    } else {
        &[
            (1, 1, planes),
            (3, stride, planes),
            (1, 1, planes * expansion),
        ]
    };
    let mut x = input.to_string();
    let mut c = channels;
    for (i, &(kernel, stride, out)) in convs.iter().enumerate() {
        let (conv, bn) = (
            name(&format!("conv{}", i + 1)),
            name(&format!("bn{}", i + 1)),
        );
        x = conv2d(graph, &x, &conv, c, out, kernel, stride);
        x = match norm {
            Norm::InstanceBatch if i == 0 => instance_batch_norm(graph, &x, &bn, out),
            _ => batch_norm(graph, &x, &bn, out),
        };
        if i + 1 < convs.len() {
            x = graph.push(name(&format!("relu{}", i + 1)), Op::Relu, &[&x], &[]);
        }
        c = out;
    }
    if excite {
        x = squeeze_excite(graph, &x, &name("se"), c);
    }
    let shortcut = if stride != 1 || channels != c {
        conv_bn(
            graph,
            input,
            &name("downsample.0"),
            &name("downsample.1"),
            channels,
            c,
            1,
            stride,
        )
    } else {
        input.to_string()
    };
    let sum = graph.push(name("add"), Op::Add, &[&x, &shortcut], &[]);
    graph.push(name("relu"), Op::Relu, &[&sum], &[])
}

/// Times a factor per channel, learnt from the means of all (Hu et al. 2018, eq. 3). Names and widths are timm's: a sixteenth,
/// rounded to a multiple of 8.
fn squeeze_excite(graph: &mut Graph, map: &str, name: &str, channels: usize) -> String {
    let hidden = ((channels / 16 + 4) / 8 * 8).max(8);
    let linear = |graph: &mut Graph, x: &str, part: &str, sizes| {
        let name = format!("{name}.{part}");
        super::linear(graph, x, &name, sizes, Init::KaimingNormalFanOut)
    };
    let means = graph.push(format!("{name}.means"), Op::GlobalAvgPool, &[map], &[]);
    let x = linear(graph, &means, "fc1", [channels, hidden]);
    let x = graph.push(format!("{name}.relu"), Op::Relu, &[&x], &[]);
    let x = linear(graph, &x, "fc2", [hidden, channels]);
    let x = graph.push(format!("{name}.sigmoid"), Op::Sigmoid, &[&x], &[]);
    graph.push(name, Op::Scale, &[map, &x], &[])
}

/// Convolution without bias, padded to keep the size at stride 1, then batch norm.
fn conv_bn(
    graph: &mut Graph,
    input: &str,
    conv: &str,
    bn: &str,
    channels: usize,
    out: usize,
    kernel: usize,
    stride: usize,
) -> String {
    let x = conv2d(graph, input, conv, channels, out, kernel, stride);
    batch_norm(graph, &x, bn, out)
}

fn conv2d(
    graph: &mut Graph,
    input: &str,
    name: &str,
    channels: usize,
    out: usize,
    kernel: usize,
    stride: usize,
) -> String {
    let shape = [out, channels, kernel, kernel];
    let weight = graph.param(
        format!("{name}.weight"),
        &shape,
        ParamKind::Trainable,
        Init::KaimingNormalFanOut,
    );
    let op = Op::Conv2d {
        out_channels: out,
        kernel: [kernel; 2],
        stride: [stride; 2],
        padding: [kernel / 2; 2],
        dilation: [1, 1],
        groups: 1,
        bias: false,
    };
    graph.push(name, op, &[input], &[&weight])
}

const EPS: f64 = 1e-5;

pub(crate) fn batch_norm(graph: &mut Graph, input: &str, name: &str, channels: usize) -> String {
    let mut params = affine_params(graph, name, channels);
    for (buffer, value) in [("running_mean", 0.0), ("running_var", 1.0)] {
        params.push(graph.param(
            format!("{name}.{buffer}"),
            &[channels],
            ParamKind::Buffer,
            Init::Constant { value },
        ));
    }
    let names: Vec<&str> = params.iter().map(String::as_str).collect();
    let op = Op::BatchNorm {
        eps: EPS,
        momentum: 0.1,
    };
    graph.push(name, op, &[input], &names)
}

/// Weight and bias of a norm.
fn affine_params(graph: &mut Graph, name: &str, channels: usize) -> Vec<String> {
    [("weight", 1.0), ("bias", 0.0)]
        .map(|(part, value)| {
            graph.param(
                format!("{name}.{part}"),
                &[channels],
                ParamKind::Trainable,
                Init::Constant { value },
            )
        })
        .into()
}

/// Instance norm of the first half of the channels, batch norm of the rest (Pan et al. 2018, figure 2a).
fn instance_batch_norm(graph: &mut Graph, input: &str, name: &str, channels: usize) -> String {
    let half = channels / 2;
    let part = |start, len| Op::Narrow {
        axis: 0,
        start,
        len,
    };
    let first = graph.push(format!("{name}.first"), part(0, half), &[input], &[]);
    let params = affine_params(graph, &format!("{name}.IN"), half);
    let names: Vec<&str> = params.iter().map(String::as_str).collect();
    let op = Op::InstanceNorm { eps: EPS };
    let first = graph.push(format!("{name}.IN"), op, &[&first], &names);
    let rest = part(half, channels - half);
    let rest = graph.push(format!("{name}.rest"), rest, &[input], &[]);
    let rest = batch_norm(graph, &rest, &format!("{name}.BN"), channels - half);
    graph.push(name, Op::Concat { axis: 0 }, &[&first, &rest], &[])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::graph::{EMBEDDING, GraphError};

    #[test]
    fn resnet50_has_torchvisions_parameters() {
        let graph = BackboneConfig::default().build().unwrap();
        // torchvision: 25,557,032 less the 1000-way classifier (2,049,000), plus the neck's weight.
        assert_eq!(graph.trainable_elements(), 25_557_032 - 2_049_000 + 2048);
        let shapes = graph.shapes().unwrap();
        assert_eq!(shapes[graph.output(FEATURE_MAP).unwrap()], [2048, 16, 8]);
        assert_eq!(graph.width(EMBEDDING).unwrap(), 2048);
        assert!(
            graph
                .params
                .iter()
                .any(|p| p.name == "layer4.2.bn3.running_var")
        );
    }

    #[test]
    fn ibn_has_the_published_names_and_count() {
        let plain = BackboneConfig::default().build().unwrap();
        let config = BackboneConfig {
            backbone: Backbone::Resnet50IbnA,
            ..Default::default()
        };
        let graph = config.build().unwrap();
        // IBN-Net-a changes what normalises, not how many parameters learn.
        assert_eq!(graph.trainable_elements(), plain.trainable_elements());
        let shapes = graph.shapes().unwrap();
        assert_eq!(shapes[graph.output(FEATURE_MAP).unwrap()], [2048, 16, 8]);
        let of = |name: &str| graph.params.iter().find(|p| p.name == name);
        assert_eq!(of("layer1.0.bn1.IN.weight").unwrap().shape, [32]);
        assert_eq!(of("layer3.5.bn1.BN.running_var").unwrap().shape, [128]);
        assert!(of("layer4.0.bn1.weight").is_some() && of("layer4.0.bn1.IN.weight").is_none());
    }

    #[test]
    fn resnet18_of_any_width() {
        let config = BackboneConfig {
            backbone: Backbone::Resnet18,
            width: 16,
            height: 128,
            input_width: 64,
            ..Default::default()
        };
        let graph = config.build().unwrap();
        assert_eq!(
            graph.shapes().unwrap()[graph.output(FEATURE_MAP).unwrap()],
            [128, 8, 4]
        );
        let full = BackboneConfig {
            backbone: Backbone::Resnet18,
            ..Default::default()
        }
        .build()
        .unwrap();
        assert_eq!(full.trainable_elements(), 11_689_512 - 513_000 + 512);
    }

    #[test]
    fn survives_json_and_refuses_a_broken_graph() {
        let graph = BackboneConfig {
            width: 8,
            ..Default::default()
        }
        .build()
        .unwrap();
        assert_eq!(Graph::from_json(&graph.to_json().unwrap()).unwrap(), graph);
        let mut broken = graph.clone();
        broken.nodes[3].inputs[0] = "nowhere".into();
        assert!(matches!(
            broken.shapes(),
            Err(GraphError::UnknownTensor { .. })
        ));
        let mut twice = graph.clone();
        twice.nodes[2].name = twice.nodes[0].name.clone();
        assert!(twice.shapes().is_err());
        let mut other = graph;
        other.version = 99;
        assert!(other.shapes().unwrap_err().to_string().contains("99"));
    }

    #[test]
    fn a_width_out_of_range_names_its_key() {
        let err = BackboneConfig {
            width: 0,
            ..Default::default()
        }
        .build()
        .unwrap_err();
        assert_eq!(
            err.to_string(),
            "model.width must be between 4 and 512, got 0"
        );
    }
}
