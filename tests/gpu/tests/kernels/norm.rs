use half::bf16;

use crate::support::*;

/// Rows of a group, width in vectors, groups, rows of a chunk.
const SHAPES: [(usize, usize, usize, usize); 6] = [
    (1, 1, 1, 1),
    (3, 1, 2, 8),
    (67, 5, 1, 32),
    (100, 33, 3, 40),
    (40, 3, 5, 13),
    (300, 2, 1, 512),
];

fn grid(width: usize, v: usize, chunks: usize, groups: usize) -> [u32; 3] {
    [
        (width / v).div_ceil(32) as u32,
        chunks as u32,
        groups as u32,
    ]
}

/// Mean and sum of squared deviations of each chunk, laid out as the kernel does.
fn chunk_moments(x: &[f64], rows: usize, width: usize, groups: usize, chunk: usize) -> Vec<f64> {
    let chunks = rows.div_ceil(chunk);
    let mut out = vec![0.0; groups * chunks * 2 * width];
    for g in 0..groups {
        for k in 0..chunks {
            for c in 0..width {
                let values: Vec<f64> = (k * chunk..((k + 1) * chunk).min(rows))
                    .map(|r| x[(g * rows + r) * width + c])
                    .collect();
                let mean = values.iter().sum::<f64>() / values.len() as f64;
                let at = (g * chunks + k) * 2 * width + c;
                out[at] = mean;
                out[at + width] = values.iter().map(|v| (v - mean).powi(2)).sum();
            }
        }
    }
    out
}

fn moments_of<T: Real>(value: impl Fn(usize) -> f64, tolerance: f64) {
    for (v, ending) in variants::<T>() {
        for (rows, vectors, groups, chunk) in SHAPES {
            let (width, chunks) = (vectors * v, rows.div_ceil(chunk));
            let x: Vec<T> = (0..groups * rows * width)
                .map(|i| T::of(value(i)))
                .collect();
            let (mx, out) = (
                Memory::from(&x),
                Memory::<f32>::new(groups * chunks * 2 * width),
            );
            let args = [
                M(&mx),
                M(&out),
                L(rows as i64),
                I(width as i32),
                I(chunk as i32),
            ];
            launch(
                &format!("norm_moments_{ending}"),
                grid(width, v, chunks, groups),
                &args,
            );
            let want = chunk_moments(&reals(&x), rows, width, groups, chunk);
            let got = out.reals();
            for at in (0..want.len()).step_by(2 * width) {
                let (mean, squares) = (at..at + width, at + width..at + 2 * width);
                close("mean", &got[mean.clone()], &want[mean], 3e-7, 1e-6);
                close(
                    "squares",
                    &got[squares.clone()],
                    &want[squares],
                    tolerance,
                    1e-6,
                );
            }
        }
    }
}

pub fn moments() {
    moments_of::<f32>(|i| noise(1, i), 1e-5);
    moments_of::<bf16>(|i| noise(1, i), 1e-5);
}

/// Also with one value far from all others, wherever it is.
pub fn moments_of_a_large_mean() {
    moments_of::<f32>(|i| 1000.0 + noise(1, i), 1e-3);
    moments_of::<f32>(|i| if i % 97 == 0 { 1e4 } else { noise(1, i) }, 1e-5);
    moments_of::<bf16>(|i| 100.0 + noise(1, i), 1e-3);
}

pub fn moments_end() {
    for (rows, width, groups, chunk) in SHAPES {
        for per_group in [false, true] {
            let (chunks, eps) = (rows.div_ceil(chunk), 1e-5);
            let x: Vec<f64> = (0..groups * rows * width)
                .map(|i| 3.0 + noise(5, i))
                .collect();
            let moments: Vec<f32> = chunk_moments(&x, rows, width, groups, chunk)
                .iter()
                .map(|m| *m as f32)
                .collect();
            let weights = if per_group { groups * width } else { width };
            let (w, b): (Vec<f32>, Vec<f32>) = (random(2, weights), random(3, weights));
            let (mm, mw, mb) = (Memory::from(&moments), Memory::from(&w), Memory::from(&b));
            let out: [Memory<f32>; 5] = std::array::from_fn(|_| Memory::new(groups * width));
            let mut args = vec![
                M(&mm),
                I(chunks as i32),
                L(rows as i64),
                I(chunk as i32),
                I(width as i32),
                I(groups as i32),
                D(eps),
                M(&mw),
                M(&mb),
                I(i32::from(per_group)),
            ];
            args.extend(out.iter().map(|m| M(m)));
            launch_any("norm_moments_end", &args);
            let mut want: [Vec<f64>; 5] = Default::default();
            for g in 0..groups {
                for c in 0..width {
                    let values: Vec<f64> =
                        (0..rows).map(|r| x[(g * rows + r) * width + c]).collect();
                    let mean = values.iter().sum::<f64>() / rows as f64;
                    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
                    let inv_std = 1.0 / (squares / rows as f64 + eps).sqrt();
                    let own = if per_group { g * width + c } else { c };
                    let scale = inv_std * f64::from(w[own]);
                    want[0].push(mean);
                    want[1].push(inv_std);
                    want[2].push(squares / (rows as f64 - 1.0).max(1.0));
                    want[3].push(scale);
                    want[4].push(f64::from(b[own]) - mean * scale);
                }
            }
            // A variance of 0 leaves a large factor, and so the mean's rounding in the shift.
            let absolute = if rows == 1 { 1e-3 } else { 1e-5 };
            for (i, (out, want)) in out.iter().zip(&want).enumerate() {
                close(
                    &format!("norm_moments_end {i}"),
                    &out.reals(),
                    want,
                    1e-5,
                    absolute,
                );
            }
        }
    }
}

