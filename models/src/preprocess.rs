//! Picture to tensor: the only definition, for training and for the edge.
//!
//! A crop is cut on whole pixels around the box, fitted with an antialiasing filter (that of Pillow), rounded to
//! u8, then normalised. Only pixels inside the cut count, so a crop that was saved to a file and read again gives the
//! tensor that the same crop gives straight from its frame.

use std::path::{Path, PathBuf};

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{CropBox, FilterType, ResizeAlg, ResizeError, ResizeOptions, Resizer};
use image::RgbImage;

use crate::card::{Channels, Filter, Fit, InputSpec, Layout, Range};

/// A picture of packed 8-bit RGB rows.
#[derive(Clone, Copy, Debug)]
pub struct Rgb<'a> {
    /// Bytes; the last row may end without padding.
    pub data: &'a [u8],
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Distance of rows in bytes, at least 3 * width.
    pub stride: usize,
}

impl<'a> From<&'a RgbImage> for Rgb<'a> {
    fn from(image: &'a RgbImage) -> Self {
        Rgb {
            data: image.as_raw(),
            width: image.width() as usize,
            height: image.height() as usize,
            stride: 3 * image.width() as usize,
        }
    }
}

/// A box in pixels of the picture: pixel (0, 0) covers 0..1 on both axes. Clamped to the picture when used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PixelBox {
    /// Left edge.
    pub left: f32,
    /// Upper edge.
    pub top: f32,
    /// Right edge, exclusive.
    pub right: f32,
    /// Lower edge, exclusive.
    pub bottom: f32,
}

/// Where the picture lies in the input: `input = frame * scale + offset`, in pixels, per axis (x, y).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Letterbox {
    /// Input pixels per frame pixel (x, y).
    pub scale: [f32; 2],
    /// Input position of the frame's origin (x, y).
    pub offset: [f32; 2],
}

impl Letterbox {
    /// Frame position of an input position (x, y).
    pub fn frame_from_input(&self, x: f32, y: f32) -> (f32, f32) {
        (
            (x - self.offset[0]) / self.scale[0],
            (y - self.offset[1]) / self.scale[1],
        )
    }
}

/// A picture that cannot become a tensor.
#[derive(Debug, thiserror::Error)]
pub enum PreprocessError {
    /// The file cannot be read or is no picture.
    #[error("cannot read the picture {path}: {source}")]
    Decode {
        /// File.
        path: PathBuf,
        /// Why.
        source: image::ImageError,
    },
    /// A JPEG that stops before its end.
    #[error("{path}: the JPEG is cut short (no end marker): copy it again or remove it")]
    Truncated {
        /// File.
        path: PathBuf,
    },
    /// The bytes don't make up the picture.
    #[error(
        "a picture of {width} x {height} pixels with rows {stride} bytes apart needs {needed} bytes, got {got}"
    )]
    Buffer {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// Distance of rows in bytes.
        stride: usize,
        /// Bytes needed; 0 if rows overlap or the picture is empty.
        needed: usize,
        /// Bytes given.
        got: usize,
    },
    /// The box has no area inside the picture.
    #[error("the box {crop:?} has no area inside a picture of {width} x {height} pixels")]
    EmptyCrop {
        /// Box.
        crop: PixelBox,
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
    },
    /// The resizer refused.
    #[error("cannot resize: {0}")]
    Resize(#[from] ResizeError),
}

/// Turns pictures into tensors as an [`InputSpec`] says; keeps its buffers from picture to picture.
pub struct Preprocess {
    spec: InputSpec,
    /// Tensor value of every byte, per tensor channel.
    values: Box<[[f32; 256]; 3]>,
    options: ResizeOptions,
    resizer: Resizer,
    /// The cut, packed.
    cut: Vec<u8>,
    /// The cut with rows of the output's width, between the two passes of a bicubic fit.
    rows: Vec<u8>,
    /// The fitted picture before it is placed in a letterbox.
    fitted: Vec<u8>,
    /// The whole u8 input of the last [`Preprocess::run_into`].
    input: RgbImage,
}

