//! Scaling the planes of a YUV picture, and turning the result into RGB.
//!
//! Resizing and the colour matrix are both linear, so their order does not matter but for colours that leave 0..=255: planes
//! are scaled first, each from its own resolution, and only the output's pixels are converted. Nothing is rounded between.

mod rows;
mod taps;

use image::RgbImage;

use crate::card::Filter;
use crate::picture::{self, Siting, Weights, Yuv420};
pub(crate) use rows::Sink;
use rows::{Chroma, Plane, Rows};
use taps::{Span, Taps};

/// Scales, a row of the output at a time; keeps its buffers and, for a box and size that it has just had, its weights.
#[derive(Default)]
pub(crate) struct PlaneScaler {
    /// Across and down.
    luma: [Taps; 2],
    chroma: [Taps; 2],
    rows: Rows,
}

impl PlaneScaler {
    /// Scales the box `[left, top, right, bottom]` (luma pixels, inside the picture, with an area) to `size` (width, height),
    /// and gives every row to `sink`.
    pub(crate) fn scale(
        &mut self,
        picture: &Yuv420,
        at: [f64; 4],
        filter: Filter,
        size: (usize, usize),
        sink: &mut impl Sink,
    ) {
        let [left, top, right, bottom] = at;
        // A chroma sample on an even luma column lies a quarter of its own width left of where one in the middle would.
        let shift = match picture.colour().siting {
            Siting::Left => 0.25,
            Siting::Centre => 0.0,
        };
        let (width, height) = picture.chroma_size();
        let across = span(left / 2.0 + shift, right / 2.0 + shift, width);
        self.chroma[0].make(across, size.0, filter);
        let down = span(top / 2.0, bottom / 2.0, height);
        self.chroma[1].make(down, size.1, filter);
        let taps = [&self.chroma[0], &self.chroma[1]];
        let data = picture.chroma_data();
        let plane = |data, stride| Plane { data, stride, taps };
        let chroma = match picture.chroma() {
            picture::Chroma::Planar => {
                let (u, v) = data.split_at(width * height);
                Chroma::Planar(plane(u, width), plane(v, width))
            }
            picture::Chroma::Interleaved => Chroma::Interleaved(plane(data, 2 * width)),
        };
        let luma = luma(&mut self.luma, picture, at, filter, size);
        rows::run(&luma, &chroma, &mut self.rows, sink);
    }

    /// As [`PlaneScaler::scale`], luma alone.
    pub(crate) fn scale_luma(
        &mut self,
        picture: &Yuv420,
        at: [f64; 4],
        filter: Filter,
        size: (usize, usize),
        sink: &mut impl Sink,
    ) {
        let luma = luma(&mut self.luma, picture, at, filter, size);
        rows::run(&luma, &Chroma::None, &mut self.rows, sink);
    }

    /// Scales to packed RGB, rounded; `out` has `3 * width * height` bytes.
    pub(crate) fn rgb_into(
        &mut self,
        picture: &Yuv420,
        at: [f64; 4],
        filter: Filter,
        size: (usize, usize),
        out: &mut [u8],
    ) {
        let mut sink = Packed {
            width: size.0,
            weights: picture.colour().to_rgb(),
            out,
        };
        self.scale(picture, at, filter, size, &mut sink);
    }

    /// Pixels `[left, top, width, height]` of the picture as RGB, chroma interpolated.
    pub(crate) fn cut(&mut self, picture: &Yuv420, whole: [usize; 4]) -> RgbImage {
        let [left, top, width, height] = whole;
        let mut out = RgbImage::new(width as u32, height as u32);
        let at = [left, top, left + width, top + height].map(|v| v as f64);
        self.rgb_into(picture, at, Filter::Bilinear, (width, height), &mut out);
        out
    }
}

/// Packed RGB.
struct Packed<'a> {
    width: usize,
    weights: [Weights; 3],
    out: &'a mut [u8],
}

impl Sink for Packed<'_> {
    #[inline(always)]
    fn row(&mut self, row: usize, y: &[f32], u: &[f32], v: &[f32]) {
        let [r, g, b] = self.weights;
        // `as` saturates at 0 and 255.
        let byte = |w: Weights, y: f32, u: f32, v: f32| {
            (w.y * y + w.u * u + w.v * v + w.offset + 0.5) as u8
        };
        let (pixels, _) = self.out[3 * self.width * row..][..3 * self.width].as_chunks_mut::<3>();
        for (((pixel, &y), &u), &v) in pixels.iter_mut().zip(y).zip(u).zip(v) {
            *pixel = [byte(r, y, u, v), byte(g, y, u, v), byte(b, y, u, v)];
        }
    }
}

fn span(low: f64, high: f64, limit: usize) -> Span {
    Span { low, high, limit }
}

fn luma<'a>(
    taps: &'a mut [Taps; 2],
    picture: &'a Yuv420,
    [left, top, right, bottom]: [f64; 4],
    filter: Filter,
    size: (usize, usize),
) -> Plane<'a> {
    taps[0].make(span(left, right, picture.width()), size.0, filter);
    taps[1].make(span(top, bottom, picture.height()), size.1, filter);
    Plane {
        data: picture.luma(),
        stride: picture.width(),
        taps: [&taps[0], &taps[1]],
    }
}