fn sums_of<T: Real>() {
    for (v, ending) in variants::<T>() {
        for (rows, vectors, groups, chunk) in SHAPES {
            for masked in [false, true] {
                let (width, chunks) = (vectors * v, rows.div_ceil(chunk));
                let n = groups * rows * width;
                let (x, y, dy): (Vec<T>, Vec<T>, Vec<T>) =
                    (random(1, n), random(2, n), random(3, n));
                let mean: Vec<f32> = random(4, groups * width);
                let (mx, my, md) = (Memory::from(&x), Memory::from(&y), Memory::from(&dy));
                let (mm, out) = (
                    Memory::from(&mean),
                    Memory::<f32>::new(groups * chunks * 2 * width),
                );
                let args = [
                    M(&mx),
                    maybe(masked.then_some(&my)),
                    M(&md),
                    M(&mm),
                    M(&out),
                    L(rows as i64),
                    I(width as i32),
                    I(chunk as i32),
                ];
                launch(
                    &format!("norm_sums_{ending}"),
                    grid(width, v, chunks, groups),
                    &args,
                );
                let g: Vec<f64> = (0..n)
                    .map(|i| {
                        if masked && y[i].get() <= 0.0 {
                            0.0
                        } else {
                            dy[i].get()
                        }
                    })
                    .collect();
                let mut want = vec![0.0; groups * chunks * 2 * width];
                for (i, g) in g.iter().enumerate() {
                    let (row, c) = (i / width, i % width);
                    let (group, k) = (row / rows, row % rows / chunk);
                    let at = (group * chunks + k) * 2 * width + c;
                    want[at] += g;
                    want[at + width] += g * (x[i].get() - f64::from(mean[group * width + c]));
                }
                close("masked gradient", &md.reals(), &g, 0.0, 0.0);
                close("norm_sums", &out.reals(), &want, 1e-5, 1e-5);
            }
        }
    }
}

pub fn sums() {
    sums_of::<f32>();
    sums_of::<bf16>();
}

pub fn sums_end() {
    for (rows, width, groups, chunk) in SHAPES {
        for options in 0..4 {
            let (per_group, frozen) = (options & 1 != 0, options & 2 != 0);
            let chunks = rows.div_ceil(chunk);
            let sums: Vec<f32> = random(1, groups * chunks * 2 * width);
            let weights = if per_group { groups * width } else { width };
            let w: Vec<f32> = random(2, weights);
            let mean: Vec<f32> = random(3, groups * width);
            let inv_std: Vec<f32> = (0..groups * width)
                .map(|i| 2.0 + noise(4, i) as f32)
                .collect();
            let (ms, mw, mm, mi) = (
                Memory::from(&sums),
                Memory::from(&w),
                Memory::from(&mean),
                Memory::from(&inv_std),
            );
            let (dw, db) = (Memory::<f32>::new(weights), Memory::<f32>::new(weights));
            let abc: [Memory<f32>; 3] = std::array::from_fn(|_| Memory::new(groups * width));
            let mut args = vec![
                M(&ms),
                I(chunks as i32),
                L(rows as i64),
                I(width as i32),
                I(groups as i32),
                M(&mw),
                I(i32::from(per_group)),
                M(&mm),
                M(&mi),
                I(i32::from(frozen)),
                M(&dw),
                M(&db),
            ];
            args.extend(abc.iter().map(|m| M(m)));
            launch_any("norm_sums_end", &args);
            let (mut want_w, mut want_b) = (vec![0.0; weights], vec![0.0; weights]);
            let mut want: [Vec<f64>; 3] = Default::default();
            for g in 0..groups {
                for c in 0..width {
                    let own = if per_group { g * width + c } else { c };
                    let total = |from: usize| -> f64 {
                        (0..chunks)
                            .map(|k| f64::from(sums[(g * chunks + k) * 2 * width + from + c]))
                            .sum()
                    };
                    let (sum, along, is) =
                        (total(0), total(width), f64::from(inv_std[g * width + c]));
                    want_w[own] += along * is;
                    want_b[own] += sum;
                    let scale = f64::from(w[own]) * is;
                    let slope = if frozen {
                        0.0
                    } else {
                        -scale * is * is * along / rows as f64
                    };
                    let shift = -scale * sum / rows as f64 - slope * f64::from(mean[g * width + c]);
                    want[0].push(scale);
                    want[1].push(slope);
                    want[2].push(if frozen { 0.0 } else { shift });
                }
            }
            close("dw", &dw.reals(), &want_w, 1e-6, 1e-6);
            close("db", &db.reals(), &want_b, 1e-6, 1e-6);
            for (m, want) in abc.iter().zip(&want) {
                close("coefficients", &m.reals(), want, 1e-6, 1e-6);
            }
        }
    }
}

