//! Scaling the planes of a YUV picture, and turning the result into RGB.
//!
//! Resizing and the colour matrix are both linear, so their order does not matter but for rounding and for colours that
//! leave 0..=255: planes are scaled first, each from its own resolution, and only the output's pixels are converted.

use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::{InnerPixel, U8, U8x2};
use fast_image_resize::{
    CropBox, FilterType, PixelTrait, ResizeAlg, ResizeError, ResizeOptions, Resizer,
};
use image::RgbImage;

use crate::picture::{Chroma, Siting, Yuv420};

/// Y, U and V at the output's size.
#[derive(Default)]
pub(crate) struct PlaneScaler {
    resizer: Resizer,
    pub(crate) y: Vec<u8>,
    pub(crate) u: Vec<u8>,
    pub(crate) v: Vec<u8>,
    pairs: Vec<u8>,
}

/// A part of a plane: whole pixels, and the box inside them that is scaled.
struct Part {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
    inner: CropBox,
}

impl Part {
    /// The smallest rectangle of whole pixels around left..right, top..bottom in a plane of `size`.
    fn around(size: (usize, usize), [left, top, right, bottom]: [f64; 4]) -> Self {
        let span = |low: f64, high: f64, limit: usize| {
            let first = low.floor().clamp(0.0, (limit - 1) as f64);
            let last = high.ceil().clamp(first + 1.0, limit as f64);
            // The box may stand out by a chroma sample's offset, or be too thin to scale from.
            let low = low.clamp(first, last - 1e-3);
            let high = high.clamp(low + 1e-3, last);
            (first as u32, (last - first) as u32, low - first, high - low)
        };
        let (x, width, inner_left, inner_width) = span(left, right, size.0);
        let (y, height, inner_top, inner_height) = span(top, bottom, size.1);
        Part {
            left: x,
            top: y,
            width,
            height,
            inner: CropBox {
                left: inner_left,
                top: inner_top,
                width: inner_width,
                height: inner_height,
            },
        }
    }
}

impl PlaneScaler {
    /// Scales the box `[left, top, right, bottom]` (luma pixels, inside the picture, with an area) to `size`.
    ///
    /// # Errors
    /// If the resizer refuses.
    pub(crate) fn scale(
        &mut self,
        picture: &Yuv420,
        [left, top, right, bottom]: [f64; 4],
        filter: FilterType,
        size: (usize, usize),
    ) -> Result<(), ResizeError> {
        self.scale_luma(picture, [left, top, right, bottom], filter, size)?;
        // A chroma sample on an even luma column lies a quarter of its own width left of where one in the middle would.
        let shift = match picture.colour().siting {
            Siting::Left => 0.25,
            Siting::Centre => 0.0,
        };
        let chroma = picture.chroma_size();
        let part = Part::around(
            chroma,
            [
                left / 2.0 + shift,
                top / 2.0,
                right / 2.0 + shift,
                bottom / 2.0,
            ],
        );
        let count = size.0 * size.1;
        let data = picture.chroma_data();
        match picture.chroma() {
            Chroma::Planar => {
                let (u, v) = data.split_at(chroma.0 * chroma.1);
                scale_plane::<U8>(
                    &mut self.resizer,
                    u,
                    chroma,
                    &part,
                    filter,
                    size,
                    &mut self.u,
                )?;
                scale_plane::<U8>(
                    &mut self.resizer,
                    v,
                    chroma,
                    &part,
                    filter,
                    size,
                    &mut self.v,
                )
            }
            Chroma::Interleaved => {
                let pairs = &mut self.pairs;
                scale_plane::<U8x2>(&mut self.resizer, data, chroma, &part, filter, size, pairs)?;
                self.u.resize(count, 0);
                self.v.resize(count, 0);
                let (pairs, _) = pairs.as_chunks::<2>();
                for ((u, v), pair) in self.u.iter_mut().zip(&mut self.v).zip(pairs) {
                    [*u, *v] = *pair;
                }
                Ok(())
            }
        }
    }

    /// As [`PlaneScaler::scale`], luma alone.
    ///
    /// # Errors
    /// If the resizer refuses.
    pub(crate) fn scale_luma(
        &mut self,
        picture: &Yuv420,
        at: [f64; 4],
        filter: FilterType,
        size: (usize, usize),
    ) -> Result<(), ResizeError> {
        let whole = (picture.width(), picture.height());
        let part = Part::around(whole, at);
        let luma = picture.luma();
        scale_plane::<U8>(
            &mut self.resizer,
            luma,
            whole,
            &part,
            filter,
            size,
            &mut self.y,
        )
    }

    /// Turns what was scaled into packed RGB, rounded.
    pub(crate) fn rgb_into(&self, picture: &Yuv420, out: &mut [u8]) {
        let [r, g, b] = picture.colour().to_rgb();
        let (pixels, _) = out.as_chunks_mut::<3>();
        for (((pixel, &y), &u), &v) in pixels.iter_mut().zip(&self.y).zip(&self.u).zip(&self.v) {
            let (y, u, v) = (f32::from(y), f32::from(u), f32::from(v));
            *pixel = [r, g, b].map(|w| {
                // `as` saturates at 0 and 255.
                (w.y * y + w.u * u + w.v * v + w.offset + 0.5) as u8
            });
        }
    }

    /// Pixels `[left, top, width, height]` of the picture as RGB, chroma interpolated.
    pub(crate) fn cut(&mut self, picture: &Yuv420, whole: [usize; 4]) -> RgbImage {
        let [left, top, width, height] = whole;
        let mut out = RgbImage::new(width as u32, height as u32);
        let at = [left, top, left + width, top + height].map(|v| v as f64);
        let scaled = self.scale(picture, at, FilterType::Bilinear, (width, height));
        // Scaling a box that lies inside to a size that is not 0 cannot fail; black would be seen at once.
        if scaled.is_ok() {
            self.rgb_into(picture, &mut out);
        }
        out
    }
}

fn scale_plane<P: PixelTrait + InnerPixel>(
    resizer: &mut Resizer,
    data: &[u8],
    (width, height): (usize, usize),
    part: &Part,
    filter: FilterType,
    (out_width, out_height): (usize, usize),
    out: &mut Vec<u8>,
) -> Result<(), ResizeError> {
    out.resize(size_of::<P>() * out_width * out_height, 0);
    let source = TypedImageRef::<P>::from_buffer(width as u32, height as u32, data)
        .expect("a plane has width * height samples");
    let source = TypedCroppedImage::from_ref(&source, part.left, part.top, part.width, part.height)
        .expect("the part lies inside the plane");
    let mut target =
        TypedImage::<P>::from_buffer(out_width as u32, out_height as u32, &mut out[..])
            .expect("the output has width * height samples");
    let i = &part.inner;
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(filter))
        // The resizer takes two interleaved samples for brightness and opacity, and would weigh U by V.
        .use_alpha(false)
        .crop(i.left, i.top, i.width, i.height);
    resizer.resize_typed(&source, &mut target, &options)
}