impl Preprocess {
    /// For one model. The spec is taken as checked ([`ModelCard`](crate::ModelCard) checks when it is read).
    pub fn new(spec: &InputSpec) -> Self {
        let mut values = Box::new([[0f32; 256]; 3]);
        for (channel, values) in values.iter_mut().enumerate() {
            for (byte, value) in values.iter_mut().enumerate() {
                let pixel = match spec.range {
                    Range::Unit => byte as f32 / 255.0,
                    Range::Byte => byte as f32,
                };
                *value = (pixel - spec.mean[channel]) / spec.std[channel];
            }
        }
        let filter = match spec.filter {
            Filter::Bilinear => FilterType::Bilinear,
            // Keys' kernel with a = -0.5: what Pillow calls bicubic.
            Filter::Bicubic => FilterType::CatmullRom,
        };
        Preprocess {
            spec: spec.clone(),
            values,
            options: ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)),
            resizer: Resizer::new(),
            cut: Vec::new(),
            rows: Vec::new(),
            fitted: Vec::new(),
            input: RgbImage::new(0, 0),
        }
    }

    /// What is done.
    pub fn spec(&self) -> &InputSpec {
        &self.spec
    }

    /// Elements of one picture's tensor: 3 * height * width.
    pub fn tensor_len(&self) -> usize {
        3 * self.spec.height * self.spec.width
    }

    /// Cuts and fits only: the u8 picture (RGB, the spec's height x width) that augmentation starts from.
    ///
    /// # Errors
    /// If the bytes don't make up the picture, or the box lies outside it.
    pub fn resized(
        &mut self,
        picture: Rgb,
        crop: Option<PixelBox>,
    ) -> Result<RgbImage, PreprocessError> {
        let mut out = RgbImage::new(self.spec.width as u32, self.spec.height as u32);
        self.fit(picture, crop, &mut out)?;
        Ok(out)
    }

    /// Normalises a picture of the spec's size into `out` ([`Preprocess::tensor_len`] elements, axes by the spec's layout).
    ///
    /// # Panics
    /// If the picture or `out` has another size.
    pub fn normalize_into(&self, resized: &RgbImage, out: &mut [f32]) {
        let (height, width) = (self.spec.height, self.spec.width);
        assert_eq!(
            (resized.height() as usize, resized.width() as usize),
            (height, width),
            "a picture (height, width) must have the input's size"
        );
        assert_eq!(
            out.len(),
            self.tensor_len(),
            "the tensor of one picture is 3 * height * width"
        );
        let (pixels, _) = resized.as_raw().as_chunks::<3>();
        let source = match self.spec.channels {
            Channels::Rgb => [0, 1, 2],
            Channels::Bgr => [2, 1, 0],
        };
        match self.spec.layout {
            Layout::Nchw => {
                for (channel, plane) in out.chunks_exact_mut(height * width).enumerate() {
                    let (values, byte) = (&self.values[channel], source[channel]);
                    for (value, pixel) in plane.iter_mut().zip(pixels) {
                        *value = values[pixel[byte] as usize];
                    }
                }
            }
            Layout::Nhwc => {
                let (tensor, _) = out.as_chunks_mut::<3>();
                for (value, pixel) in tensor.iter_mut().zip(pixels) {
                    for channel in 0..3 {
                        value[channel] = self.values[channel][pixel[source[channel]] as usize];
                    }
                }
            }
        }
    }

    /// [`Preprocess::resized`], then [`Preprocess::normalize_into`], without allocating. Returns where the picture lies
    /// in the input, so that boxes and keypoints find back.
    ///
    /// # Errors
    /// As [`Preprocess::resized`].
    ///
    /// # Panics
    /// If `out` hasn't [`Preprocess::tensor_len`] elements.
    pub fn run_into(
        &mut self,
        picture: Rgb,
        crop: Option<PixelBox>,
        out: &mut [f32],
    ) -> Result<Letterbox, PreprocessError> {
        let mut input = std::mem::take(&mut self.input);
        let (width, height) = (self.spec.width as u32, self.spec.height as u32);
        if input.dimensions() != (width, height) {
            input = RgbImage::new(width, height);
        }
        let placed = self.fit(picture, crop, &mut input);
        if placed.is_ok() {
            self.normalize_into(&input, out);
        }
        self.input = input;
        placed
    }

    /// Cuts, fits and pads into `out`, which has the spec's size.
    fn fit(
        &mut self,
        picture: Rgb,
        crop: Option<PixelBox>,
        out: &mut [u8],
    ) -> Result<Letterbox, PreprocessError> {
        check_buffer(&picture)?;
        let Region {
            x,
            y,
            width,
            height,
            inner,
        } = Region::of(&picture, crop)?;
        let whole = (width, height) == (picture.width, picture.height);
        let pixels = if whole && picture.stride == 3 * width {
            &picture.data[..3 * width * height]
        } else {
            self.cut.clear();
            for row in y..y + height {
                let start = row * picture.stride + 3 * x;
                self.cut
                    .extend_from_slice(&picture.data[start..start + 3 * width]);
            }
            &self.cut
        };
        let source = TypedImageRef::<U8x3>::from_buffer(width as u32, height as u32, pixels)
            .expect("the cut has width * height pixels");
        let options = self
            .options
            .crop(inner.left, inner.top, inner.width, inner.height);
        let (w, h) = (self.spec.width, self.spec.height);
        let Placed {
            width: fit_w,
            height: fit_h,
            x: pad_x,
            y: pad_y,
            grey,
        } = Placed::of(self.spec.fit, inner.width, inner.height, w, h);
        // Bicubic overshoots at hard edges and is clipped to u8 between the passes, so their order is seen. Pillow begins with
        // the rows (from version 13 on with the columns where the height shrinks more), the resizer with the columns: here
        // it is asked for one axis at a time.
        let by_rows = self.spec.filter == Filter::Bicubic;
        let mut resize = |out: &mut [u8]| -> Result<(), ResizeError> {
            let mut target = TypedImage::<U8x3>::from_buffer(fit_w as u32, fit_h as u32, out)
                .expect("the output has width * height pixels");
            if !by_rows {
                return self.resizer.resize_typed(&source, &mut target, &options);
            }
            self.rows.resize(3 * fit_w * height, 0);
            let mut rows =
                TypedImage::<U8x3>::from_buffer(fit_w as u32, height as u32, &mut self.rows)
                    .expect("every row has the output's width");
            let across = self
                .options
                .crop(inner.left, 0.0, inner.width, height as f64);
            self.resizer.resize_typed(&source, &mut rows, &across)?;
            let down = self
                .options
                .crop(0.0, inner.top, fit_w as f64, inner.height);
            self.resizer.resize_typed(&rows, &mut target, &down)
        };
        if (fit_w, fit_h) == (w, h) {
            resize(out)?;
        } else {
            self.fitted.resize(3 * fit_w * fit_h, 0);
            resize(&mut self.fitted)?;
            out.fill(grey);
            for (row, pixels) in self.fitted.chunks_exact(3 * fit_w).enumerate() {
                let start = 3 * ((pad_y + row) * w + pad_x);
                out[start..start + 3 * fit_w].copy_from_slice(pixels);
            }
        }
        let scale = [fit_w as f64 / inner.width, fit_h as f64 / inner.height];
        let offset = [
            pad_x as f64 - (x as f64 + inner.left) * scale[0],
            pad_y as f64 - (y as f64 + inner.top) * scale[1],
        ];
        Ok(Letterbox {
            scale: scale.map(|v| v as f32),
            offset: offset.map(|v| v as f32),
        })
    }
}

