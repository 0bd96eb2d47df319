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
        let (values, indices) = (Memory::<f32>::new(rows * k), Memory::<u32>::new(rows * k));
        let args = [
            M(&mx),
            L(stride as i64),
            I(rows as i32),
            I(cols as i32),
            I(k as i32),
            M(&values),
            M(&indices),
        ];
        launch("top_k", [rows as u32, 1, 1], &args);
        let (mut want, mut want_indices) = (vec![], vec![]);
        for row in x.chunks(stride) {
            let mut all: Vec<u32> = (0..cols as u32).collect();
            all.sort_by(|a, b| order(row, *a, *b));
            want.extend(all[..k].iter().map(|i| f64::from(row[*i as usize])));
            want_indices.extend_from_slice(&all[..k]);
        }
        assert_eq!(indices.get(), want_indices, "{rows} x {cols}");
        close("top_k", &values.reals(), &want, 0.0, 0.0);
    }
}

pub fn squared_distances() {
    for (rows, cols) in [(1, 1), (3, 7), (5, 8), (33, 100)] {
        let products: Vec<f32> = random(1, rows * cols);
        let (a, b): (Vec<f32>, Vec<f32>) = (random(2, rows), random(3, cols));
        let (mp, ma, mb) = (Memory::from(&products), Memory::from(&a), Memory::from(&b));
        let args = [M(&mp), M(&ma), M(&mb), L(rows as i64), L(cols as i64)];
        launch_any("squared_distances", &args);
        let want: Vec<f64> = (0..rows * cols)
            .map(|i| {
                let d =
                    f64::from(a[i / cols]) + f64::from(b[i % cols]) - 2.0 * f64::from(products[i]);
                d.max(0.0)
            })
            .collect();
        close("squared_distances", &mp.reals(), &want, 1e-6, 1e-6);
    }
}
