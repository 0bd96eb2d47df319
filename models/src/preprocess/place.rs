//! Which part of a picture is scaled, and where it lies in the input.

use fast_image_resize::CropBox;

use super::{PixelBox, PreprocessError, Rgb};
use crate::card::Fit;

/// Left, top, right and bottom of a box, clamped to a picture of `(width, height)`; of the whole picture without one.
pub(super) fn inside(
    (width, height): (usize, usize),
    crop: Option<PixelBox>,
) -> Result<[f64; 4], PreprocessError> {
    let Some(crop) = crop else {
        return Ok([0.0, 0.0, width as f64, height as f64]);
    };
    let clamp = |value: f32, limit: usize| f64::from(value).clamp(0.0, limit as f64);
    let (left, right) = (clamp(crop.left, width), clamp(crop.right, width));
    let (top, bottom) = (clamp(crop.top, height), clamp(crop.bottom, height));
    // Written so that NaN is refused, too.
    if !(right > left && bottom > top) {
        return Err(PreprocessError::EmptyCrop {
            crop,
            width,
            height,
        });
    }
    Ok([left, top, right, bottom])
}

/// The part of a picture that is cut out, and the wanted box inside it.
pub(super) struct Region {
    pub(super) x: usize,
    pub(super) y: usize,
    pub(super) width: usize,
    pub(super) height: usize,
    /// The box, relative to (x, y).
    pub(super) inner: CropBox,
}

impl Region {
    /// The smallest rectangle of whole pixels around the box.
    pub(super) fn of(picture: &Rgb, crop: Option<PixelBox>) -> Result<Self, PreprocessError> {
        let [left, top, right, bottom] = inside((picture.width, picture.height), crop)?;
        let (x, y) = (left.floor(), top.floor());
        Ok(Region {
            x: x as usize,
            y: y as usize,
            width: (right.ceil() - x) as usize,
            height: (bottom.ceil() - y) as usize,
            inner: CropBox {
                left: left - x,
                top: top - y,
                width: right - left,
                height: bottom - top,
            },
        })
    }
}

/// Where the fitted picture lies in the input, and the grey around it.
pub(super) struct Placed {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) x: usize,
    pub(super) y: usize,
    pub(super) grey: u8,
}

impl Placed {
    pub(super) fn of(fit: Fit, width: f64, height: f64, w: usize, h: usize) -> Self {
        let scale = (w as f64 / width).min(h as f64 / height);
        let sized = |round: fn(f64) -> f64, grey| Placed {
            width: (round(width * scale) as usize).clamp(1, w),
            height: (round(height * scale) as usize).clamp(1, h),
            x: 0,
            y: 0,
            grey,
        };
        match fit {
            Fit::Stretch => Placed {
                width: w,
                height: h,
                x: 0,
                y: 0,
                grey: 0,
            },
            // As YOLOX truncates; the small number keeps an exact fit exact.
            Fit::LetterboxTopLeft(grey) => sized(|v| (v + 1e-6).floor(), grey),
            Fit::LetterboxCentre(grey) => {
                let placed = sized(f64::round, grey);
                Placed {
                    x: (w - placed.width) / 2,
                    y: (h - placed.height) / 2,
                    ..placed
                }
            }
        }
    }

    /// Lays the fitted picture (packed RGB) into an input of rows `w` pixels wide.
    pub(super) fn paste(&self, fitted: &[u8], w: usize, out: &mut [u8]) {
        if fitted.len() == out.len() {
            return out.copy_from_slice(fitted);
        }
        out.fill(self.grey);
        for (row, pixels) in fitted.chunks_exact(3 * self.width).enumerate() {
            let start = 3 * ((self.y + row) * w + self.x);
            out[start..start + 3 * self.width].copy_from_slice(pixels);
        }
    }
}

pub(super) fn check_buffer(picture: &Rgb) -> Result<(), PreprocessError> {
    let Rgb {
        data,
        width,
        height,
        stride,
    } = *picture;
    let fail = |needed| PreprocessError::Buffer {
        width,
        height,
        stride,
        needed,
        got: data.len(),
    };
    let fits = |n: usize| n > 0 && u32::try_from(n).is_ok();
    if !fits(width) || !fits(height) || stride < 3 * width {
        return Err(fail(0));
    }
    let needed = stride
        .checked_mul(height - 1)
        .and_then(|n| n.checked_add(3 * width))
        .ok_or_else(|| fail(usize::MAX))?;
    if data.len() < needed {
        return Err(fail(needed));
    }
    Ok(())
}
