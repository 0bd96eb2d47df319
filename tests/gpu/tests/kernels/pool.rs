use std::ops::Range;

use half::bf16;

use crate::support::*;

/// Values with many equal ones among them, and some that are not numbers or not finite.
fn uneven<T: Real>(seed: u64, len: usize) -> Vec<T> {
    (0..len)
        .map(|i| {
            let x = noise(seed, i);
            T::of(match i % 41 {
                3 => f64::NAN,
                5 | 6 => f64::NEG_INFINITY,
                7 => f64::INFINITY,
                _ => (x * 4.0).round() / 4.0,
            })
        })
        .collect()
}

/// Maximum over the window of one channel of one image, and where it is.
fn maximum(
    x: &[f64],
    w: usize,
    c: usize,
    channel: usize,
    ys: Range<usize>,
    xs: Range<usize>,
) -> (f64, u32) {
    let mut best = (f64::NEG_INFINITY, (ys.start * w + xs.start) as u32);
    for iy in ys {
        for ix in xs.clone() {
            let v = x[(iy * w + ix) * c + channel];
            if v > best.0 || v.is_nan() {
                best = (v, (iy * w + ix) as u32);
            }
        }
    }
    best
}

fn max_pool_of<T: Real>() {
    // Batch, height, width, channels; kernel, stride, padding.
    let shapes = [
        ([1, 1, 1, 1], [1, 1], [1, 1], [0, 0]),
        ([2, 7, 5, 3], [3, 3], [2, 2], [1, 1]),
        ([2, 8, 6, 8], [3, 3], [2, 2], [1, 1]),
        ([1, 9, 4, 16], [2, 3], [3, 1], [1, 0]),
        ([1, 6, 6, 12], [4, 2], [1, 2], [2, 1]),
    ];
    for ([n, h, w, c], [kh, kw], [sh, sw], [ph, pw]) in shapes {
        let (oh, ow) = ((h + 2 * ph - kh) / sh + 1, (w + 2 * pw - kw) / sw + 1);
        let (ins, outs) = (n * h * w * c, n * oh * ow * c);
        let x: Vec<T> = uneven(1, ins);
        let (mx, y, at) = (
            Memory::from(&x),
            Memory::<T>::new(outs),
            Memory::<u32>::new(outs),
        );
        let sizes = [n, h, w, c, oh, ow, kh, kw, sh, sw, ph, pw].map(|v| I(v as i32));
        let mut args = vec![M(&mx), M(&y), M(&at)];
        args.extend(sizes);
        launch_any(&format!("max_pool_{}", T::NAME), &args);
        let (mut want, mut want_at) = (vec![], vec![]);
        let values = reals(&x);
        for image in values.chunks(h * w * c) {
            for oy in 0..oh {
                for ox in 0..ow {
                    let clip = |o: usize, s: usize, p: usize, k: usize, len: usize| {
                        (o * s).saturating_sub(p)..(o * s + k).saturating_sub(p).min(len)
                    };
                    for channel in 0..c {
                        let (ys, xs) = (clip(oy, sh, ph, kh, h), clip(ox, sw, pw, kw, w));
                        let (v, p) = maximum(image, w, c, channel, ys, xs);
                        want.push(v);
                        want_at.push(p);
                    }
                }
            }
        }
        close("max_pool", &y.reals(), &want, 0.0, 0.0);
        assert_eq!(at.get(), want_at);

        let dy: Vec<T> = random(2, outs);
        let (md, dx) = (Memory::from(&dy), Memory::<T>::new(ins));
        let mut args = vec![M(&at), M(&md), M(&dx)];
        args.extend(sizes);
        launch_any(&format!("max_pool_backward_{}", T::NAME), &args);
        let mut want = vec![0.0; ins];
        for (i, (p, d)) in want_at.iter().zip(&dy).enumerate() {
            want[(i / (oh * ow * c) * h * w + *p as usize) * c + i % c] += d.get();
        }
        close("max_pool_backward", &dx.reals(), &want, T::ROUNDING, 1e-6);
    }
}

pub fn max_pool() {
    max_pool_of::<f32>();
    max_pool_of::<bf16>();
}

fn pairs(ranges: &[Range<usize>]) -> Memory<i32> {
    let flat: Vec<i32> = ranges
        .iter()
        .flat_map(|r| [r.start as i32, r.end as i32])
        .collect();
    Memory::from(&flat)
}

fn one(range: Range<usize>) -> Vec<Range<usize>> {
    std::iter::once(range).collect()
}

