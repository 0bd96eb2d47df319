use crate::support::*;

const WIDTHS: [usize; 6] = [1, 5, 31, 256, 700, 1024];

pub fn layer_norm() {
    for width in WIDTHS {
        for weighted in [false, true] {
            let (rows, eps) = (3, 1e-5);
            let x: Vec<f32> = (0..rows * width)
                .map(|i| (100.0 + noise(1, i)) as f32)
                .collect();
            let (w, b): (Vec<f32>, Vec<f32>) = (random(2, width), random(3, width));
            let (mx, mw, mb) = (Memory::from(&x), Memory::from(&w), Memory::from(&b));
            let (y, mean, inv_std) = (
                Memory::<f32>::new(rows * width),
                Memory::<f32>::new(rows),
                Memory::<f32>::new(rows),
            );
            let args = [
                M(&mx),
                maybe(weighted.then_some(&mw)),
                maybe(weighted.then_some(&mb)),
                M(&y),
                M(&mean),
                M(&inv_std),
                I(width as i32),
                D(eps),
            ];
            launch("layer_norm", [rows as u32, 1, 1], &args);
            let (mut want_y, mut want_mean, mut want_is) = (vec![], vec![], vec![]);
            for row in x.chunks(width) {
                let m = reals(row).iter().sum::<f64>() / width as f64;
                let variance =
                    reals(row).iter().map(|x| (x - m).powi(2)).sum::<f64>() / width as f64;
                let is = 1.0 / (variance + eps).sqrt();
                want_mean.push(m);
                want_is.push(is);
                for (c, x) in row.iter().enumerate() {
                    let hat = (f64::from(*x) - m) * is;
                    want_y.push(if weighted {
                        hat * f64::from(w[c]) + f64::from(b[c])
                    } else {
                        hat
                    });
                }
            }
            close("y", &y.reals(), &want_y, 1e-6, 1e-6);
            close("mean", &mean.reals(), &want_mean, 1e-7, 0.0);
            close("inv_std", &inv_std.reals(), &want_is, 1e-7, 0.0);
        }
    }
}

pub fn layer_norm_backward() {
    for width in WIDTHS {
        for weighted in [false, true] {
            let rows = 5;
            let (x, dy): (Vec<f32>, Vec<f32>) = (random(1, rows * width), random(2, rows * width));
            let (w, mean): (Vec<f32>, Vec<f32>) = (random(3, width), random(4, rows));
            let inv_std: Vec<f32> = (0..rows).map(|i| 2.0 + noise(5, i) as f32).collect();
            let [mx, md, mw, mm, mi] = [&x, &dy, &w, &mean, &inv_std].map(|x| Memory::from(x));
            let (dx, dw, db) = (
                Memory::<f32>::new(rows * width),
                Memory::<f32>::new(width),
                Memory::<f32>::new(width),
            );
            let args = [
                M(&mx),
                maybe(weighted.then_some(&mw)),
                M(&md),
                M(&mm),
                M(&mi),
                M(&dx),
                I(width as i32),
            ];
            launch("layer_norm_backward", [rows as u32, 1, 1], &args);
            let args = [
                M(&mx),
                M(&md),
                M(&mm),
                M(&mi),
                M(&dw),
                M(&db),
                I(rows as i32),
                I(width as i32),
            ];
            launch_any("layer_norm_params", &args);
            let hat = |r: usize, c: usize| {
                (f64::from(x[r * width + c]) - f64::from(mean[r])) * f64::from(inv_std[r])
            };
            let g = |r: usize, c: usize| {
                f64::from(dy[r * width + c]) * if weighted { f64::from(w[c]) } else { 1.0 }
            };
            let mut want = vec![];
            for r in 0..rows {
                let g_mean = (0..width).map(|c| g(r, c)).sum::<f64>() / width as f64;
                let along = (0..width).map(|c| g(r, c) * hat(r, c)).sum::<f64>() / width as f64;
                for c in 0..width {
                    want.push(f64::from(inv_std[r]) * (g(r, c) - g_mean - hat(r, c) * along));
                }
            }
            let want_w: Vec<f64> = (0..width)
                .map(|c| {
                    (0..rows)
                        .map(|r| f64::from(dy[r * width + c]) * hat(r, c))
                        .sum()
                })
                .collect();
            let want_b: Vec<f64> = (0..width)
                .map(|c| (0..rows).map(|r| f64::from(dy[r * width + c])).sum())
                .collect();
            close("dx", &dx.reals(), &want, 1e-6, 1e-9);
            close("dw", &dw.reals(), &want_w, 1e-6, 1e-9);
            close("db", &db.reals(), &want_b, 1e-6, 1e-9);
        }
    }
}

/// Rows of usual size, of norm 0, and between 0 and eps.
pub fn l2_normalize() {
    for width in WIDTHS {
        let (rows, eps) = (4, 1e-3);
        let factor = [1.0, 0.0, 1e-6, 30.0];
        let x: Vec<f32> = (0..rows * width)
            .map(|i| (factor[i / width] * (0.1 + noise(1, i).abs())) as f32)
            .collect();
        let dy: Vec<f32> = random(2, rows * width);
        let (mx, md) = (Memory::from(&x), Memory::from(&dy));
        let (y, dx) = (Memory::<f32>::new(x.len()), Memory::<f32>::new(x.len()));
        let grid = [rows as u32, 1, 1];
        launch(
            "l2_normalize",
            grid,
            &[M(&mx), M(&y), I(width as i32), D(eps)],
        );
        launch(
            "l2_normalize_backward",
            grid,
            &[M(&mx), M(&md), M(&dx), I(width as i32), D(eps)],
        );
        let (mut want_y, mut want_dx) = (vec![], vec![]);
        for (x, dy) in x.chunks(width).zip(dy.chunks(width)) {
            let (x, dy) = (reals(x), reals(dy));
            let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt();
            let dot: f64 = x.iter().zip(&dy).map(|(x, d)| x * d).sum();
            for (x, d) in x.iter().zip(&dy) {
                want_y.push(x / norm.max(eps));
                want_dx.push(if norm == 0.0 {
                    0.0
                } else if norm <= eps {
                    d / eps
                } else {
                    (d - x * dot / (norm * norm)) / norm
                });
            }
        }
        close("y", &y.reals(), &want_y, 1e-6, 0.0);
        close("dx", &dx.reals(), &want_dx, 1e-6, 1e-9);
    }
}
