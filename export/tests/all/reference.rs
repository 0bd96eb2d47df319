//! A slow, obvious executor of a graph: no folding, no ONNX, one picture at a time.

use std::collections::BTreeMap;

use reid_models::Graph;
use reid_models::distance;
use reid_models::graph::Node;
use reid_models::ops::Op;
use reid_models::weights::Weights;

/// A tensor of one picture.
struct Value {
    shape: Vec<usize>,
    data: Vec<f32>,
}

/// What tensor `wanted` is for one picture `image` (C, H, W).
pub(crate) fn run(graph: &Graph, weights: &Weights, image: &[f32], wanted: &str) -> Vec<f32> {
    let shapes = graph.shapes().unwrap();
    let input = Value {
        shape: graph.input_shape.to_vec(),
        data: image.to_vec(),
    };
    assert_eq!(input.data.len(), input.shape.iter().product::<usize>());
    let mut values = BTreeMap::from([(graph.input.as_str(), input)]);
    for node in &graph.nodes {
        let inputs: Vec<&Value> = node.inputs.iter().map(|n| &values[n.as_str()]).collect();
        let shape = shapes[&node.name].clone();
        let data = apply(node, weights, &inputs, &shape);
        assert_eq!(data.len(), shape.iter().product::<usize>(), "{}", node.name);
        values.insert(&node.name, Value { shape, data });
    }
    values.remove(wanted).unwrap().data
}

fn apply(node: &Node, weights: &Weights, inputs: &[&Value], shape: &[usize]) -> Vec<f32> {
    let x = inputs[0];
    let param = |i: usize| weights.tensors[&node.params[i]].1.as_slice();
    let plane = |v: &Value| v.data.len() / v.shape[0];
    let per_channel = |f: &dyn Fn(&[f32]) -> f32| x.data.chunks_exact(plane(x)).map(f).collect();
    match &node.op {
        Op::Conv2d {
            kernel,
            stride,
            padding,
            dilation,
            groups,
            bias,
            ..
        } => {
            let bias = if *bias { param(1) } else { &[] };
            conv(
                x,
                param(0),
                bias,
                [kernel, stride, padding, dilation],
                *groups,
                shape,
            )
        }
        Op::BatchNorm { eps, .. } => {
            let (weight, bias, mean, var) = (param(0), param(1), param(2), param(3));
            let n = plane(x);
            x.data
                .iter()
                .enumerate()
                .map(|(i, &v)| {
                    let c = i / n;
                    let normal =
                        (f64::from(v) - f64::from(mean[c])) / (f64::from(var[c]) + eps).sqrt();
                    (normal * f64::from(weight[c]) + f64::from(bias[c])) as f32
                })
                .collect()
        }
        Op::InstanceNorm { eps } => {
            let n = plane(x);
            let planes = x.data.chunks_exact(n).enumerate();
            planes
                .flat_map(|(c, values)| {
                    let m = f64::from(mean(values));
                    let deviations: f64 = values.iter().map(|v| (f64::from(*v) - m).powi(2)).sum();
                    let std = (deviations / n as f64 + eps).sqrt();
                    let (w, b) = (f64::from(param(0)[c]), f64::from(param(1)[c]));
                    let normal = move |v: &f32| ((f64::from(*v) - m) / std * w + b) as f32;
                    values.iter().map(normal).collect::<Vec<f32>>()
                })
                .collect()
        }
        Op::Narrow { axis, start, len } => {
            let inner: usize = x.shape[axis + 1..].iter().product();
            let taken = start * inner..(start + len) * inner;
            let outer = x.data.chunks_exact(x.shape[*axis] * inner);
            outer
                .flat_map(|part| part[taken.clone()].to_vec())
                .collect()
        }
        Op::Concat { axis } => {
            let length = |v: &Value| v.shape[*axis..].iter().product::<usize>();
            let (a, b) = (x, inputs[1]);
            let pairs = a
                .data
                .chunks_exact(length(a))
                .zip(b.data.chunks_exact(length(b)));
            pairs.flat_map(|(a, b)| [a, b].concat()).collect()
        }
        Op::Relu => x.data.iter().map(|v| v.max(0.0)).collect(),
        Op::Add => x
            .data
            .iter()
            .zip(&inputs[1].data)
            .map(|(a, b)| a + b)
            .collect(),
        Op::MaxPool2d {
            kernel,
            stride,
            padding,
        } => {
            let mut out = Vec::new();
            for c in 0..shape[0] {
                for y in 0..shape[1] {
                    for x0 in 0..shape[2] {
                        let mut best = f32::NEG_INFINITY;
                        for ky in 0..kernel[0] {
                            for kx in 0..kernel[1] {
                                let (iy, ix) = (y * stride[0] + ky, x0 * stride[1] + kx);
                                if let Some(v) = at(x, c, iy, ix, padding) {
                                    best = best.max(v);
                                }
                            }
                        }
                        out.push(best);
                    }
                }
            }
            out
        }
        Op::GlobalAvgPool => per_channel(&mean),
        Op::GlobalMaxPool => per_channel(&|p| p.iter().copied().fold(f32::NEG_INFINITY, f32::max)),
        Op::GemPool { eps } => {
            let p = param(0)[0];
            per_channel(&|plane| {
                let raised: Vec<f32> = plane.iter().map(|v| v.max(*eps as f32).powf(p)).collect();
                mean(&raised).powf(1.0 / p)
            })
        }
        Op::Linear { bias, .. } => {
            let width = *x.shape.last().unwrap();
            let of = |token: &[f32]| -> Vec<f32> {
                let rows = param(0).chunks_exact(width).enumerate();
                rows.map(|(o, row)| {
                    distance::dot(row, token) + if *bias { param(1)[o] } else { 0.0 }
                })
                .collect()
            };
            x.data.chunks_exact(width).flat_map(of).collect()
        }
        Op::L2Normalize { eps } => {
            let norm = x
                .data
                .iter()
                .map(|v| v * v)
                .sum::<f32>()
                .sqrt()
                .max(*eps as f32);
            x.data.iter().map(|v| v / norm).collect()
        }
        Op::Sigmoid => x.data.iter().map(|v| 1.0 / (1.0 + (-v).exp())).collect(),
        Op::Scale => {
            let planes = x.data.chunks_exact(plane(x)).zip(&inputs[1].data);
            planes
                .flat_map(|(values, factor)| values.iter().map(move |v| v * factor))
                .collect()
        }
        Op::Tokens => {
            let cells = plane(x);
            let cell = |t: usize, c: usize| match t {
                0 => param(0)[c],
                _ => x.data[c * cells + t - 1],
            };
            let width = shape[1];
            let places = param(1).iter().enumerate();
            places
                .map(|(i, place)| cell(i / width, i % width) + place)
                .collect()
        }
        Op::FirstToken => x.data[..shape[0]].to_vec(),
        Op::LayerNorm { eps } => {
            let tokens = x.data.chunks_exact(shape[1]);
            tokens
                .flat_map(|token| {
                    let m = f64::from(mean(token));
                    let deviations: f64 = token.iter().map(|v| (f64::from(*v) - m).powi(2)).sum();
                    let std = (deviations / token.len() as f64 + eps).sqrt();
                    let normal = move |(c, v): (usize, &f32)| {
                        let (w, b) = (f64::from(param(0)[c]), f64::from(param(1)[c]));
                        ((f64::from(*v) - m) / std * w + b) as f32
                    };
                    token.iter().enumerate().map(normal).collect::<Vec<f32>>()
                })
                .collect()
        }
        Op::Gelu => x.data.iter().map(|&v| gelu(v)).collect(),
        Op::Attention { heads } => attention(x, *heads),
    }
}