/// For each of `len` pixels, first and end of the windows that may contain it.
fn cover(ranges: &[Range<usize>], len: usize) -> Vec<Range<usize>> {
    (0..len)
        .map(|i| {
            let own: Vec<usize> = (0..ranges.len())
                .filter(|r| ranges[*r].contains(&i))
                .collect();
            own.first()
                .map_or(0..0, |first| *first..own[own.len() - 1] + 1)
        })
        .collect()
}

fn windows_of<T: Real>() {
    // Overlapping, empty, out of order, leaving pixels out.
    let cases: [([usize; 4], Vec<Range<usize>>, Vec<Range<usize>>); 4] = [
        ([2, 8, 4, 8], vec![0..3, 2..6, 2..2, 5..8], one(0..4)),
        ([1, 5, 3, 3], vec![3..5, 0..2], vec![0..2, 1..3]),
        (
            [3, 6, 6, 16],
            vec![0..6, 1..2, 4..5],
            vec![0..1, 0..6, 3..5],
        ),
        ([1, 1, 1, 1], one(0..1), one(0..1)),
    ];
    for ([n, h, w, c], ys, xs) in cases {
        let (rows, cols) = (ys.len(), xs.len());
        let (ins, outs) = (n * h * w * c, n * rows * cols * c);
        let weights: Vec<f32> = random(1, rows * cols);
        let (my, mx, mw) = (pairs(&ys), pairs(&xs), Memory::from(&weights));
        let (ycover, xcover) = (pairs(&cover(&ys, h)), pairs(&cover(&xs, w)));
        let size = [n, h, w, c].map(|v| I(v as i32));
        let windows = [M(&my), I(rows as i32), M(&mx), I(cols as i32)];
        let covers = [M(&ycover), M(&xcover)];

        let x: Vec<T> = random(2, ins);
        let (from, sums) = (Memory::from(&x), Memory::<T>::new(outs));
        let args = [&[M(&from), M(&sums)][..], &windows, &[M(&mw)], &size].concat();
        launch_any(&format!("window_sum_{}", T::NAME), &args);
        // (result, image, window, pixel, channel) of every pair of a window and a pixel in it.
        let each = |f: &mut dyn FnMut(usize, usize, usize)| {
            for image in 0..n {
                for (window, (r, q)) in (0..rows)
                    .flat_map(|r| (0..cols).map(move |q| (r, q)))
                    .enumerate()
                {
                    for iy in ys[r].clone() {
                        for ix in xs[q].clone() {
                            for channel in 0..c {
                                let out = (image * rows * cols + window) * c + channel;
                                f(out, window, ((image * h + iy) * w + ix) * c + channel);
                            }
                        }
                    }
                }
            }
        };
        let mut want = vec![0.0; outs];
        each(&mut |out, window, pixel| want[out] += f64::from(weights[window]) * x[pixel].get());
        close("window_sum", &sums.reals(), &want, T::ROUNDING, 1e-5);

        let y: Vec<T> = random(3, outs);
        let (from, to) = (Memory::from(&y), Memory::<T>::new(ins));
        let args = [&[M(&from), M(&to)][..], &windows, &[M(&mw)], &covers, &size].concat();
        launch_any(&format!("window_spread_{}", T::NAME), &args);
        let mut want = vec![0.0; ins];
        each(&mut |out, window, pixel| want[pixel] += f64::from(weights[window]) * y[out].get());
        close("window_spread", &to.reals(), &want, T::ROUNDING, 1e-5);

        let x: Vec<T> = uneven(4, ins);
        let (from, best, at) = (
            Memory::from(&x),
            Memory::<T>::new(outs),
            Memory::<u32>::new(outs),
        );
        let args = [&[M(&from), M(&best), M(&at)][..], &windows, &size].concat();
        launch_any(&format!("window_max_{}", T::NAME), &args);
        let values = reals(&x);
        let (mut want, mut want_at) = (vec![], vec![]);
        for image in values.chunks(h * w * c) {
            for y in &ys {
                for x in &xs {
                    for channel in 0..c {
                        let (v, p) = maximum(image, w, c, channel, y.clone(), x.clone());
                        want.push(v);
                        want_at.push(p);
                    }
                }
            }
        }
        close("window_max", &best.reals(), &want, 0.0, 0.0);
        assert_eq!(at.get(), want_at);

        let dx = Memory::<T>::new(ins);
        let dy = Memory::from(&y);
        let args = [&[M(&at), M(&dy), M(&dx)][..], &windows, &covers, &size].concat();
        launch_any(&format!("window_max_backward_{}", T::NAME), &args);
        let mut want = vec![0.0; ins];
        // A window without pixels has no maximum, and so gives its gradient to none.
        each(&mut |out, _, pixel| {
            if want_at[out] as usize == pixel / c % (h * w) {
                want[pixel] += y[out].get();
            }
        });
        close("window_max_backward", &dx.reals(), &want, T::ROUNDING, 1e-6);
    }
}

