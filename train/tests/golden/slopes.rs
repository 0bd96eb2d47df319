//! Gradients against finite differences, convolutions against their definition.

use super::*;
use candle_core::{Tensor, Var};
use proptest::prelude::*;
use reid_train::nn;
use reid_train::nn::ops::{self, Conv2d};

/// Central differences against the gradients, along a random direction of each input at once.
fn finite_differences(what: &str, inputs: &[Var], f: impl Fn(&[Var]) -> Tensor) {
    let mut rng = nn::init::stream(21, what);
    let weights = {
        let y = f(inputs);
        let values = nn::init::normal(&mut rng, 1.0, y.elem_count());
        Tensor::from_vec(values, y.dims(), &DEVICE).unwrap()
    };
    let loss = |v: &[Var]| (f(v) * &weights).unwrap().sum_all().unwrap();
    let grads = nn::backward(&loss(inputs)).unwrap();
    for (i, input) in inputs.iter().enumerate() {
        let direction = nn::init::normal(&mut rng, 1.0, input.elem_count());
        let direction = Tensor::from_vec(direction, input.dims(), &DEVICE).unwrap();
        let product = (grads.get(input).unwrap() * &direction).unwrap();
        let slope = product.sum_all().unwrap().to_scalar::<f32>().unwrap();
        let start = input.copy().unwrap();
        let step = 2e-3;
        let at = |h: f64| {
            input
                .set(&(&start + (&direction * h).unwrap()).unwrap())
                .unwrap();
            loss(inputs).to_scalar::<f32>().unwrap()
        };
        let numeric = (at(step) - at(-step)) / (2.0 * step as f32);
        at(0.0);
        let size = product
            .abs()
            .unwrap()
            .sum_all()
            .unwrap()
            .to_scalar::<f32>()
            .unwrap();
        assert!(
            (numeric - slope).abs() < 0.01 * size + 1e-2,
            "{what}, input {i}: slope {slope}, differences give {numeric}"
        );
    }
}

#[test]
fn gradients_are_slopes() {
    let map = random("map", &[2, 4, 6, 5]);
    let options = Conv2d {
        stride: [2, 1],
        padding: [1, 2],
        dilation: [1, 2],
        groups: 2,
    };
    let (w, b) = (random("w", &[6, 2, 3, 3]), random("b", &[6]));
    finite_differences("conv2d", &[map.clone(), w, b], |v| {
        ops::conv2d(&v[0], &v[1], Some(&v[2]), options).unwrap()
    });
    let (w, b) = (random("scale", &[4]), random("shift", &[4]));
    finite_differences("batch_norm", &[map.clone(), w.clone(), b.clone()], |v| {
        ops::batch_norm(&v[0], &v[1], &v[2], 1e-5, false).unwrap()
    });
    finite_differences("max_pool2d", std::slice::from_ref(&map), |v| {
        ops::max_pool2d(&v[0], [3, 3], [2, 2], [1, 1]).unwrap()
    });
    finite_differences("avg", std::slice::from_ref(&map), |v| {
        ops::global_avg_pool(&v[0]).unwrap()
    });
    finite_differences("max", std::slice::from_ref(&map), |v| {
        ops::global_max_pool(&v[0]).unwrap()
    });
    // Smooth away from the clamp.
    let above = Var::from_tensor(&(map.abs().unwrap() + 0.5).unwrap()).unwrap();
    let p = Var::new(&[2.5f32], &DEVICE).unwrap();
    finite_differences("gem", &[above, p], |v| {
        ops::gem_pool(&v[0], &v[1], 1e-6).unwrap()
    });
    let x = random("x", &[5, 7]);
    let (w, b) = (random("lw", &[3, 7]), random("lb", &[3]));
    finite_differences("linear", &[x.clone(), w, b], |v| {
        ops::linear(&v[0], &v[1], Some(&v[2])).unwrap()
    });
    finite_differences("l2", std::slice::from_ref(&x), |v| {
        ops::l2_normalize(&v[0]).unwrap()
    });
    finite_differences("log_softmax", std::slice::from_ref(&x), |v| {
        ops::log_softmax(&v[0]).unwrap()
    });
    finite_differences("distance", &[x.clone(), random("other", &[5, 7])], |v| {
        ops::row_distance(&v[0], &v[1]).unwrap()
    });
    // Away from the kinks, where differences mean nothing.
    let off = |x: &Var| {
        let x = x.as_tensor();
        let sign = x.sign().unwrap();
        Var::from_tensor(&(x + (sign * 0.1).unwrap()).unwrap()).unwrap()
    };
    finite_differences("relu", &[off(&x)], |v| ops::relu(&v[0]).unwrap());
    let zero = Var::from_tensor(&x.zeros_like().unwrap()).unwrap();
    finite_differences("add_relu", &[off(&x), zero], |v| {
        ops::add_relu(&v[0], &v[1]).unwrap()
    });
}

