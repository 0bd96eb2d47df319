//! Single operators: as functions and through a network of one node.

use super::*;
use candle_core::{DType, Tensor, Var};
use reid_models::Graph;
use reid_models::graph::{Init, ParamKind};
use reid_models::ops::Op;
use reid_train::nn::ops::{self, Conv2d};
use reid_train::nn::{self, Mode, Net};

/// Runs a case: leaves by name, the function of them, then output and all gradients.
pub(super) fn check(golden: &Golden, case: &str, names: &[&str], f: impl Fn(&[Var]) -> Tensor) {
    let leaves: Vec<Var> = names
        .iter()
        .map(|n| golden.var(&format!("{case}.{n}")))
        .collect();
    let y = f(&leaves);
    close(
        &format!("{case}.y"),
        &y,
        golden.get(&format!("{case}.y")),
        CLOSE,
    );
    let loss = (&y * golden.get(&format!("{case}.dy")))
        .unwrap()
        .sum_all()
        .unwrap();
    let grads = nn::backward(&loss).unwrap();
    for (name, leaf) in names.iter().zip(&leaves) {
        let name = format!("{case}.d{name}");
        close(&name, grads.get(leaf).unwrap(), golden.get(&name), 5e-6);
    }
}

/// A graph of one operator over an image-shaped input; its output is the role `y`.
fn single(op: Op, input: &[usize], params: &[(&str, &[usize], ParamKind)]) -> Graph {
    let mut graph = Graph::new("single", [input[1], input[2], input[3]]);
    for (name, shape, kind) in params {
        graph.param(*name, shape, *kind, Init::Constant { value: 0.0 });
    }
    let names: Vec<&str> = params.iter().map(|p| p.0).collect();
    let y = graph.push("node", op, &["images"], &names);
    graph.outputs.insert("y".into(), y);
    graph
}

/// Checks the same case through a [`Net`]: output, gradients of the images and of the trained parameters.
fn check_net(
    golden: &Golden,
    case: &str,
    op: Op,
    params: &[(&str, &[usize], ParamKind)],
    mode: Mode,
) -> Net {
    let x = golden.var(&format!("{case}.x"));
    let net = Net::new(single(op, x.dims(), params), 0, &DEVICE).unwrap();
    for (name, ..) in params {
        if let Some(value) = golden.0.get(&format!("{case}.{name}")) {
            net.param(name).unwrap().set(value).unwrap();
        }
    }
    if let Some(mean) = golden.0.get(&format!("{case}.mean_before")) {
        net.param("mean").unwrap().set(mean).unwrap();
        net.param("var")
            .unwrap()
            .set(golden.get(&format!("{case}.var_before")))
            .unwrap();
    }
    if mode == Mode::Eval {
        let y = net.forward_no_grad(&x, mode, &["y"]).unwrap();
        close(
            &format!("net {case}.y without gradient"),
            &y["y"],
            golden.get(&format!("{case}.y")),
            CLOSE,
        );
    }
    let y = &net.forward(&x, mode, &["y"]).unwrap()["y"];
    close(
        &format!("net {case}.y"),
        y,
        golden.get(&format!("{case}.y")),
        CLOSE,
    );
    check_gradients(golden, case, &net, &x, y);
    net
}

/// Gradients of the images and of all trained parameters for the golden's cotangent of `y`.
pub(super) fn check_gradients(golden: &Golden, case: &str, net: &Net, x: &Var, y: &Tensor) {
    let loss = (y * golden.get(&format!("{case}.dy")))
        .unwrap()
        .sum_all()
        .unwrap();
    let grads = nn::backward(&loss).unwrap();
    let dx = format!("{case}.dx");
    close(&dx, grads.get(x).unwrap(), golden.get(&dx), 5e-6);
    for (name, var) in net.trainable() {
        let name = format!("{case}.d{name}");
        close(&name, grads.get(&var).unwrap(), golden.get(&name), 5e-6);
    }
}

#[test]
fn convolutions() {
    let golden = Golden::open("ops");
    for case in golden.cases("conv2d") {
        let a = golden.attrs(&case);
        let options = Conv2d {
            stride: [a[0], a[1]],
            padding: [a[2], a[3]],
            dilation: [a[4], a[5]],
            groups: a[6],
        };
        let bias = golden.0.contains_key(&format!("{case}.b"));
        let names: &[&str] = if bias { &["x", "w", "b"] } else { &["x", "w"] };
        check(&golden, &case, names, |v| {
            ops::conv2d(&v[0], &v[1], v.get(2).map(|b| b.as_tensor()), options).unwrap()
        });
        let w = golden.get(&format!("{case}.w")).dims().to_vec();
        let op = Op::Conv2d {
            out_channels: w[0],
            kernel: [w[2], w[3]],
            stride: options.stride,
            padding: options.padding,
            dilation: options.dilation,
            groups: options.groups,
            bias,
        };
        let o = [w[0]];
        let mut params: Vec<(&str, &[usize], ParamKind)> = vec![("w", &w, ParamKind::Trainable)];
        if bias {
            params.push(("b", &o, ParamKind::Trainable));
        }
        check_net(&golden, &case, op, &params, Mode::Train);
    }
}

