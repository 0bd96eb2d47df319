//! Operators that no backbone of today combines, through folding, ONNX and both engines.

use reid_export::write::{ExportOptions, export};
use reid_models::Graph;
use reid_models::graph::{EMBEDDING, Init, ParamKind};
use reid_models::ops::Op;

use crate::run_folder::{self, random_weights};

fn param(graph: &mut Graph, name: &str, shape: &[usize]) -> String {
    graph.param(
        name,
        shape,
        ParamKind::Trainable,
        Init::Constant { value: 0.0 },
    )
}

fn batch_norm(graph: &mut Graph, name: &str, input: &str, n: usize) -> String {
    let params = ["weight", "bias", "running_mean", "running_var"]
        .map(|p| param(graph, &format!("{name}.{p}"), &[n]));
    let names: Vec<&str> = params.iter().map(String::as_str).collect();
    let op = Op::BatchNorm {
        eps: 1e-3,
        momentum: 0.1,
    };
    graph.push(name, op, &[input], &names)
}

fn conv(
    graph: &mut Graph,
    name: &str,
    input: &str,
    [out, channels]: [usize; 2],
    [stride, dilation, groups]: [usize; 3],
    bias: bool,
) -> String {
    let mut params = vec![param(
        graph,
        &format!("{name}.weight"),
        &[out, channels / groups, 3, 1],
    )];
    if bias {
        params.push(param(graph, &format!("{name}.bias"), &[out]));
    }
    let names: Vec<&str> = params.iter().map(String::as_str).collect();
    let op = Op::Conv2d {
        out_channels: out,
        kernel: [3, 1],
        stride: [stride, 1],
        padding: [2, 0],
        dilation: [dilation, 1],
        groups,
        bias,
    };
    graph.push(name, op, &[input], &names)
}

/// Groups, dilation, biased convolutions, a batch norm over a map that cannot be folded, one after a linear layer that
/// can, a convolution read twice, a tensor that takes the output's name, and a node that nobody needs.
#[test]
fn unusual_graphs_give_what_the_slow_executor_gives() {
    let mut g = Graph::new("unusual", [3, 32, 16]);
    let a = conv(&mut g, "a", "images", [6, 3], [2, 1, 3], true);
    let a_bn = batch_norm(&mut g, "a_bn", &a, 6);
    let relu = g.push("relu", Op::Relu, &[&a_bn], &[]);
    let b = conv(&mut g, "embedding", &relu, [6, 6], [1, 2, 2], false);
    let b_bn = batch_norm(&mut g, "b_bn", &b, 6);
    let twice = g.push("twice", Op::Add, &[&b, &b_bn], &[]);
    g.push("unneeded", Op::Relu, &[&twice], &[]);
    let pool = Op::MaxPool2d {
        kernel: [3, 2],
        stride: [2, 1],
        padding: [1, 0],
    };
    let pool = g.push("max", pool, &[&twice], &[]);
    let map_bn = batch_norm(&mut g, "map_bn", &pool, 6);
    let vector = g.push("mean", Op::GlobalAvgPool, &[&map_bn], &[]);
    let weight = param(&mut g, "fc.weight", &[5, 6]);
    let bias = param(&mut g, "fc.bias", &[5]);
    let linear = Op::Linear {
        out_features: 5,
        bias: true,
    };
    let fc = g.push("fc", linear, &[&vector], &[&weight, &bias]);
    let fc_bn = batch_norm(&mut g, "fc_bn", &fc, 5);
    let unit = g.push("unit", Op::L2Normalize { eps: 1e-12 }, &[&fc_bn], &[]);
    g.outputs.insert(EMBEDDING.into(), unit);

    let weights = random_weights(&g, 3);
    let dir = tempfile::tempdir().unwrap();
    run_folder::write(dir.path(), &g, &weights);
    let out = dir.path().join("unusual.onnx");
    let exported = export(dir.path(), &out, &ExportOptions::default()).unwrap();
    // a_bn into a, fc_bn into fc; b is read twice and max is no layer.
    assert_eq!(exported.batch_norms_folded, 2);
    for verified in exported.verification.backends {
        assert!(verified.max_abs < 1e-5, "{verified:?}");
    }
}