fn combine_of<T: Real>() {
    for (v, ending) in variants::<T>() {
        for (width, rows, groups) in [(v, 1, 1), (3 * v, 50, 1), (5 * v, 11, 3)] {
            let (group, n) = (width * rows, width * rows * groups);
            let (x, dy): (Vec<T>, Vec<T>) = (random(1, n), random(2, n));
            let abc: [Vec<f32>; 3] = [3, 4, 5].map(|seed| random(seed, groups * width));
            for aliased in [false, true] {
                let (mx, md, fresh) = (Memory::from(&x), Memory::from(&dy), Memory::new(n));
                let dx = if aliased { &md } else { &fresh };
                let coefficients = abc.each_ref().map(|c| Memory::from(c));
                let [a, b, c] = &coefficients;
                let args = [
                    M(&mx),
                    M(&md),
                    M(dx),
                    M(a),
                    M(b),
                    M(c),
                    L(n as i64),
                    I(width as i32),
                    L(group as i64),
                ];
                launch_any(&format!("norm_combine_{ending}"), &args);
                let want: Vec<f64> = (0..n)
                    .map(|i| {
                        let [a, b, c] = abc
                            .each_ref()
                            .map(|k| f64::from(k[i / group * width + i % width]));
                        a * dy[i].get() + b * x[i].get() + c
                    })
                    .collect();
                close("norm_combine", &dx.reals(), &want, T::ROUNDING, 1e-6);
            }
        }
    }
}

pub fn combine() {
    combine_of::<f32>();
    combine_of::<bf16>();
}

pub fn fold_and_running() {
    for width in [1, 7, 300] {
        let eps = 1e-3;
        let [w, b, mean]: [Vec<f32>; 3] = [1, 2, 3].map(|seed| random(seed, width));
        let var: Vec<f32> = (0..width).map(|i| 1.5 + noise(4, i) as f32).collect();
        let inputs = [&w, &b, &mean, &var].map(|x| Memory::from(x));
        let out: [Memory<f32>; 3] = std::array::from_fn(|_| Memory::new(width));
        let mut args: Vec<A> = inputs.iter().map(|m| M(m)).collect();
        args.push(D(eps));
        args.extend(out.iter().map(|m| M(m)));
        args.push(I(width as i32));
        launch_any("norm_fold", &args);
        let is: Vec<f64> = var
            .iter()
            .map(|v| 1.0 / (f64::from(*v) + eps).sqrt())
            .collect();
        let scale: Vec<f64> = (0..width).map(|c| is[c] * f64::from(w[c])).collect();
        let shift: Vec<f64> = (0..width)
            .map(|c| f64::from(b[c]) - f64::from(mean[c]) * scale[c])
            .collect();
        close("scale", &out[0].reals(), &scale, 1e-6, 1e-7);
        close("shift", &out[1].reals(), &shift, 1e-6, 1e-6);
        close("inv_std", &out[2].reals(), &is, 1e-6, 0.0);

        let (groups, momentum) = (3, 0.1);
        let fresh: Vec<f32> = random(6, groups * width);
        let (running, mf) = (Memory::from(&mean), Memory::from(&fresh));
        launch_any(
            "norm_running",
            &[
                M(&running),
                M(&mf),
                I(groups as i32),
                I(width as i32),
                D(momentum),
            ],
        );
        let want: Vec<f64> = (0..width)
            .map(|c| {
                let sum: f64 = (0..groups).map(|g| f64::from(fresh[g * width + c])).sum();
                (1.0 - momentum) * f64::from(mean[c]) + momentum * sum / groups as f64
            })
            .collect();
        close("norm_running", &running.reals(), &want, 1e-6, 1e-8);
    }
}