#[test]
fn pooling() {
    let golden = Golden::open("ops");
    for case in golden.cases("max_pool2d") {
        let a = golden.attrs(&case);
        let (kernel, stride, padding) = ([a[0], a[1]], [a[2], a[3]], [a[4], a[5]]);
        check(&golden, &case, &["x"], |v| {
            ops::max_pool2d(&v[0], kernel, stride, padding).unwrap()
        });
        let op = Op::MaxPool2d {
            kernel,
            stride,
            padding,
        };
        check_net(&golden, &case, op, &[], Mode::Train);
    }
    check(&golden, "global_avg_pool.map", &["x"], |v| {
        ops::global_avg_pool(&v[0]).unwrap()
    });
    check(&golden, "global_max_pool.map", &["x"], |v| {
        ops::global_max_pool(&v[0]).unwrap()
    });
    check_net(
        &golden,
        "global_avg_pool.map",
        Op::GlobalAvgPool,
        &[],
        Mode::Eval,
    );
    check_net(
        &golden,
        "global_max_pool.map",
        Op::GlobalMaxPool,
        &[],
        Mode::Train,
    );
    for case in ["gem_pool.map", "gem_pool.clamped"] {
        check(&golden, case, &["x", "p"], |v| {
            ops::gem_pool(&v[0], &v[1], 1e-6).unwrap()
        });
        let p: (&str, &[usize], _) = ("p", &[1], ParamKind::Trainable);
        check_net(&golden, case, Op::GemPool { eps: 1e-6 }, &[p], Mode::Train);
    }
}

#[test]
fn batch_norm() {
    let golden = Golden::open("ops");
    for name in ["map", "rows", "single", "wide"] {
        for (suffix, mode) in [("train", Mode::Train), ("eval", Mode::Eval)] {
            let case = format!("batch_norm.{name}_{suffix}");
            if mode == Mode::Train {
                check(&golden, &case, &["x", "w", "b"], |v| {
                    ops::batch_norm(&v[0], &v[1], &v[2], 1e-5, false).unwrap()
                });
            }
            let x = golden.get(&format!("{case}.x"));
            if x.rank() != 4 {
                continue;
            }
            let c = [x.dim(1).unwrap()];
            let params: [(&str, &[usize], _); 4] = [
                ("w", &c, ParamKind::Trainable),
                ("b", &c, ParamKind::Trainable),
                ("mean", &c, ParamKind::Buffer),
                ("var", &c, ParamKind::Buffer),
            ];
            let op = Op::BatchNorm {
                eps: 1e-5,
                momentum: 0.1,
            };
            let net = check_net(&golden, &case, op, &params, mode);
            for stat in ["mean", "var"] {
                let after = golden.get(&format!("{case}.{stat}_after"));
                close(
                    &format!("{case}.{stat}"),
                    net.param(stat).unwrap(),
                    after,
                    CLOSE,
                );
            }
        }
        check(
            &golden,
            &format!("batch_norm_relu.{name}"),
            &["x", "w", "b"],
            |v| ops::batch_norm(&v[0], &v[1], &v[2], 1e-5, true).unwrap(),
        );
        fused_shortcut(&golden, &format!("batch_norm_add_relu.{name}"));
    }
}

