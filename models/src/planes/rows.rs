//! The loops over samples, in single precision, one row of the output at a time. Columns come first, then the row; where the
//! picture grows downwards the other way around, because that is less work.
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
    y: Channel,
    u: Channel,
    v: Channel,
}

/// One channel on its way.
#[derive(Default)]
struct Channel {
    /// All rows that are looked at, scaled across already; empty if they are scaled down first.
    lines: Vec<f32>,
    row: Vec<f32>,
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
    y.row.resize(width, 0.0);
    u.row.resize(chroma_width, 0.0);
    v.row.resize(chroma_width, 0.0);
    lines::<1>(luma, 0, column, &mut y.lines);
    match chroma {
        Chroma::None => {}
        Chroma::Planar(first, second) => {
            lines::<1>(first, 0, column, &mut u.lines);
            lines::<1>(second, 0, column, &mut v.lines);
        }
        Chroma::Interleaved(both) => {
            lines::<2>(both, 0, column, &mut u.lines);
            lines::<2>(both, 1, column, &mut v.lines);
        }
    }
    for row in 0..height {
        channel::<1>(luma, 0, row, column, y);
        match chroma {
            Chroma::None => {}
            Chroma::Planar(first, second) => {
                channel::<1>(first, 0, row, column, u);
                channel::<1>(second, 0, row, column, v);
            }
            Chroma::Interleaved(both) => {
                channel::<2>(both, 0, row, column, u);
                channel::<2>(both, 1, row, column, v);
            }
        }
        sink.row(row, &y.row, &u.row, &v.row);
    }
}

/// Where the picture grows downwards, fewer rows are scaled across if that is done first: all of them, once.
#[inline(always)]
fn lines<const STEP: usize>(
    plane: &Plane<'_>,
    channel: usize,
    column: &mut Vec<f32>,
    lines: &mut Vec<f32>,
) {
    let [across_taps, down] = plane.taps;
    lines.clear();
    if down.len >= down.first.len() {
        return;
    }
    let width = across_taps.first.len();
    lines.resize(down.len * width, 0.0);
    for (k, line) in lines.chunks_exact_mut(width).enumerate() {
        column.clear();
        column.extend(
            plane
                .line(STEP, down.from + k)
                .iter()
                .map(|&s| f32::from(s)),
        );
        across::<STEP>(across_taps, &column[channel..], line);
    }
}

/// Row `row` of the output; `channel` of `STEP` that lie interleaved.
#[inline(always)]
fn channel<const STEP: usize>(
    plane: &Plane<'_>,
    channel: usize,
    row: usize,
    column: &mut Vec<f32>,
    Channel { lines, row: out }: &mut Channel,
) {
    let [across_taps, taps] = plane.taps;
    let first = taps.first[row] as usize;
    let weights = &taps.weights[row * taps.count..][..taps.count];
    if lines.is_empty() {
        // The second of two interleaved channels finds what the first one left.
        if channel == 0 {
            column.resize(STEP * across_taps.len, 0.0);
            down(weights, |k| plane.line(STEP, taps.from + first + k), column);
        }
        across::<STEP>(across_taps, &column[channel..], out);
    } else {
        let width = out.len();
        down(weights, |k| &lines[(first + k) * width..][..width], out);
    }
}

impl<'a> Plane<'a> {
    /// What is looked at of row `row`, `step` bytes a sample.
    #[inline(always)]
    fn line(&self, step: usize, row: usize) -> &'a [u8] {
        let across = self.taps[0];
        &self.data[row * self.stride + step * across.from..][..step * across.len]
    }
}

/// The weighted mean of rows: two at a time, so that sums are stored half as often.
#[inline(always)]
fn down<'a, S: Copy + 'a>(weights: &[f32], line: impl Fn(usize) -> &'a [S], out: &mut [f32])
where
    f32: From<S>,
{
    let mut k = 0;
    while k < weights.len() {
        if weights.len() - k == 1 {
            let (a, wa) = (line(k), weights[k]);
            let terms = out.iter_mut().zip(a);
            if k == 0 {
                terms.for_each(|(sum, &a)| *sum = wa * f32::from(a));
            } else {
                terms.for_each(|(sum, &a)| *sum += wa * f32::from(a));
            }
        } else {
            let (a, b, wa, wb) = (line(k), line(k + 1), weights[k], weights[k + 1]);
            let terms = out.iter_mut().zip(a).zip(b);
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