/// `x Phi(x)`, the normal distribution function by Simpson's rule from 0.
fn gelu(x: f32) -> f32 {
    const STEPS: usize = 400;
    let step = f64::from(x) / STEPS as f64;
    let density = |i: usize| (-0.5 * (i as f64 * step).powi(2)).exp();
    let weight = |i: usize| match i {
        0 | STEPS => 1.0,
        _ => 2.0 + 2.0 * (i % 2) as f64,
    };
    let sum: f64 = (0..=STEPS).map(|i| weight(i) * density(i)).sum();
    let half = step / 3.0 * sum / (2.0 * std::f64::consts::PI).sqrt();
    (f64::from(x) * (0.5 + half)) as f32
}

fn attention(x: &Value, heads: usize) -> Vec<f32> {
    let (tokens, all) = (x.shape[0], x.shape[1]);
    let (width, each) = (all / 3, all / 3 / heads);
    let part = |token: usize, which: usize, head: usize| {
        &x.data[token * all + which * width + head * each..][..each]
    };
    let mut out = vec![0.0; tokens * width];
    for head in 0..heads {
        for token in 0..tokens {
            let query = part(token, 0, head);
            let logit = |t| distance::dot(query, part(t, 1, head)) / (each as f32).sqrt();
            let logits: Vec<f32> = (0..tokens).map(logit).collect();
            let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let powers: Vec<f32> = logits.iter().map(|l| (l - top).exp()).collect();
            let sum: f32 = powers.iter().sum();
            for (t, power) in powers.iter().enumerate() {
                for (i, value) in part(t, 2, head).iter().enumerate() {
                    out[token * width + head * each + i] += power / sum * value;
                }
            }
        }
    }
    out
}

fn mean(values: &[f32]) -> f32 {
    (values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64) as f32
}

/// Value at a padded position; `None` in the padding.
fn at(x: &Value, c: usize, y: usize, x0: usize, padding: &[usize; 2]) -> Option<f32> {
    let (h, w) = (x.shape[1], x.shape[2]);
    let (y, x0) = (y.checked_sub(padding[0])?, x0.checked_sub(padding[1])?);
    (y < h && x0 < w).then(|| x.data[(c * h + y) * w + x0])
}

fn conv(
    x: &Value,
    weight: &[f32],
    bias: &[f32],
    [kernel, stride, padding, dilation]: [&[usize; 2]; 4],
    groups: usize,
    shape: &[usize],
) -> Vec<f32> {
    let (out_channels, pixels) = (shape[0], shape[1] * shape[2]);
    let (group_in, group_out) = (x.shape[0] / groups, out_channels / groups);
    let row = group_in * kernel[0] * kernel[1];
    let mut out = vec![0.0; out_channels * pixels];
    for group in 0..groups {
        for pixel in 0..pixels {
            let (y, x0) = (pixel / shape[2], pixel % shape[2]);
            let mut patch = Vec::with_capacity(row);
            for c in group * group_in..(group + 1) * group_in {
                for ky in 0..kernel[0] {
                    for kx in 0..kernel[1] {
                        let iy = y * stride[0] + ky * dilation[0];
                        let ix = x0 * stride[1] + kx * dilation[1];
                        patch.push(at(x, c, iy, ix, padding).unwrap_or(0.0));
                    }
                }
            }
            for o in group * group_out..(group + 1) * group_out {
                let sum = distance::dot(&patch, &weight[o * row..(o + 1) * row]);
                out[o * pixels + pixel] = sum + bias.get(o).copied().unwrap_or(0.0);
            }
        }
    }
    out
}
