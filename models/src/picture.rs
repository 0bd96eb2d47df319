//! A decoded picture as decoders give it: planar YUV 4:2:0, or packed RGB.
//!
//! A frame stays in the decoder's format until a part of it is needed: [`Preprocess`](crate::preprocess::Preprocess)
//! scales the planes it needs and turns only the result into RGB, which costs a fraction of converting whole frames.

use image::RgbImage;

use crate::planes::PlaneScaler;
use crate::preprocess::{PixelBox, PreprocessError, Rgb};

/// Weights of the primaries in luma (ITU-R BT.601, BT.709, BT.2020 with non-constant luminance).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Matrix {
    /// Standard definition, JPEG.
    #[default]
    Bt601,
    /// High definition.
    Bt709,
    /// Ultra-high definition.
    Bt2020,
}

/// Where a chroma sample lies on the horizontal axis; vertically it lies between its two rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Siting {
    /// On the even luma column: H.264, H.265 and MPEG-2 unless they say otherwise.
    #[default]
    Left,
    /// Between the two luma columns: JPEG, MPEG-1.
    Centre,
}

/// What the numbers of a YUV picture mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Colour {
    /// Weights of the primaries.
    pub matrix: Matrix,
    /// Whether luma and chroma run over 0..=255; otherwise luma over 16..=235 and chroma over 16..=240.
    pub full_range: bool,
    /// Place of chroma samples.
    pub siting: Siting,
}

/// `R, G or B = y * Y + u * U + v * V + offset`, all in 0..=255.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Weights {
    pub(crate) y: f32,
    pub(crate) u: f32,
    pub(crate) v: f32,
    pub(crate) offset: f32,
}

impl Colour {
    /// What is meant where a stream says nothing: BT.709 from 720 rows on, BT.601 below, limited range.
    pub fn guess(height: usize) -> Self {
        Colour {
            matrix: if height >= 720 {
                Matrix::Bt709
            } else {
                Matrix::Bt601
            },
            ..Colour::default()
        }
    }

    /// R, G and B, 0 to 255, of a sample.
    pub fn rgb(self, y: f32, u: f32, v: f32) -> [f32; 3] {
        self.to_rgb()
            .map(|w| (w.y * y + w.u * u + w.v * v + w.offset).clamp(0.0, 255.0))
    }

    /// Rows of the conversion for R, G and B.
    pub(crate) fn to_rgb(self) -> [Weights; 3] {
        let (kr, kb) = match self.matrix {
            Matrix::Bt601 => (0.299, 0.114),
            Matrix::Bt709 => (0.2126, 0.0722),
            Matrix::Bt2020 => (0.2627, 0.0593),
        };
        let kg = 1.0 - kr - kb;
        let (black, luma, chroma) = if self.full_range {
            (0.0, 1.0, 1.0)
        } else {
            (16.0, 255.0 / 219.0, 255.0 / 224.0)
        };
        let (red, blue) = (2.0 * (1.0 - kr) * chroma, 2.0 * (1.0 - kb) * chroma);
        let weights = |u: f64, v: f64| Weights {
            y: luma as f32,
            u: u as f32,
            v: v as f32,
            offset: (-luma * black - 128.0 * (u + v)) as f32,
        };
        [
            weights(0.0, red),
            weights(-blue * kb / kg, -red * kr / kg),
            weights(blue, 0.0),
        ]
    }
}

/// How chroma is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chroma {
    /// A plane of U, then a plane of V (I420).
    Planar,
    /// One plane of U and V in turn (NV12).
    Interleaved,
}

/// A plane as a decoder hands it over: rows of `stride` bytes, the last one perhaps without its padding.
#[derive(Clone, Copy, Debug)]
pub struct Plane<'a> {
    /// Bytes.
    pub data: &'a [u8],
    /// Distance of rows in bytes.
    pub stride: usize,
}

/// 8-bit YUV with one chroma sample for 2 x 2 luma samples, rows packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Yuv420 {
    width: usize,
    height: usize,
    chroma: Chroma,
    colour: Colour,
    data: Vec<u8>,
}