/// Convolution as its definition reads, in double precision.
fn naive(x: &Tensor, w: &Tensor, o: Conv2d) -> Vec<f32> {
    let (n, c, h, width) = x.dims4().unwrap();
    let (oc, cg, kh, kw) = w.dims4().unwrap();
    let (xs, ws) = (flat(x), flat(w));
    let size = |len: usize, k: usize, i: usize| {
        (len + 2 * o.padding[i] - o.dilation[i] * (k - 1) - 1) / o.stride[i] + 1
    };
    let (oh, ow) = (size(h, kh, 0), size(width, kw, 1));
    let mut y = Vec::new();
    for b in 0..n {
        for f in 0..oc {
            let group = f / (oc / o.groups);
            for (oy, ox) in (0..oh).flat_map(|oy| (0..ow).map(move |ox| (oy, ox))) {
                let mut sum = 0f64;
                for ch in 0..cg {
                    for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
                        let iy = (oy * o.stride[0] + ky * o.dilation[0]).wrapping_sub(o.padding[0]);
                        let ix = (ox * o.stride[1] + kx * o.dilation[1]).wrapping_sub(o.padding[1]);
                        if iy < h && ix < width {
                            let from = xs[((b * c + group * cg + ch) * h + iy) * width + ix];
                            sum += f64::from(from)
                                * f64::from(ws[((f * cg + ch) * kh + ky) * kw + kx]);
                        }
                    }
                }
                y.push(sum as f32);
            }
        }
    }
    y
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..Default::default() })]

    /// The gradients follow from the values: for a bilinear map `<dy, conv(x, w)> = <dx, x> = <dw, w>`.
    #[test]
    fn any_convolution_is_the_naive_one(
        n in 1usize..4, groups in 1usize..4, cg in 1usize..6, og in 1usize..6,
        h in 1usize..12, width in 1usize..12, kh in 1usize..5, kw in 1usize..5,
        stride in (1usize..4, 1usize..4), padding in (0usize..4, 0usize..4), dilation in (1usize..4, 1usize..4),
        seed in any::<u64>(),
    ) {
        prop_assume!(h + 2 * padding.0 > dilation.0 * (kh - 1) && width + 2 * padding.1 > dilation.1 * (kw - 1));
        let options = Conv2d {
            stride: [stride.0, stride.1],
            padding: [padding.0, padding.1],
            dilation: [dilation.0, dilation.1],
            groups,
        };
        let mut rng = nn::init::stream(seed, "case");
        let mut draw = |shape: [usize; 4]| {
            let values = nn::init::normal(&mut rng, 1.0, shape.iter().product());
            Var::from_vec(values, &shape, &DEVICE).unwrap()
        };
        let (x, w) = (draw([n, groups * cg, h, width]), draw([groups * og, cg, kh, kw]));
        let y = ops::conv2d(&x, &w, None, options).unwrap();
        let want = Tensor::from_vec(naive(&x, &w, options), y.dims(), &DEVICE).unwrap();
        close("y", &y, &want, 1e-5);
        let dy = draw(y.dims4().unwrap().into());
        let grads = nn::backward(&(&y * dy.as_tensor()).unwrap().sum_all().unwrap()).unwrap();
        let dot = |a: &Tensor, b: &Tensor| -> f64 {
            flat(a).iter().zip(flat(b)).map(|(a, b)| f64::from(*a) * f64::from(b)).sum()
        };
        let value = dot(&y, &dy);
        let scale = dot(&y, &y).sqrt() * dot(&dy, &dy).sqrt() + 1e-3;
        prop_assert!((value - dot(grads.get(&x).unwrap(), &x)).abs() < 1e-5 * scale);
        prop_assert!((value - dot(grads.get(&w).unwrap(), &w)).abs() < 1e-5 * scale);
    }
}