pub fn windows() {
    windows_of::<f32>();
    windows_of::<bf16>();
}

fn global_of<T: Real>() {
    for (n, space, c) in [(1, 1, 1), (2, 12, 5), (3, 32, 8), (2, 33, 300)] {
        for kind in 0..3 {
            let (ins, outs) = (n * space * c, n * c);
            let x: Vec<T> = match kind {
                1 => uneven(1, ins),
                // Also below the clamp.
                2 => (0..ins).map(|i| T::of(noise(1, i) + 0.3)).collect(),
                _ => random(1, ins),
            };
            let (p, eps) = (3.1f32, 1e-3f32);
            let (mp, mx, y) = (
                Memory::from(&[p]),
                Memory::from(&x),
                Memory::<f32>::new(outs),
            );
            let given = maybe((kind == 2).then_some(&mp));
            let sizes = [n, space, c].map(|v| I(v as i32));
            let args = [&[M(&mx), M(&y)][..], &sizes, &[I(kind), given, F(eps)]].concat();
            launch_any(&format!("global_pool_{}", T::NAME), &args);
            let values = reals(&x);
            let (exponent, floor) = (f64::from(p), f64::from(eps));
            let channel = |at: usize| -> Vec<f64> {
                (0..space)
                    .map(|s| values[(at / c * space + s) * c + at % c])
                    .collect()
            };
            let count = space as f64;
            let want: Vec<f64> = (0..outs)
                .map(|at| match kind {
                    0 => channel(at).iter().sum::<f64>() / count,
                    1 => maximum(&channel(at), space, 1, 0, 0..1, 0..space).0,
                    _ => {
                        let sum: f64 = channel(at)
                            .iter()
                            .map(|v| v.max(floor).powf(exponent))
                            .sum();
                        (sum / count).powf(1.0 / exponent)
                    }
                })
                .collect();
            close("global_pool", &y.reals(), &want, 2e-6, 1e-6);

            let dy: Vec<f32> = random(2, outs);
            let (md, dx, dp) = (
                Memory::from(&dy),
                Memory::<T>::new(ins),
                Memory::<f64>::new(outs),
            );
            let partial = maybe((kind == 2).then_some(&dp));
            let args = [
                &[M(&mx), M(&y), M(&md), M(&dx), partial][..],
                &sizes,
                &[I(kind), given, F(eps)],
            ]
            .concat();
            launch_any(&format!("global_pool_backward_{}", T::NAME), &args);
            let (mut want_x, mut want_p) = (vec![0.0; ins], vec![]);
            for at in 0..outs {
                let (own, g) = (channel(at), f64::from(dy[at]));
                let result = f64::from(y.get()[at]);
                let first = own.iter().position(|v| *v == result).unwrap_or(0);
                let mean = own.iter().map(|v| v.max(floor).powf(exponent)).sum::<f64>() / count;
                let log_mean = own
                    .iter()
                    .map(|v| v.max(floor).powf(exponent) * v.max(floor).ln())
                    .sum::<f64>()
                    / count;
                for s in 0..space {
                    want_x[(at / c * space + s) * c + at % c] = match kind {
                        0 => g / count,
                        1 => f64::from(u8::from(s == first)) * g,
                        _ if own[s] >= floor => {
                            g * result / mean * own[s].powf(exponent - 1.0) / count
                        }
                        _ => 0.0,
                    };
                }
                want_p.push(
                    g * result * (log_mean / (exponent * mean) - mean.ln() / exponent.powi(2)),
                );
            }
            close(
                "global_pool_backward",
                &dx.reals(),
                &want_x,
                T::ROUNDING,
                1e-9,
            );
            if kind == 2 {
                close("dp", &dp.get(), &want_p, 1e-9, 1e-12);
            } else {
                assert!(
                    dp.get().iter().all(|v| v.is_nan()),
                    "written without being asked for"
                );
            }
        }
    }
}

pub fn global_pool() {
    global_of::<f32>();
    global_of::<bf16>();
}

pub fn sum_doubles() {
    for n in [1, 255, 256, 257, 5000] {
        let x: Vec<f64> = (0..n).map(|i| noise(1, i)).collect();
        let (mx, out) = (Memory::from(&x), Memory::<f32>::new(1));
        launch("sum_doubles", [1, 1, 1], &[M(&mx), M(&out), L(n as i64)]);
        close("sum_doubles", &out.reals(), &[x.iter().sum()], 1e-7, 1e-12);
    }
}
