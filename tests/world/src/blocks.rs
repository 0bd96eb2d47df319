//! Block artefacts: what the compression inside a camera leaves of its picture.

use crate::colour::Rgb;

/// One colour plane of a block, row by row.
type Block = [[f32; 8]; 8];

/// Compression artefacts: 8 x 8 cosine transform in luma and two chroma planes, coefficients rounded to
/// multiples of a step that grows with frequency, chroma four times as coarse.
pub fn block_artefacts(pixels: &mut [Rgb], size: (usize, usize), step: f32) {
    if step <= 0.0 {
        return;
    }
    let (w, h) = size;
    let quantisers = [Quantiser::new(step), Quantiser::new(step * 4.0)];
    for by in (0..h).step_by(8) {
        for bx in (0..w).step_by(8) {
            let mut planes = [[[0.0; 8]; 8]; 3];
            for y in 0..8 {
                let row = &pixels[(by + y).min(h - 1) * w..][..w];
                for x in 0..8 {
                    let [r, g, b] = row[(bx + x).min(w - 1)];
                    let luma = 0.299 * r + 0.587 * g + 0.114 * b;
                    planes[0][y][x] = luma;
                    planes[1][y][x] = b - luma;
                    planes[2][y][x] = r - luma;
                }
            }
            for (c, plane) in planes.iter_mut().enumerate() {
                quantisers[c.min(1)].spoil(plane);
            }
            for (y, row) in pixels[by * w..].chunks_mut(w).take(8).enumerate() {
                for (x, pixel) in row[bx..].iter_mut().take(8).enumerate() {
                    let luma = planes[0][y][x];
                    let (b, r) = (planes[1][y][x] + luma, planes[2][y][x] + luma);
                    *pixel = [r, (luma - 0.299 * r - 0.114 * b) * (1.0 / 0.587), b];
                }
            }
        }
    }
}

/// Steps of the coefficients and their inverses.
struct Quantiser {
    steps: Block,
    inverse: Block,
}

/// Adding and taking away 1.5 * 2^23 rounds to the nearest integer.
const ROUND: f32 = 12_582_912.0;

impl Quantiser {
    fn new(coarse: f32) -> Self {
        let steps: Block = std::array::from_fn(|y| {
            std::array::from_fn(|x| coarse * (1.0 + 0.55 * (x + y) as f32))
        });
        Self {
            steps,
            inverse: steps.map(|row| row.map(|q| 1.0 / q)),
        }
    }

    /// Transforms a block, rounds its coefficients and transforms it back.
    fn spoil(&self, block: &mut Block) {
        forward(block);
        transpose(block);
        forward(block);
        // Transposed, which is all one to steps that are the same along rows and columns.
        for y in 0..8 {
            for x in 0..8 {
                let rounded = (block[y][x] * self.inverse[y][x] + ROUND) - ROUND;
                block[y][x] = rounded * self.steps[y][x];
            }
        }
        inverse(block);
        transpose(block);
        inverse(block);
    }
}

/// Half the cosine of `k` sixteenths of pi: the rows of the orthonormal transform.
const HALF_COS: [f32; 8] = [
    // The constant row has norm 1 / sqrt(8), which is the half cosine of 4.
    0.353_553_4,
    0.490_392_64,
    0.461_939_77,
    0.415_734_8,
    0.353_553_4,
    0.277_785_12,
    0.191_341_72,
    0.097_545_16,
];

/// Odd rows of the transform against differences of opposite samples.
const ODD: [[f32; 4]; 4] = {
    let [_, c1, _, c3, _, c5, _, c7] = HALF_COS;
    [
        [c1, c3, c5, c7],
        [c3, -c7, -c1, -c5],
        [c5, -c1, c7, c3],
        [c7, -c5, c3, -c1],
    ]
};

