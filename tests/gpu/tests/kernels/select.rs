use std::cmp::Ordering;

use crate::support::*;

/// Descending; NaN behind all others, equal values by index.
fn order(x: &[f32], a: u32, b: u32) -> Ordering {
    let (va, vb) = (x[a as usize], x[b as usize]);
    va.is_nan()
        .cmp(&vb.is_nan())
        .then(vb.partial_cmp(&va).unwrap_or(Ordering::Equal))
        .then(a.cmp(&b))
}

pub fn top_k() {
    for (rows, cols, k, pad) in [
        (1, 1, 1, 0),
        (3, 10, 10, 2),
        (2, 256, 30, 0),
        (4, 1000, 25, 7),
        (1, 2500, 300, 0),
        (2, 300, 0, 1),
    ] {
        let stride = cols + pad;
        let mut x: Vec<f32> = (0..rows * stride)
            .map(|i| (noise(1, i) * 20.0).round() as f32 / 4.0)
            .collect();
        for (i, x) in x.iter_mut().enumerate() {
            match i % 23 {
                1 => *x = f32::NAN,
                2 => *x = -f32::NAN,
                3 => *x = f32::NEG_INFINITY,
                4 => *x = f32::INFINITY,
                5 => *x = -0.0,
                6 => *x = 0.0,
                _ => {}
            }
        }
        let mx = Memory::from(&x);
        let indices = Memory::<u32>::new(rows * k);
        let args = [
            M(&mx),
            L(stride as i64),
            I(rows as i32),
            I(cols as i32),
            I(k as i32),
            M(&indices),
        ];
        launch("top_k", [rows as u32, 1, 1], &args);
        let mut want_indices = vec![];
        for row in x.chunks(stride) {
            let mut all: Vec<u32> = (0..cols as u32).collect();
            all.sort_by(|a, b| order(row, *a, *b));
            want_indices.extend_from_slice(&all[..k]);
        }
        assert_eq!(indices.get(), want_indices, "{rows} x {cols}");
    }
}

pub fn row_minimum() {
    for (rows, cols, pad) in [(1, 1, 0), (3, 255, 1), (2, 1000, 0), (2, 9, 3)] {
        let stride = cols + pad;
        let mut x: Vec<f32> = random(7, rows * stride);
        x[0] = f32::NAN;
        x[rows * stride - 1 - pad] = f32::NEG_INFINITY;
        let (mx, least) = (Memory::from(&x), Memory::<f32>::new(rows));
        let args = [
            M(&mx),
            L(stride as i64),
            I(rows as i32),
            I(cols as i32),
            M(&least),
        ];
        launch("row_minimum", [rows as u32, 1, 1], &args);
        // The minimum of Rust skips NaN, too.
        let row = |r: usize| x[r * stride..][..cols].iter().copied();
        let want: Vec<f64> = (0..rows)
            .map(|r| f64::from(row(r).fold(f32::INFINITY, f32::min)))
            .collect();
        close("row_minimum", &least.reals(), &want, 0.0, 0.0);
    }
}