impl Yuv420 {
    /// Copies a picture of `width` x `height` pixels out of a decoder's planes, padding left out: Y, U and V, or Y and
    /// interleaved UV. Chroma planes are half as wide and high, rounded up.
    ///
    /// # Errors
    /// [`PreprocessError::Buffer`] if a plane is too short, or [`PreprocessError::Planes`] if their number is wrong.
    pub fn copy(
        (width, height): (usize, usize),
        planes: &[Plane],
        colour: Colour,
    ) -> Result<Self, PreprocessError> {
        let (cw, ch) = (width.div_ceil(2), height.div_ceil(2));
        let (chroma, rows): (_, Vec<(usize, usize)>) = match planes.len() {
            2 => (Chroma::Interleaved, vec![(width, height), (2 * cw, ch)]),
            3 => (Chroma::Planar, vec![(width, height), (cw, ch), (cw, ch)]),
            planes => return Err(PreprocessError::Planes { planes }),
        };
        let mut data = Vec::with_capacity(rows.iter().map(|(w, h)| w * h).sum());
        for (plane, (w, h)) in planes.iter().zip(rows) {
            let fail = |needed| PreprocessError::Buffer {
                width: w,
                height: h,
                stride: plane.stride,
                needed,
                got: plane.data.len(),
            };
            if w == 0 || h == 0 || plane.stride < w || u32::try_from(w.max(h)).is_err() {
                return Err(fail(0));
            }
            let needed = plane
                .stride
                .checked_mul(h - 1)
                .and_then(|n| n.checked_add(w))
                .ok_or_else(|| fail(usize::MAX))?;
            if plane.data.len() < needed {
                return Err(fail(needed));
            }
            if plane.stride == w {
                data.extend_from_slice(&plane.data[..needed]);
                continue;
            }
            for row in plane.data.chunks(plane.stride).take(h) {
                data.extend_from_slice(&row[..w]);
            }
        }
        Ok(Yuv420 {
            width,
            height,
            chroma,
            colour,
            data,
        })
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// How chroma is stored.
    pub fn chroma(&self) -> Chroma {
        self.chroma
    }

    /// What the numbers mean.
    pub fn colour(&self) -> Colour {
        self.colour
    }

    /// Width and height of a chroma plane.
    pub fn chroma_size(&self) -> (usize, usize) {
        (self.width.div_ceil(2), self.height.div_ceil(2))
    }

    /// Luma, row by row.
    pub fn luma(&self) -> &[u8] {
        &self.data[..self.width * self.height]
    }

    /// The whole pixels that a box touches, as RGB, chroma interpolated; at least one pixel, inside the picture.
    pub fn cut(&self, at: PixelBox) -> RgbImage {
        let whole = whole_pixels((self.width as u32, self.height as u32), at);
        PlaneScaler::default().cut(self, whole.map(|v| v as usize))
    }

    /// U and V in turn, row by row, of an interleaved picture; U, then V, of a planar one.
    pub fn chroma_data(&self) -> &[u8] {
        &self.data[self.width * self.height..]
    }
}

/// A decoded picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Picture {
    /// Packed RGB.
    Rgb(RgbImage),
    /// YUV 4:2:0.
    Yuv(Yuv420),
}

impl Picture {
    /// Width in pixels.
    pub fn width(&self) -> usize {
        match self {
            Picture::Rgb(p) => p.width() as usize,
            Picture::Yuv(p) => p.width,
        }
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        match self {
            Picture::Rgb(p) => p.height() as usize,
            Picture::Yuv(p) => p.height,
        }
    }

    /// (width, height) in pixels.
    pub fn size(&self) -> (usize, usize) {
        (self.width(), self.height())
    }

    /// The whole picture as RGB.
    pub fn to_rgb(&self) -> RgbImage {
        match self {
            Picture::Rgb(p) => p.clone(),
            Picture::Yuv(_) => {
                let (w, h) = (self.width() as f32, self.height() as f32);
                self.cut(PixelBox {
                    left: 0.0,
                    top: 0.0,
                    right: w,
                    bottom: h,
                })
            }
        }
    }

