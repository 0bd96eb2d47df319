//! Rows of planes become rows of a tensor.

use crate::card::Layout;
use crate::picture::Weights;
use crate::planes::Sink;

/// What a tensor's channel is made of.
#[derive(Clone, Copy)]
pub(super) struct Channel {
    /// To a level of 0..=255.
    pub(super) weights: Weights,
    /// From there to the model's numbers.
    pub(super) scale: f32,
    pub(super) shift: f32,
}

impl Channel {
    #[inline(always)]
    fn value(&self, y: f32, u: f32, v: f32) -> f32 {
        let w = &self.weights;
        let level = w.y * y + w.u * u + w.v * v + w.offset;
        level.clamp(0.0, 255.0) * self.scale + self.shift
    }
}

/// The tensor of one picture.
pub(super) struct Tensor<'a> {
    pub(super) layout: Layout,
    /// Width and height of the input.
    pub(super) size: (usize, usize),
    /// Left and upper edge of the picture in it, and its width.
    pub(super) placed: (usize, usize, usize),
    pub(super) channels: [Channel; 3],
    pub(super) out: &'a mut [f32],
}

impl Sink for Tensor<'_> {
    #[inline(always)]
    fn row(&mut self, row: usize, y: &[f32], u: &[f32], v: &[f32]) {
        let (w, h) = self.size;
        let (left, top, width) = self.placed;
        let start = (top + row) * w + left;
        match self.layout {
            Layout::Nchw => {
                for (c, channel) in self.channels.iter().enumerate() {
                    let channel = *channel;
                    let plane = &mut self.out[c * h * w + start..][..width];
                    for (((out, &y), &u), &v) in plane.iter_mut().zip(y).zip(u).zip(v) {
                        *out = channel.value(y, u, v);
                    }
                }
            }
            Layout::Nhwc => {
                let [a, b, c] = self.channels;
                let (pixels, _) = self.out[3 * start..][..3 * width].as_chunks_mut::<3>();
                for (((pixel, &y), &u), &v) in pixels.iter_mut().zip(y).zip(u).zip(v) {
                    *pixel = [a.value(y, u, v), b.value(y, u, v), c.value(y, u, v)];
                }
            }
        }
    }
}

/// Luma, its range widened to 0..=255.
pub(super) struct Grey {
    pub(super) scale: f32,
    pub(super) black: f32,
    pub(super) out: Vec<f32>,
}

impl Sink for Grey {
    #[inline(always)]
    fn row(&mut self, _row: usize, y: &[f32], _u: &[f32], _v: &[f32]) {
        let (scale, black) = (self.scale, self.black);
        self.out.extend(y.iter().map(|y| (y - black) * scale));
    }
}