/// The part of a picture that is cut out, and the wanted box inside it.
struct Region {
    x: usize,
    y: usize,
    width: usize,
    height: usize,
    /// The box, relative to (x, y).
    inner: CropBox,
}

impl Region {
    /// The smallest rectangle of whole pixels around the box.
    fn of(picture: &Rgb, crop: Option<PixelBox>) -> Result<Self, PreprocessError> {
        let (width, height) = (picture.width, picture.height);
        let Some(crop) = crop else {
            let inner = CropBox {
                left: 0.0,
                top: 0.0,
                width: width as f64,
                height: height as f64,
            };
            return Ok(Region {
                x: 0,
                y: 0,
                width,
                height,
                inner,
            });
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
struct Placed {
    width: usize,
    height: usize,
    x: usize,
    y: usize,
    grey: u8,
}

impl Placed {
    fn of(fit: Fit, width: f64, height: f64, w: usize, h: usize) -> Self {
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
}

fn check_buffer(picture: &Rgb) -> Result<(), PreprocessError> {
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

/// Reads a JPEG or PNG file as RGB.
///
/// # Errors
/// [`PreprocessError::Decode`] or, for a JPEG without its end, [`PreprocessError::Truncated`], naming the file.
pub fn decode(path: &Path) -> Result<RgbImage, PreprocessError> {
    let fail = |source| PreprocessError::Decode {
        path: path.to_path_buf(),
        source,
    };
    let bytes = std::fs::read(path).map_err(|e| fail(e.into()))?;
    if !has_end(&bytes) {
        return Err(PreprocessError::Truncated {
            path: path.to_path_buf(),
        });
    }
    let image = image::ImageReader::new(std::io::Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|e| fail(e.into()))?
        .decode()
        .map_err(fail)?;
    Ok(image.into_rgb8())
}

/// Decoders fill a JPEG that was cut short with grey and say nothing: silent damage to training and search alike. Within
/// the coded picture neither marker can occur, so a whole one has an end after its last start.
fn has_end(bytes: &[u8]) -> bool {
    if !bytes.starts_with(&[0xff, 0xd8]) {
        return true;
    }
    let last = |marker: u8| bytes.windows(2).rposition(|pair| pair == [0xff, marker]);
    matches!((last(0xda), last(0xd9)), (Some(start), Some(end)) if end > start)
}