    /// The whole pixels that a box touches, as RGB; at least one pixel, inside the picture.
    pub fn cut(&self, at: PixelBox) -> RgbImage {
        match self {
            Picture::Rgb(p) => {
                let [left, top, width, height] = whole_pixels((p.width(), p.height()), at);
                image::imageops::crop_imm(p, left, top, width, height).to_image()
            }
            Picture::Yuv(p) => p.cut(at),
        }
    }
}

/// Left, top, width and height of the pixels that a box touches.
fn whole_pixels((w, h): (u32, u32), at: PixelBox) -> [u32; 4] {
    let left = (at.left.max(0.0) as u32).min(w.saturating_sub(1));
    let top = (at.top.max(0.0) as u32).min(h.saturating_sub(1));
    let right = (at.right.ceil().max(0.0) as u32).clamp(left + 1, w.max(left + 1));
    let bottom = (at.bottom.ceil().max(0.0) as u32).clamp(top + 1, h.max(top + 1));
    [left, top, right - left, bottom - top]
}

impl From<RgbImage> for Picture {
    fn from(picture: RgbImage) -> Self {
        Picture::Rgb(picture)
    }
}

/// A borrowed picture of either kind.
#[derive(Clone, Copy, Debug)]
pub enum Pixels<'a> {
    /// Packed RGB.
    Rgb(Rgb<'a>),
    /// YUV 4:2:0.
    Yuv(&'a Yuv420),
}

impl<'a> From<Rgb<'a>> for Pixels<'a> {
    fn from(picture: Rgb<'a>) -> Self {
        Pixels::Rgb(picture)
    }
}

impl<'a> From<&'a RgbImage> for Pixels<'a> {
    fn from(picture: &'a RgbImage) -> Self {
        Pixels::Rgb(picture.into())
    }
}

impl<'a> From<&'a Picture> for Pixels<'a> {
    fn from(picture: &'a Picture) -> Self {
        match picture {
            Picture::Rgb(p) => Pixels::Rgb(p.into()),
            Picture::Yuv(p) => Pixels::Yuv(p),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn padding_is_left_out_and_short_planes_are_refused() {
        // 5 x 3, luma rows of 8, chroma rows of 4.
        let y: Vec<u8> = (0..24).collect();
        let (u, v) = (vec![100u8; 8], vec![200u8; 7]);
        let plane = |data, stride| Plane { data, stride };
        let planes = [plane(&y[..], 8), plane(&u, 4), plane(&v, 4)];
        let p = Yuv420::copy((5, 3), &planes, Colour::default()).unwrap();
        assert_eq!(
            p.luma(),
            [0, 1, 2, 3, 4, 8, 9, 10, 11, 12, 16, 17, 18, 19, 20]
        );
        assert_eq!(p.chroma_data(), [[100u8; 6], [200; 6]].concat());
        let short = [plane(&y[..20], 8), plane(&u, 4), plane(&v, 4)];
        let err = Yuv420::copy((5, 3), &short, Colour::default()).unwrap_err();
        assert!(err.to_string().contains("needs 21 bytes, got 20"), "{err}");
        assert!(Yuv420::copy((5, 3), &planes[..1], Colour::default()).is_err());
        assert!(Yuv420::copy((9, 3), &planes, Colour::default()).is_err());
    }

    #[test]
    fn the_colours_of_the_standards() {
        // Pure red in BT.709, limited range, is (63, 102, 240); white and black are the ends of luma.
        let rgb = |colour: Colour, [y, u, v]: [f32; 3]| colour.rgb(y, u, v).map(f32::round);
        let hd = Colour::guess(720);
        assert_eq!(rgb(hd, [63.0, 102.0, 240.0]), [255.0, 1.0, 0.0]);
        assert_eq!(rgb(hd, [235.0, 128.0, 128.0]), [255.0; 3]);
        let jpeg = Colour {
            full_range: true,
            ..Colour::default()
        };
        assert_eq!(rgb(jpeg, [76.0, 85.0, 255.0]), [254.0, 0.0, 0.0]);
        assert_eq!(rgb(jpeg, [0.0, 128.0, 128.0]), [0.0; 3]);
    }
}
