use half::bf16;

use crate::support::*;

fn positive(x: f64) -> f64 {
    if x < 0.0 { 0.0 } else { x }
}

fn affine_of<T: Real>() {
    for (v, ending) in variants::<T>() {
        for (width, rows, groups) in [(v, 1, 1), (3 * v, 7, 1), (5 * v, 11, 3), (v, 300, 5)] {
            let group = width * rows;
            let n = group * groups;
            let x: Vec<T> = random(1, n);
            let residual: Vec<T> = random(2, n);
            let scale: Vec<f32> = random(3, groups * width);
            let bias: Vec<f32> = random(4, groups * width);
            for options in 0..16 {
                let [scaled, biased, added, relu] = [1, 2, 4, 8].map(|bit| options & bit != 0);
                let (mx, mr) = (Memory::from(&x), Memory::from(&residual));
                let (ms, mb) = (Memory::from(&scale), Memory::from(&bias));
                let fresh = Memory::<T>::new(n);
                // Into new memory, over the input, or over the shortcut.
                let y = match options % 3 {
                    0 => &fresh,
                    1 => &mx,
                    _ if added => &mr,
                    _ => &fresh,
                };
                let args = [
                    M(&mx),
                    maybe(scaled.then_some(&ms)),
                    maybe(biased.then_some(&mb)),
                    maybe(added.then_some(&mr)),
                    M(y),
                    L(n as i64),
                    I(width as i32),
                    L(group as i64),
                    I(i32::from(relu)),
                ];
                launch_any(&format!("affine_{ending}"), &args);
                let want: Vec<f64> = (0..n)
                    .map(|i| {
                        let c = i / group * width + i % width;
                        let mut sum = x[i].get();
                        if scaled {
                            sum *= f64::from(scale[c]);
                        }
                        if biased {
                            sum += f64::from(bias[c]);
                        }
                        if added {
                            sum += residual[i].get();
                        }
                        if relu { positive(sum) } else { sum }
                    })
                    .collect();
                close(&ending, &y.reals(), &want, T::ROUNDING, 1e-6);
            }
        }
    }
}

pub fn affine() {
    affine_of::<f32>();
    affine_of::<bf16>();
}

pub fn affine_passes_nan_through() {
    let x = Memory::from(&[f32::NAN, -1.0, f32::NEG_INFINITY, f32::INFINITY]);
    let y = Memory::<f32>::new(4);
    let args = [M(&x), Null, Null, Null, M(&y), L(4), I(4), L(4), I(1)];
    launch_any("affine_f32_4", &args);
    close(
        "relu",
        &y.reals(),
        &[f64::NAN, 0.0, 0.0, f64::INFINITY],
        0.0,
        0.0,
    );
}

fn add_of<T: Real>() {
    for (v, ending) in variants::<T>() {
        for n in [v, 7 * v, 257 * v, 1031 * v] {
            for relu in [false, true] {
                let (a, b): (Vec<T>, Vec<T>) = (random(1, n), random(2, n));
                let (ma, mb, fresh) = (Memory::from(&a), Memory::from(&b), Memory::new(n));
                let y = if n % 2 == 0 { &ma } else { &fresh };
                let args = [M(&ma), M(&mb), M(y), L(n as i64), I(i32::from(relu))];
                launch_any(&format!("add_{ending}"), &args);
                let want: Vec<f64> = (0..n)
                    .map(|i| {
                        let sum = a[i].get() + b[i].get();
                        if relu { positive(sum) } else { sum }
                    })
                    .collect();
                close("add", &y.reals(), &want, T::ROUNDING, 1e-7);
            }
        }
    }
}

pub fn add() {
    add_of::<f32>();
    add_of::<bf16>();
}

fn relu_backward_of<T: Real>() {
    for (v, ending) in variants::<T>() {
        let n = 1031 * v;
        let mut y: Vec<T> = random(1, n);
        let dy: Vec<T> = random(2, n);
        for (i, special) in [0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY]
            .iter()
            .enumerate()
        {
            y[i * v] = T::of(*special);
        }
        let (my, md) = (Memory::from(&y), Memory::from(&dy));
        launch_any(
            &format!("relu_backward_{ending}"),
            &[M(&my), M(&md), L(n as i64)],
        );
        let want: Vec<f64> = (0..n)
            .map(|i| if y[i].get() > 0.0 { dy[i].get() } else { 0.0 })
            .collect();
        close("relu_backward", &md.reals(), &want, 0.0, 0.0);
    }
}

pub fn relu_backward() {
    relu_backward_of::<f32>();
    relu_backward_of::<bf16>();
}

