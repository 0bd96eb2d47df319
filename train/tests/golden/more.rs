//! `ops_more.safetensors`: the operators that generators, critics and domain adaptation need.

use super::operators::{check, check_gradients};
use super::*;
use reid_models::{
    Graph,
    graph::{Init, ParamKind},
    ops::Op,
};
use reid_train::nn::ops::{self, Conv2d};
use reid_train::nn::penalty::{Layer, gradient_penalty};
use reid_train::nn::{Mode, Net, RunningFrom};

impl Golden {
    fn params(&self, case: &str) -> Vec<f64> {
        let params = self
            .get(&format!("{case}.params"))
            .to_vec1::<f32>()
            .unwrap();
        params.into_iter().map(f64::from).collect()
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

fn options(stride: &[usize], padding: &[usize], dilation: &[usize], groups: usize) -> Conv2d {
    let pair = |v: &[usize]| [v[0], v[1]];
    Conv2d {
        stride: pair(stride),
        padding: pair(padding),
        dilation: pair(dilation),
        groups,
    }
}

#[test]
fn transposed_convolutions() {
    let golden = Golden::open("ops_more");
    let mut refused = Vec::new();
    for case in golden.cases("conv_transpose2d") {
        let a = golden.attrs(&case);
        let o = options(&a[0..2], &a[2..4], &a[6..8], a[8]);
        let extra = [a[4], a[5]];
        if (0..2).any(|i| extra[i] >= o.stride[i]) {
            refused.push(case);
            continue;
        }
        let biased = golden.has(&format!("{case}.b"));
        let names: &[&str] = if biased {
            &["x", "w", "b"]
        } else {
            &["x", "w"]
        };
        check(&golden, &case, names, |v| {
            ops::conv_transpose2d(&v[0], &v[1], v.get(2).map(|b| b.as_tensor()), o, extra).unwrap()
        });
    }
    // PyTorch also takes an output padding of the stride or more, if it is below the dilation; nobody uses it.
    assert_eq!(refused.len(), 2, "{refused:?}");
}

#[test]
fn windows() {
    let golden = Golden::open("ops_more");
    for case in golden.cases("max_pool2d") {
        let a = golden.attrs(&case);
        check(&golden, &case, &["x"], |v| {
            ops::max_pool2d(&v[0], [a[0], a[1]], [a[2], a[3]], [a[4], a[5]]).unwrap()
        });
    }
    for case in golden.cases("avg_pool2d") {
        let a = golden.attrs(&case);
        check(&golden, &case, &["x"], |v| {
            let (k, s, p) = ([a[0], a[1]], [a[2], a[3]], [a[4], a[5]]);
            ops::avg_pool2d(&v[0], k, s, p, a[6] == 1).unwrap()
        });
    }
    for case in golden.cases("adaptive_avg_pool2d") {
        let a = golden.attrs(&case);
        check(&golden, &case, &["x"], |v| {
            ops::adaptive_avg_pool2d(&v[0], [a[0], a[1]]).unwrap()
        });
    }
    for case in golden.cases("adaptive_max_pool2d") {
        let a = golden.attrs(&case);
        check(&golden, &case, &["x"], |v| {
            ops::adaptive_max_pool2d(&v[0], [a[0], a[1]]).unwrap()
        });
    }
    for case in golden.cases("global_avg_pool") {
        check(&golden, &case, &["x"], |v| {
            ops::global_avg_pool(&v[0]).unwrap()
        });
    }
    for case in golden.cases("global_max_pool") {
        check(&golden, &case, &["x"], |v| {
            ops::global_max_pool(&v[0]).unwrap()
        });
    }
    for case in golden.cases("gem_pool") {
        let eps = golden.params(&case)[0];
        check(&golden, &case, &["x", "p"], |v| {
            ops::gem_pool(&v[0], &v[1], eps).unwrap()
        });
    }
    for case in golden.cases("upsample_nearest") {
        let a = golden.attrs(&case);
        check(&golden, &case, &["x"], |v| {
            ops::upsample_nearest(&v[0], [a[0], a[1]]).unwrap()
        });
    }
}

#[test]
fn normalisations() {
    let golden = Golden::open("ops_more");
    for case in golden.cases("ghost_batch_norm") {
        let (groups, eps) = (golden.attrs(&case)[0], golden.params(&case)[1]);
        check(&golden, &case, &["x", "w", "b"], |v| {
            ops::ghost_batch_norm(&v[0], &v[1], &v[2], eps, groups)
                .unwrap()
                .0
        });
        ghost_in_a_net(&golden, &case, groups);
    }
    for case in golden.cases("domain_batch_norm") {
        let (counts, eps) = (golden.attrs(&case), golden.params(&case)[1]);
        if counts[0] != counts[1] {
            continue;
        }
        check(&golden, &case, &["x", "w0", "b0", "w1", "b1"], |v| {
            let w = Tensor::stack(&[v[1].as_tensor(), &v[3]], 0).unwrap();
            let b = Tensor::stack(&[v[2].as_tensor(), &v[4]], 0).unwrap();
            ops::ghost_batch_norm(&v[0], &w, &b, eps, 2).unwrap().0
        });
    }
    for case in golden.cases("instance_norm") {
        let (affine, eps) = (golden.attrs(&case)[0] == 1, golden.params(&case)[0]);
        let names: &[&str] = if affine { &["x", "w", "b"] } else { &["x"] };
        check(&golden, &case, names, |v| {
            let affine = affine.then(|| [v[1].as_tensor(), &v[2]]);
            ops::instance_norm(&v[0], affine, eps).unwrap()
        });
    }
    for case in golden.cases("adain") {
        let eps = golden.params(&case)[0];
        check(&golden, &case, &["x", "gamma", "beta"], |v| {
            ops::adain(&v[0], &v[1], &v[2], eps).unwrap()
        });
    }
    for case in golden.cases("adain_style") {
        let eps = golden.params(&case)[0];
        check(&golden, &case, &["x", "s"], |v| {
            ops::adain_to_style(&v[0], &v[1], eps).unwrap()
        });
    }
    for case in golden.cases("layer_norm") {
        let (a, eps) = (golden.attrs(&case), golden.params(&case)[0]);
        let names: &[&str] = if a[1] == 1 { &["x", "w", "b"] } else { &["x"] };
        check(&golden, &case, names, |v| {
            let shape = v[0].dims().to_vec();
            let width: usize = shape[shape.len() - a[0]..].iter().product();
            let flat = |t: &Tensor| t.flatten_all().unwrap();
            let x = v[0].reshape(((), width)).unwrap();
            let affine = (a[1] == 1).then(|| [flat(&v[1]), flat(&v[2])]);
            let affine = affine.as_ref().map(|[w, b]| [w, b]);
            ops::layer_norm(&x, affine, eps)
                .unwrap()
                .reshape(shape)
                .unwrap()
        });
    }
    for case in golden.cases("l2_normalize") {
        // Rows whose norm is 0: PyTorch's slope is dy / eps, ours is defined as 0.
        let rows = golden.get(&format!("{case}.x"));
        if rows.rank() != 2
            || golden.attrs(&case)[0] != 1
            || case.contains("zero_row")
            || case.contains("tiny")
        {
            continue;
        }
        check(&golden, &case, &["x"], |v| {
            ops::l2_normalize(&v[0]).unwrap()
        });
    }
}

/// Batch norm in groups inside a network keeps the first group's statistics, as `DataParallel` does.
fn ghost_in_a_net(golden: &Golden, case: &str, groups: usize) {
    let x = golden.var(&format!("{case}.x"));
    if x.rank() != 4 {
        return;
    }
    let dims = x.dims();
    let c = dims[1];
    let mut graph = Graph::new("ghost", [c, dims[2], dims[3]]);
    for (name, kind) in [
        ("w", ParamKind::Trainable),
        ("b", ParamKind::Trainable),
        ("mean", ParamKind::Buffer),
        ("var", ParamKind::Buffer),
    ] {
        graph.param(name, &[c], kind, Init::Constant { value: 0.0 });
    }
    let p = golden.params(case);
    let op = Op::BatchNorm {
        eps: p[1],
        momentum: p[0],
    };
    let y = graph.push("bn", op, &["images"], &["w", "b", "mean", "var"]);
    graph.outputs.insert("y".into(), y);
    let mut net = Net::new(graph, 0, &DEVICE).unwrap();
    net.set_norm_groups(groups, RunningFrom::First);
    for (name, key) in [
        ("w", "w"),
        ("b", "b"),
        ("mean", "mean_before"),
        ("var", "var_before"),
    ] {
        let value = golden.get(&format!("{case}.{key}"));
        net.param(name).unwrap().set(value).unwrap();
    }
    let y = &net.forward(&x, Mode::Train, &["y"]).unwrap()["y"];
    close(case, y, golden.get(&format!("{case}.y")), CLOSE);
    for name in ["mean", "var"] {
        let after = golden.get(&format!("{case}.{name}_after_first"));
        close(
            &format!("{case}.{name}"),
            net.param(name).unwrap(),
            after,
            CLOSE,
        );
    }
}

/// IBN of a ResNet block: ranges of channels, their norms, and one after the other again.
#[test]
fn instance_batch_norm_as_a_graph() {
    let golden = Golden::open("ops_more");
    for case in golden.cases("ibn") {
        let x = golden.var(&format!("{case}.x"));
        let (a, p, dims) = (golden.attrs(&case), golden.params(&case), x.dims());
        let (c, half) = (dims[1], a[1]);
        let mut graph = Graph::new("ibn", [c, dims[2], dims[3]]);
        let buffers = [("mean", "mean_before"), ("var", "var_before")];
        let trained = [
            ("in_w", half),
            ("in_b", half),
            ("bn_w", c - half),
            ("bn_b", c - half),
        ];
        for (name, len) in trained {
            graph.param(
                name,
                &[len],
                ParamKind::Trainable,
                Init::Constant { value: 0.0 },
            );
        }
        for (name, _) in buffers {
            graph.param(
                name,
                &[c - half],
                ParamKind::Buffer,
                Init::Constant { value: 0.0 },
            );
        }
        let part = |start, len| Op::Narrow {
            axis: 0,
            start,
            len,
        };
        graph.push("first", part(0, half), &["images"], &[]);
        graph.push(
            "IN",
            Op::InstanceNorm { eps: p[1] },
            &["first"],
            &["in_w", "in_b"],
        );
        graph.push("rest", part(half, c - half), &["images"], &[]);
        let bn = Op::BatchNorm {
            eps: p[1],
            momentum: p[0],
        };
        graph.push("BN", bn, &["rest"], &["bn_w", "bn_b", "mean", "var"]);
        let y = graph.push("both", Op::Concat { axis: 0 }, &["IN", "BN"], &[]);
        graph.outputs.insert("y".into(), y);
        let net = Net::new(graph, 0, &DEVICE).unwrap();
        let named = trained.map(|(n, _)| (n, n));
        for (name, key) in named.into_iter().chain(buffers) {
            let value = golden.get(&format!("{case}.{key}"));
            net.param(name).unwrap().set(value).unwrap();
        }
        let mode = if a[0] == 1 { Mode::Train } else { Mode::Eval };
        let y = &net.forward(&x, mode, &["y"]).unwrap()["y"];
        close(&case, y, golden.get(&format!("{case}.y")), CLOSE);
        check_gradients(&golden, &case, &net, &x, y);
        for name in ["mean", "var"] {
            let after = golden.get(&format!("{case}.{name}_after"));
            close(
                &format!("{case}.{name}"),
                net.param(name).unwrap(),
                after,
                CLOSE,
            );
        }
    }
}

#[test]
fn activations() {
    let golden = Golden::open("ops_more");
    for case in golden.cases("leaky_relu") {
        let slope = golden.params(&case)[0] as f32;
        check(&golden, &case, &["x"], |v| {
            ops::leaky_relu(&v[0], slope).unwrap()
        });
    }
    type Unary = fn(&Tensor) -> candle_core::Result<Tensor>;
    let unary: [(&str, Unary); 4] = [
        ("relu", ops::relu),
        ("tanh", ops::tanh),
        ("sigmoid", ops::sigmoid),
        ("gelu", ops::gelu),
    ];
    for (op, f) in unary {
        for case in golden.cases(op) {
            check(&golden, &case, &["x"], |v| f(&v[0]).unwrap());
        }
    }
    for case in golden.cases("softplus") {
        let beta = golden.params(&case)[0];
        check(&golden, &case, &["x"], |v| {
            ops::softplus(&v[0], beta).unwrap()
        });
    }
    for case in golden.cases("gradient_reversal") {
        let lambda = golden.params(&case)[0];
        check(&golden, &case, &["x"], |v| {
            ops::gradient_reversal(&v[0], lambda).unwrap()
        });
    }
}

/// The view that a case takes of its base.
fn view(golden: &Golden, case: &str, base: &Tensor) -> Tensor {
    let order: Vec<usize> = golden
        .get(&format!("{case}.permute"))
        .to_vec1::<i64>()
        .unwrap()
        .into_iter()
        .map(|d| d as usize)
        .collect();
    let mut x = base.permute(order).unwrap();
    let slices = golden
        .get(&format!("{case}.slices"))
        .to_vec2::<i64>()
        .unwrap();
    for (dim, slice) in slices.into_iter().enumerate() {
        let [start, stop, step] = [slice[0] as usize, slice[1] as usize, slice[2] as usize];
        if step == 1 {
            x = x.narrow(dim, start, stop - start).unwrap();
        } else {
            let taken: Vec<u32> = (start..stop).step_by(step).map(|i| i as u32).collect();
            // candle has no views with steps.
            x = x
                .contiguous()
                .unwrap()
                .index_select(&Tensor::new(taken, &DEVICE).unwrap(), dim)
                .unwrap();
        }
    }
    x
}

#[test]
fn views() {
    let golden = Golden::open("ops_more");
    for case in golden.cases("view_conv2d") {
        let a = golden.attrs(&case);
        let o = options(&a[0..2], &a[2..4], &a[4..6], a[6]);
        check(&golden, &case, &["base", "w", "b"], |v| {
            ops::conv2d(&view(&golden, &case, &v[0]), &v[1], Some(&v[2]), o).unwrap()
        });
    }
    for case in golden.cases("view_batch_norm") {
        if golden.attrs(&case)[0] == 0 {
            continue;
        }
        let eps = golden.params(&case)[1];
        check(&golden, &case, &["base", "w", "b"], |v| {
            ops::batch_norm(&view(&golden, &case, &v[0]), &v[1], &v[2], eps, false).unwrap()
        });
    }
    for case in golden.cases("view_l2_normalize") {
        check(&golden, &case, &["base"], |v| {
            ops::l2_normalize(&view(&golden, &case, &v[0])).unwrap()
        });
    }
}

#[test]
fn gradient_penalties() {
    let golden = Golden::open("ops_more");
    for case in golden.cases("gradient_penalty") {
        let normalised = golden.attrs(&case)[0] == 1;
        let p = golden.params(&case);
        let mut names = vec!["x", "w1", "b1", "w2", "b2", "w3", "b3"];
        if normalised {
            names.extend(["in_w", "in_b"]);
        }
        let vars: Vec<Var> = names
            .iter()
            .map(|n| golden.var(&format!("{case}.{n}")))
            .collect();
        let of = |name: &str| {
            vars[names.iter().position(|n| *n == name).unwrap()]
                .as_tensor()
                .clone()
        };
        let conv = |w: &str, b: &str, stride: usize| Layer::Conv {
            w: of(w),
            b: Some(of(b)),
            options: options(&[stride; 2], &[1, 1], &[1, 1], 1),
        };
        let leaky = || Layer::LeakyRelu { slope: p[0] as f32 };
        let mut critic = vec![conv("w1", "b1", 2)];
        if normalised {
            critic.push(Layer::InstanceNorm {
                affine: Some([of("in_w"), of("in_b")]),
                eps: p[1],
            });
        }
        critic.extend([leaky(), conv("w2", "b2", 1), leaky(), Layer::GlobalAvgPool]);
        critic.push(Layer::Linear {
            w: of("w3"),
            b: Some(of("b3")),
        });
        let found = gradient_penalty(&critic, &vars[0]).unwrap();
        let want = |name: &str| golden.get(&format!("{case}.{name}"));
        close(&format!("{case}.score"), &found.score, want("score"), CLOSE);
        close(&format!("{case}.norms"), &found.norms, want("norms"), CLOSE);
        let value = found.penalty.reshape(1).unwrap();
        close(&format!("{case}.y"), &value, want("y"), 5e-6);
        let grads = nn::backward(&found.penalty).unwrap();
        for (name, var) in names.iter().zip(&vars) {
            let want = want(&format!("d{name}"));
            // What does not take part has no gradient: zero.
            let got = grads
                .get(var)
                .cloned()
                .unwrap_or_else(|| var.zeros_like().unwrap());
            close(&format!("{case}.d{name}"), &got, want, 2e-5);
        }
    }
}
