//! The loops over samples: columns first, then along the row, in single precision, one row of the output at a time.
//!
//! Written for the compiler to vectorise; compiled twice for x86-64, for its wider registers. Products and sums are separate operations everywhere, so every machine gets the same bits.

use super::taps::Taps;

/// One plane, or two that lie interleaved.
pub(super) struct Plane<'a> {
    pub(super) data: &'a [u8],
    /// Bytes from row to row.
    pub(super) stride: usize,
    /// Across and down.
    pub(super) taps: [&'a Taps; 2],
}

/// Buffers of a row.
#[derive(Default)]
pub(super) struct Rows {
    column: Vec<f32>,
    pub(super) y: Vec<f32>,
    pub(super) u: Vec<f32>,
    pub(super) v: Vec<f32>,
}

/// Where chroma comes from.
pub(super) enum Chroma<'a> {
    None,
    Planar(Plane<'a>, Plane<'a>),
    Interleaved(Plane<'a>),
}

/// Takes the rows of the output. A trait where a closure would do, because the compiler has to be told to make it part of the
/// loops for wide registers.
pub(crate) trait Sink {
    /// Row `row`: levels of 0..=255 as in the picture, a little beyond where the filter overshoots. U and V are empty if only
    /// luma was asked for.
    fn row(&mut self, row: usize, y: &[f32], u: &[f32], v: &[f32]);
}

/// Gives every row of the output to `sink`.
pub(super) fn run(luma: &Plane<'_>, chroma: &Chroma<'_>, rows: &mut Rows, sink: &mut impl Sink) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { wide(luma, chroma, rows, sink) };
    }
    plain(luma, chroma, rows, sink);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn wide(luma: &Plane<'_>, chroma: &Chroma<'_>, rows: &mut Rows, sink: &mut impl Sink) {
    plain(luma, chroma, rows, sink);
}

#[inline(always)]
fn plain(luma: &Plane<'_>, chroma: &Chroma<'_>, rows: &mut Rows, sink: &mut impl Sink) {
    let (width, height) = (luma.taps[0].first.len(), luma.taps[1].first.len());
    let Rows { column, y, u, v } = rows;
    let chroma_width = match chroma {
        Chroma::None => 0,
        _ => width,
    };
    y.resize(width, 0.0);
    u.resize(chroma_width, 0.0);
    v.resize(chroma_width, 0.0);
    for row in 0..height {
        down(luma, 1, row, column);
        across::<1>(luma.taps[0], column, y);
        match chroma {
            Chroma::None => {}
            Chroma::Planar(first, second) => {
                down(first, 1, row, column);
                across::<1>(first.taps[0], column, u);
                down(second, 1, row, column);
                across::<1>(second.taps[0], column, v);
            }
            Chroma::Interleaved(both) => {
                down(both, 2, row, column);
                across::<2>(both.taps[0], column, u);
                across::<2>(both.taps[0], &column[1..], v);
            }
        }
        sink.row(row, y, u, v);
    }
}

/// The weighted mean of the rows that make row `row` of the output, `step` bytes a sample.
#[inline(always)]
fn down(plane: &Plane<'_>, step: usize, row: usize, column: &mut Vec<f32>) {
    let [across, down] = plane.taps;
    let first = down.from + down.first[row] as usize;
    let weights = &down.weights[row * down.count..][..down.count];
    let len = step * across.len;
    column.resize(len, 0.0);
    let line = |k: usize| &plane.data[(first + k) * plane.stride + step * across.from..][..len];
    let mut k = 0;
    while k < weights.len() {
        if weights.len() - k == 1 {
            let (a, wa) = (line(k), weights[k]);
            let terms = column.iter_mut().zip(a);
            if k == 0 {
                terms.for_each(|(sum, &a)| *sum = wa * f32::from(a));
            } else {
                terms.for_each(|(sum, &a)| *sum += wa * f32::from(a));
            }
        } else {
            let (a, b, wa, wb) = (line(k), line(k + 1), weights[k], weights[k + 1]);
            let terms = column.iter_mut().zip(a).zip(b);
            if k == 0 {
                terms.for_each(|((sum, &a), &b)| *sum = wa * f32::from(a) + wb * f32::from(b));
            } else {
                terms.for_each(|((sum, &a), &b)| *sum += wa * f32::from(a) + wb * f32::from(b));
            }
        }
        k += 2;
    }
}

/// The weighted mean of the samples of a row, `STEP` apart, that make each sample of the output.
#[inline(always)]
fn across<const STEP: usize>(taps: &Taps, column: &[f32], out: &mut [f32]) {
    // Known numbers of samples: 2 where a row grows, 4 and 5 where a usual camera's is halved.
    match taps.count {
        1 => fixed::<STEP, 1>(taps, column, out),
        2 => fixed::<STEP, 2>(taps, column, out),
        3 => fixed::<STEP, 3>(taps, column, out),
        4 => fixed::<STEP, 4>(taps, column, out),
        5 => fixed::<STEP, 5>(taps, column, out),
        6 => fixed::<STEP, 6>(taps, column, out),
        7 => fixed::<STEP, 7>(taps, column, out),
        8 => fixed::<STEP, 8>(taps, column, out),
        count => {
            let weights = taps.weights.chunks_exact(count);
            for ((out, &first), weights) in out.iter_mut().zip(&taps.first).zip(weights) {
                let samples = column[STEP * first as usize..].iter().step_by(STEP);
                *out = weights.iter().zip(samples).map(|(w, s)| w * s).sum();
            }
        }
    }
}

#[inline(always)]
fn fixed<const STEP: usize, const COUNT: usize>(taps: &Taps, column: &[f32], out: &mut [f32]) {
    let (weights, _) = taps.weights.as_chunks::<COUNT>();
    for ((out, &first), weights) in out.iter_mut().zip(&taps.first).zip(weights) {
        let samples = &column[STEP * first as usize..][..STEP * (COUNT - 1) + 1];
        let mut sum = weights[0] * samples[0];
        for k in 1..COUNT {
            sum += weights[k] * samples[STEP * k];
        }
        *out = sum;
    }
}