fn leaky_of<T: Real>() {
    let slope = 0.1f32;
    // With `skip` no vector may be read.
    for (n, skip) in [(1, 0), (7, 0), (1031, 0), (4096, 0), (1030, 1)] {
        let bytes = (skip * size_of::<T>()) as u64;
        let (x, dy): (Vec<T>, Vec<T>) = (random(1, n + skip), random(2, n + skip));
        let (mx, md) = (Memory::from(&x), Memory::from(&dy));
        let (y, dx) = (Memory::<T>::new(n + skip), Memory::<T>::new(n + skip));
        let args = [At(&mx, bytes), At(&y, bytes), F(slope), L(n as i64)];
        launch_any(&format!("leaky_relu_{}", T::NAME), &args);
        let args = [
            At(&mx, bytes),
            At(&md, bytes),
            At(&dx, bytes),
            F(slope),
            L(n as i64),
        ];
        launch_any(&format!("leaky_relu_backward_{}", T::NAME), &args);
        let leaky = |x: f64, v: f64| if x > 0.0 { v } else { f64::from(slope) * v };
        let want_y: Vec<f64> = x[skip..].iter().map(|x| leaky(x.get(), x.get())).collect();
        let want_dx: Vec<f64> = (skip..n + skip)
            .map(|i| leaky(x[i].get(), dy[i].get()))
            .collect();
        close("leaky_relu", &y.reals()[skip..], &want_y, T::ROUNDING, 0.0);
        close(
            "leaky_relu_backward",
            &dx.reals()[skip..],
            &want_dx,
            T::ROUNDING,
            0.0,
        );
    }
}

pub fn leaky_relu() {
    leaky_of::<f32>();
    leaky_of::<bf16>();
}

fn transpose_of<X: Real, Y: Real>() {
    for (batches, rows, cols) in [(1, 1, 1), (2, 3, 70), (3, 33, 31), (2, 64, 32), (1, 5, 129)] {
        let len = batches * rows * cols;
        let x: Vec<X> = random(1, len);
        let (mx, y) = (Memory::from(&x), Memory::<Y>::new(len));
        let grid = [
            cols.div_ceil(32) as u32,
            rows.div_ceil(32) as u32,
            batches as u32,
        ];
        let args = [
            M(&mx),
            M(&y),
            I(batches as i32),
            I(rows as i32),
            I(cols as i32),
        ];
        launch(&format!("transpose_{}_{}", X::NAME, Y::NAME), grid, &args);
        let mut want = vec![0.0; len];
        for b in 0..batches {
            for r in 0..rows {
                for c in 0..cols {
                    want[(b * cols + c) * rows + r] =
                        Y::of(x[(b * rows + r) * cols + c].get()).get();
                }
            }
        }
        close("transpose", &y.reals(), &want, 0.0, 0.0);
    }
}

pub fn transpose() {
    transpose_of::<f32, f32>();
    transpose_of::<f32, bf16>();
    transpose_of::<bf16, f32>();
}

fn column_sums_of<T: Real>() {
    for (rows, width, chunk) in [
        (1, 1, 1),
        (5, 33, 8),
        (100, 70, 32),
        (257, 3, 100),
        (64, 32, 64),
    ] {
        let chunks = usize::div_ceil(rows, chunk);
        let x: Vec<T> = random(1, rows * width);
        let (mx, part, out) = (
            Memory::from(&x),
            Memory::<f64>::new(chunks * width),
            Memory::<f32>::new(width),
        );
        let grid = [width.div_ceil(32) as u32, chunks as u32, 1];
        let args = [
            M(&mx),
            M(&part),
            L(rows as i64),
            I(width as i32),
            I(chunk as i32),
        ];
        launch(&format!("column_sums_{}", T::NAME), grid, &args);
        let sum = |rows: std::ops::Range<usize>, c: usize| -> f64 {
            rows.map(|r| x[r * width + c].get()).sum()
        };
        let want: Vec<f64> = (0..chunks * width)
            .map(|i| {
                sum(
                    i / width * chunk..((i / width + 1) * chunk).min(rows),
                    i % width,
                )
            })
            .collect();
        close("column_sums", &part.get(), &want, 1e-12, 1e-12);
        launch_any(
            "column_sums_end",
            &[M(&part), M(&out), I(chunks as i32), I(width as i32)],
        );
        let want: Vec<f64> = (0..width).map(|c| sum(0..rows, c)).collect();
        close("column_sums_end", &out.reals(), &want, 1e-7, 1e-9);
    }
}

pub fn column_sums() {
    column_sums_of::<f32>();
    column_sums_of::<bf16>();
}

/// Bit patterns around every tie, and what is not a number: as the `half` crate rounds them.
pub fn bf16_is_rounded_to_even() {
    let mut x: Vec<f32> = Vec::new();
    for upper in [
        0u32, 1, 0x007f, 0x0080, 0x3f7f, 0x3f80, 0x3f81, 0x7f7e, 0x7f7f, 0x7f80, 0x7fc0,
    ] {
        for lower in [0u32, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
            for sign in [0, 0x8000_0000] {
                x.push(f32::from_bits(sign | upper << 16 | lower));
            }
        }
    }
    let (mx, y) = (Memory::from(&x), Memory::<bf16>::new(x.len()));
    let args = [M(&mx), M(&y), I(1), I(1), I(x.len() as i32)];
    launch(
        "transpose_f32_bf16",
        [x.len().div_ceil(32) as u32, 1, 1],
        &args,
    );
    for (x, y) in x.iter().zip(y.get()) {
        let want = bf16::from_f32(*x);
        let same = y.to_bits() == want.to_bits() || (y.is_nan() && want.is_nan());
        assert!(same, "{x:e} became {y:e}, not {want:e}");
    }
}
