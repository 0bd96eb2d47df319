use crate::support::*;

const LENS: [usize; 5] = [1, 7, 1024, 1000, 3001];
const BLOCKS: [[u32; 3]; 3] = [[1, 5, 1], [2, 5, 1], [5, 5, 1]];

/// Tensors of several sizes, and the items that point to them.
struct Tensors {
    /// p, g, m, v, top of each.
    memory: Vec<[Memory<f32>; 5]>,
    items: Memory<u64>,
    /// rate, inv_sqrt_correction, decay, keep of each.
    numbers: Vec<[f32; 4]>,
}

fn tensors() -> Tensors {
    let memory: Vec<[Memory<f32>; 5]> = LENS
        .iter()
        .map(|len| {
            std::array::from_fn(|i| {
                let x: Vec<f32> = random::<f32>(i as u64, *len);
                // Second moments are not negative.
                let x: Vec<f32> = x
                    .iter()
                    .map(|x| if i >= 3 { x.abs() } else { *x })
                    .collect();
                Memory::from(&x)
            })
        })
        .collect();
    let numbers: Vec<[f32; 4]> = (0..LENS.len())
        .map(|i| {
            let i = i as f32;
            [0.01 * (i + 1.0), 1.0 + 0.1 * i, 0.001 * i, 1.0 - 0.01 * i]
        })
        .collect();
    let mut words: Vec<u64> = Vec::new();
    for ((memory, len), [rate, correction, decay, keep]) in memory.iter().zip(LENS).zip(&numbers) {
        words.extend(memory.iter().map(|m| m.address()));
        words.push(len as u64);
        let pair = |low: f32, high: f32| u64::from(low.to_bits()) | u64::from(high.to_bits()) << 32;
        words.extend([pair(*rate, *correction), pair(*decay, *keep)]);
    }
    Tensors {
        items: Memory::from(&words),
        memory,
        numbers,
    }
}

impl Tensors {
    fn regions(&self) -> Vec<&dyn Region> {
        self.memory
            .iter()
            .flatten()
            .map(|m| m as &dyn Region)
            .collect()
    }
    fn values(&self) -> Vec<[Vec<f64>; 5]> {
        self.memory
            .iter()
            .map(|m| m.each_ref().map(Memory::reals))
            .collect()
    }
}

pub fn clipping() {
    let t = tensors();
    let grads: Vec<Vec<f64>> = t.values().into_iter().map(|[_, g, ..]| g).collect();
    for blocks in [1, 3] {
        let items = LENS.len();
        let (part, sums) = (
            Memory::<f64>::new(items * blocks),
            Memory::<f64>::new(items),
        );
        launch_with(
            "sums_of_squares",
            &[[blocks as u32, items as u32, 1]],
            &[M(&t.items), M(&part)],
            &t.regions(),
        );
        launch_any(
            "sums_of_squares_end",
            &[M(&part), I(blocks as i32), M(&sums), I(items as i32)],
        );
        let want: Vec<f64> = grads
            .iter()
            .map(|g| g.iter().map(|g| g * g).sum())
            .collect();
        close("sums", &sums.get(), &want, 1e-12, 0.0);
        let parts: Vec<f64> = part.get().chunks(blocks).map(|p| p.iter().sum()).collect();
        close("parts", &parts, &want, 1e-12, 0.0);
    }
    let scale = |sums: &[f64], limit: f64| {
        let (sums, control) = (Memory::from(sums), Memory::<f32>::new(1));
        let args = [M(&sums), I(sums.get().len() as i32), D(limit), M(&control)];
        launch("clip_scale", [1, 1, 1], &args);
        control.get()[0]
    };
    assert_eq!(scale(&[9.0, 16.0], 0.0), 1.0);
    assert_eq!(scale(&[9.0, 16.0], 6.0), 1.0);
    assert_eq!(scale(&[9.0, 16.0], 1.0), (1.0 / (5.0 + 1e-6)) as f32);
    assert_eq!(scale(&[0.0], 1.0), 1.0);
    assert!(scale(&[1.0, f64::NAN], 1.0).is_nan());
    assert!(scale(&[f64::INFINITY], 0.0).is_nan());
}

pub fn adam() {
    let (beta1, beta2, eps) = (0.9f32, 0.99f32, 1e-6f32);
    for amsgrad in [false, true] {
        for control in [0.5f32, f32::NAN] {
            let t = tensors();
            let before = t.values();
            let mc = Memory::from(&[control]);
            let args = [
                M(&t.items),
                M(&mc),
                F(beta1),
                F(beta2),
                F(eps),
                I(i32::from(amsgrad)),
            ];
            launch_with("adam", &BLOCKS, &args, &t.regions());
            let [b1, b2, eps, scale] = [beta1, beta2, eps, control].map(f64::from);
            for ((got, [p, g, m, v, top]), numbers) in t.values().iter().zip(before).zip(&t.numbers)
            {
                let [rate, correction, decay, keep] = numbers.map(f64::from);
                for i in 0..p.len() {
                    let mut want = [p[i], g[i], m[i], v[i], top[i]];
                    if !control.is_nan() {
                        let grad = scale * g[i] + decay * p[i];
                        want[2] = b1 * m[i] + (1.0 - b1) * grad;
                        want[3] = b2 * v[i] + (1.0 - b2) * grad * grad;
                        if amsgrad {
                            want[4] = want[3].max(top[i]);
                        }
                        let second = if amsgrad { want[4] } else { want[3] };
                        want[0] = keep * p[i] - rate * want[2] / (second.sqrt() * correction + eps);
                    }
                    let got = got.each_ref().map(|x| x[i]);
                    close("adam", &got, &want, 3e-6, 1e-6);
                }
            }
        }
    }
}

pub fn sgd() {
    let momentum = 0.9f32;
    for nesterov in [false, true] {
        for control in [0.5f32, f32::NAN] {
            let t = tensors();
            let before = t.values();
            let mc = Memory::from(&[control]);
            let args = [M(&t.items), M(&mc), F(momentum), I(i32::from(nesterov))];
            launch_with("sgd", &BLOCKS, &args, &t.regions());
            let (mu, scale) = (f64::from(momentum), f64::from(control));
            for ((got, [p, g, m, v, top]), numbers) in t.values().iter().zip(before).zip(&t.numbers)
            {
                let [rate, share, decay, _] = numbers.map(f64::from);
                for i in 0..p.len() {
                    let mut want = [p[i], g[i], m[i], v[i], top[i]];
                    if !control.is_nan() {
                        let grad = scale * g[i] + decay * p[i];
                        want[2] = mu * m[i] + share * grad;
                        let step = if nesterov {
                            grad + mu * want[2]
                        } else {
                            want[2]
                        };
                        want[0] = p[i] - rate * step;
                    }
                    let got = got.each_ref().map(|x| x[i]);
                    close("sgd", &got, &want, 1e-6, 1e-6);
                }
            }
        }
    }
}

pub fn ema() {
    let alpha = 0.75f32;
    let t = tensors();
    let before = t.values();
    launch_with("ema", &BLOCKS, &[M(&t.items), F(alpha)], &t.regions());
    for (got, [p, g, ..]) in t.values().iter().zip(before) {
        let want: Vec<f64> = p.iter().zip(&g).map(|(p, g)| 0.75 * p + 0.25 * g).collect();
        close("ema", &got[0], &want, 1e-6, 1e-7);
    }
}