/// One-dimensional transform down every column, all columns side by side.
fn forward(block: &mut Block) {
    let c = &HALF_COS;
    let mut out = [[0.0; 8]; 8];
    for x in 0..8 {
        let sum = |y: usize| block[y][x] + block[7 - y][x];
        let difference = |y: usize| block[y][x] - block[7 - y][x];
        let (outer, inner) = (sum(0) + sum(3), sum(1) + sum(2));
        let (wide, narrow) = (sum(0) - sum(3), sum(1) - sum(2));
        out[0][x] = c[4] * (outer + inner);
        out[4][x] = c[4] * (outer - inner);
        out[2][x] = c[2] * wide + c[6] * narrow;
        out[6][x] = c[6] * wide - c[2] * narrow;
        let d = [difference(0), difference(1), difference(2), difference(3)];
        for k in 0..4 {
            let o = &ODD[k];
            out[2 * k + 1][x] = o[0] * d[0] + o[1] * d[1] + o[2] * d[2] + o[3] * d[3];
        }
    }
    *block = out;
}

/// Undoes [`forward`].
fn inverse(block: &mut Block) {
    let c = &HALF_COS;
    let mut out = [[0.0; 8]; 8];
    for x in 0..8 {
        let s = |k: usize| block[k][x];
        let (sum, difference) = (c[4] * (s(0) + s(4)), c[4] * (s(0) - s(4)));
        let (wide, narrow) = (c[2] * s(2) + c[6] * s(6), c[6] * s(2) - c[2] * s(6));
        let even = [
            sum + wide,
            difference + narrow,
            difference - narrow,
            sum - wide,
        ];
        for y in 0..4 {
            // The odd rows are symmetric: the transform and its transpose are the same there.
            let o = &ODD[y];
            let odd = o[0] * s(1) + o[1] * s(3) + o[2] * s(5) + o[3] * s(7);
            out[y][x] = even[y] + odd;
            out[7 - y][x] = even[y] - odd;
        }
    }
    *block = out;
}

fn transpose(block: &mut Block) {
    let source = *block;
    for y in 0..8 {
        for x in 0..8 {
            block[y][x] = source[x][y];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Block {
        std::array::from_fn(|y| std::array::from_fn(|x| ((y * 8 + x) * 37 % 64) as f32 / 64.0))
    }

    #[test]
    fn the_transform_is_the_cosine_transform_and_inverts_itself() {
        let block = sample();
        let mut spectrum = block;
        forward(&mut spectrum);
        for k in 0..8 {
            for x in 0..8 {
                let norm = if k == 0 { (1.0f32 / 8.0).sqrt() } else { 0.5 };
                let expected: f32 = (0..8)
                    .map(|y| {
                        let angle = std::f32::consts::PI * (y as f32 + 0.5) * k as f32 / 8.0;
                        norm * angle.cos() * block[y][x]
                    })
                    .sum();
                assert!((spectrum[k][x] - expected).abs() < 1e-5);
            }
        }
        inverse(&mut spectrum);
        for (a, b) in spectrum.as_flattened().iter().zip(block.as_flattened()) {
            assert!((a - b).abs() < 1e-5);
        }
    }

    #[test]
    fn what_is_finer_than_any_step_is_kept() {
        let block = sample();
        let mut kept = block;
        Quantiser::new(1e-5).spoil(&mut kept);
        for (a, b) in kept.as_flattened().iter().zip(block.as_flattened()) {
            assert!((a - b).abs() < 1e-3);
        }
    }

    #[test]
    fn coarser_steps_lose_more() {
        let picture: Vec<Rgb> = (0..32 * 32)
            .map(|i| [((i * 7919) % 256) as f32 / 255.0; 3])
            .collect();
        let loss = |step: f32| {
            let mut copy = picture.clone();
            block_artefacts(&mut copy, (32, 32), step);
            picture
                .iter()
                .zip(&copy)
                .map(|(a, b)| (a[1] - b[1]).powi(2))
                .sum::<f32>()
        };
        assert!(loss(0.0) == 0.0 && loss(0.02) < loss(0.1));
    }
}
