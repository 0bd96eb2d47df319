use half::bf16;

use crate::support::*;

fn filters_of<T: Real>() {
    for (o, c, taps) in [(1, 1, 1), (5, 3, 9), (4, 8, 1), (7, 33, 6)] {
        let len = o * c * taps;
        let (w, scale): (Vec<f32>, Vec<f32>) = (random(1, len), random(2, o));
        let (mw, ms) = (Memory::from(&w), Memory::from(&scale));
        let sizes = [o, c, taps].map(|v| I(v as i32));
        for scaled in [false, true] {
            let packed = Memory::<T>::new(len);
            let args = [
                &[M(&mw), maybe(scaled.then_some(&ms)), M(&packed)][..],
                &sizes,
            ]
            .concat();
            launch_any(&format!("pack_filters_{}", T::NAME), &args);
            let mut want = vec![0.0; len];
            let mut back = vec![0.0; len];
            let got = packed.reals();
            for filter in 0..o {
                for i in 0..c {
                    for t in 0..taps {
                        let (from, to) = ((filter * c + i) * taps + t, (filter * taps + t) * c + i);
                        want[to] = f64::from(w[from])
                            * if scaled {
                                f64::from(scale[filter])
                            } else {
                                1.0
                            };
                        back[from] = got[to];
                    }
                }
            }
            close("pack_filters", &got, &want, T::ROUNDING, 0.0);
            let unpacked = Memory::<f32>::new(len);
            let args = [&[M(&packed), M(&unpacked)][..], &sizes].concat();
            launch_any(&format!("unpack_filters_{}", T::NAME), &args);
            close("unpack_filters", &unpacked.reals(), &back, 0.0, 0.0);
        }
    }
}

pub fn filters() {
    filters_of::<f32>();
    filters_of::<bf16>();
}

/// Geometry without channels: batch, height, width; kernel, stride, padding, dilation.
const SHAPES: [([usize; 3], [usize; 2], [usize; 2], [usize; 2], [usize; 2]); 6] = [
    ([1, 1, 1], [1, 1], [1, 1], [0, 0], [1, 1]),
    ([2, 6, 5], [3, 3], [1, 1], [1, 1], [1, 1]),
    ([2, 7, 4], [3, 3], [2, 2], [1, 1], [1, 1]),
    ([1, 9, 8], [3, 2], [2, 3], [2, 0], [2, 1]),
    ([1, 8, 8], [1, 1], [2, 2], [0, 0], [1, 1]),
    ([2, 5, 7], [7, 7], [2, 2], [3, 3], [1, 1]),
];

fn columns_of<T: Real>() {
    for (v, ending) in variants::<T>() {
        for ([n, h, w], [kh, kw], [sh, sw], [ph, pw], [dh, dw]) in SHAPES {
            let out = |len: usize, k: usize, s: usize, p: usize, d: usize| {
                (len + 2 * p - d * (k - 1) - 1) / s + 1
            };
            let (oh, ow) = (out(h, kh, sh, ph, dh), out(w, kw, sw, pw, dw));
            for (groups, vectors) in [(1, 1), (1, 3), (2, 1), (3, 2)] {
                let cg = vectors * v;
                let c = groups * cg;
                let (pixels, rows, k) = (n * h * w, n * oh * ow, kh * kw * cg);
                let x: Vec<T> = random(1, pixels * c);
                let from: Vec<T> = random(2, rows * k);
                let before: Vec<T> = random(3, pixels * c);
                for group in 0..groups {
                    let c0 = group * cg;
                    let sizes = [n, h, w, c, c0, cg, oh, ow, kh, kw, sh, sw, ph, pw, dh, dw]
                        .map(|v| I(v as i32));
                    let (mx, cols) = (Memory::from(&x), Memory::<T>::new(rows * k));
                    let args = [&[M(&mx), M(&cols)][..], &sizes].concat();
                    launch_any(&format!("im2col_{ending}"), &args);
                    // The element of the map that each element of the columns is a copy of.
                    let source: Vec<Option<usize>> = (0..rows * k)
                        .map(|at| {
                            let (row, tap, i) = (at / k, at % k / cg, at % cg);
                            let y = (row / ow % oh * sh + tap / kw * dh) as i64 - ph as i64;
                            let x = (row % ow * sw + tap % kw * dw) as i64 - pw as i64;
                            let inside = (0..h as i64).contains(&y) && (0..w as i64).contains(&x);
                            inside.then(|| {
                                ((row / (oh * ow) * h + y as usize) * w + x as usize) * c + c0 + i
                            })
                        })
                        .collect();
                    let want: Vec<f64> = source
                        .iter()
                        .map(|s| s.map_or(0.0, |s| x[s].get()))
                        .collect();
                    close("im2col", &cols.reals(), &want, 0.0, 0.0);

                    for add in [false, true] {
                        let (mf, dx) = (Memory::from(&from), Memory::from(&before));
                        let args = [&[M(&mf), M(&dx)][..], &sizes, &[I(i32::from(add))]].concat();
                        launch_any(&format!("col2im_{ending}"), &args);
                        // Other groups' channels stay as they were.
                        let mut want: Vec<f64> = (0..pixels * c)
                            .map(|i| {
                                let own = (c0..c0 + cg).contains(&(i % c));
                                if own && !add { 0.0 } else { before[i].get() }
                            })
                            .collect();
                        for (s, value) in source.iter().zip(&from) {
                            if let Some(s) = s {
                                want[*s] += value.get();
                            }
                        }
                        close("col2im", &dx.reals(), &want, T::ROUNDING, 1e-5);
                    }
                }
            }
        }
    }
}

pub fn columns() {
    columns_of::<f32>();
    columns_of::<bf16>();
}