/// Batch norm + shortcut + ReLU as a graph: two inputs side by side on the channel axis are cut apart by 1x1 convolutions
/// with identity weights, so that both sides of the sum are tested with the gradients PyTorch gives.
fn fused_shortcut(golden: &Golden, case: &str) {
    let (x, r) = (
        golden.get(&format!("{case}.x")),
        golden.get(&format!("{case}.r")),
    );
    if x.rank() != 4 {
        return;
    }
    let c = x.dim(1).unwrap();
    let both = Var::from_tensor(&Tensor::cat(&[x, r], 1).unwrap()).unwrap();
    let dims = both.dims();
    let mut graph = Graph::new("shortcut", [dims[1], dims[2], dims[3]]);
    let cut = |graph: &mut Graph, name: &str| {
        let weight = format!("{name}.weight");
        graph.param(
            &weight,
            &[c, 2 * c, 1, 1],
            ParamKind::Frozen,
            Init::Constant { value: 0.0 },
        );
        let op = Op::Conv2d {
            out_channels: c,
            kernel: [1, 1],
            stride: [1, 1],
            padding: [0, 0],
            dilation: [1, 1],
            groups: 1,
            bias: false,
        };
        graph.push(name, op, &["images"], &[&weight]);
    };
    cut(&mut graph, "x");
    cut(&mut graph, "r");
    for (name, kind) in [
        ("w", ParamKind::Trainable),
        ("b", ParamKind::Trainable),
        ("mean", ParamKind::Buffer),
        ("var", ParamKind::Buffer),
    ] {
        graph.param(name, &[c], kind, Init::Constant { value: 1.0 });
    }
    let op = Op::BatchNorm {
        eps: 1e-5,
        momentum: 0.1,
    };
    graph.push("bn", op, &["x"], &["w", "b", "mean", "var"]);
    graph.push("add", Op::Add, &["r", "bn"], &[]);
    let y = graph.push("relu", Op::Relu, &["add"], &[]);
    graph.outputs.insert("y".into(), y);
    let net = Net::new(graph, 0, &DEVICE).unwrap();
    let eye = Tensor::eye(c, DType::F32, &DEVICE).unwrap();
    let zero = eye.zeros_like().unwrap();
    for (name, parts) in [("x.weight", [&eye, &zero]), ("r.weight", [&zero, &eye])] {
        let weight = Tensor::cat(&parts, 1)
            .unwrap()
            .reshape((c, 2 * c, 1, 1))
            .unwrap();
        net.param(name).unwrap().set(&weight).unwrap();
    }
    for name in ["w", "b"] {
        net.param(name)
            .unwrap()
            .set(golden.get(&format!("{case}.{name}")))
            .unwrap();
    }
    let y = &net.forward(&both, Mode::Train, &["y"]).unwrap()["y"];
    close(case, y, golden.get(&format!("{case}.y")), CLOSE);
    let loss = (y * golden.get(&format!("{case}.dy")))
        .unwrap()
        .sum_all()
        .unwrap();
    let grads = nn::backward(&loss).unwrap();
    let dboth = grads.get(&both).unwrap();
    for (i, name) in ["dx", "dr"].into_iter().enumerate() {
        let part = dboth.narrow(1, i * c, c).unwrap().contiguous().unwrap();
        close(
            &format!("{case}.{name}"),
            &part,
            golden.get(&format!("{case}.{name}")),
            5e-6,
        );
    }
    for name in ["w", "b"] {
        let grad = grads.get(net.param(name).unwrap()).unwrap();
        close(
            &format!("{case}.d{name}"),
            grad,
            golden.get(&format!("{case}.d{name}")),
            5e-6,
        );
    }
}

#[test]
fn vectors() {
    let golden = Golden::open("ops");
    check(&golden, "relu.zeros", &["x"], |v| ops::relu(&v[0]).unwrap());
    check(&golden, "add_relu.pair", &["x", "b"], |v| {
        ops::add_relu(&v[0], &v[1]).unwrap()
    });
    check(&golden, "linear.plain", &["x", "w"], |v| {
        ops::linear(&v[0], &v[1], None).unwrap()
    });
    check(&golden, "linear.bias", &["x", "w", "b"], |v| {
        ops::linear(&v[0], &v[1], Some(&v[2])).unwrap()
    });
    check(&golden, "l2_normalize.rows", &["x"], |v| {
        ops::l2_normalize(&v[0]).unwrap()
    });
    check(&golden, "log_softmax.rows", &["x"], |v| {
        ops::log_softmax(&v[0]).unwrap()
    });
}

#[test]
fn a_zero_vector_has_zero_norm_gradient() {
    let x = Var::new(&[[0f32, 0.0, 0.0], [3.0, 0.0, 4.0]], &DEVICE).unwrap();
    let y = ops::l2_normalize(&x).unwrap();
    assert_eq!(
        y.to_vec2::<f32>().unwrap(),
        [[0.0, 0.0, 0.0], [0.6, 0.0, 0.8]]
    );
    let grads = nn::backward(&y.sum_all().unwrap()).unwrap();
    let g = grads.get(&x).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(g[0], [0.0; 3]);
    assert!((g[1][0] - (1.0 - 1.4 * 0.6) / 5.0).abs() < 1e-6, "{g:?}");
}
