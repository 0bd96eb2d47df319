//! Picture to tensor: the only definition, for training and for the edge.
//!
//! A picture is packed RGB or a decoder's YUV ([`crate::picture`]). Of the latter only what the model sees is converted: planes
//! are scaled, then the output's pixels become RGB and are normalised in one pass, without rounding in between.
//!
//! A crop is cut on whole pixels around the box, fitted with an antialiasing filter (that of Pillow), rounded to
//! u8, then normalised. Only pixels inside the cut count, so a crop that was saved to a file and read again gives the
//! tensor that the same crop gives straight from its frame.

mod decode;
mod place;
mod tensor;

use std::path::PathBuf;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeError, ResizeOptions, Resizer};
use image::RgbImage;

use crate::card::{Channels, Filter, InputSpec, Layout, Range};
use crate::picture::{Pixels, Yuv420};
use crate::planes::PlaneScaler;
pub use decode::decode;
use place::{Placed, Region, check_buffer, inside};

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
    /// Neither planar nor semi-planar.
    #[error("a YUV picture has 2 planes (NV12) or 3 (I420), got {planes}")]
    Planes {
        /// Given.
        planes: usize,
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
    planes: PlaneScaler,
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
            planes: PlaneScaler::default(),
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
    pub fn resized<'a>(
        &mut self,
        picture: impl Into<Pixels<'a>>,
        crop: Option<PixelBox>,
    ) -> Result<RgbImage, PreprocessError> {
        let mut out = RgbImage::new(self.spec.width as u32, self.spec.height as u32);
        match picture.into() {
            Pixels::Rgb(picture) => self.fit(picture, crop, &mut out)?,
            Pixels::Yuv(picture) => self.fit_planes(picture, crop, &mut out)?,
        };
        Ok(out)
    }

    /// The grey crop (8-bit, the spec's height x width, row by row): luma of a YUV picture, its range widened to 0..=255, or
    /// the same weighted sum of RGB (BT.601).
    ///
    /// # Errors
    /// As [`Preprocess::resized`].
    pub fn grey<'a>(
        &mut self,
        picture: impl Into<Pixels<'a>>,
        crop: Option<PixelBox>,
    ) -> Result<Vec<f32>, PreprocessError> {
        let picture = match picture.into() {
            Pixels::Yuv(picture) => picture,
            rgb => {
                let small = self.resized(rgb, crop)?;
                let (pixels, _) = small.as_raw().as_chunks::<3>();
                let luma = |p: &[u8; 3]| {
                    0.299 * f32::from(p[0]) + 0.587 * f32::from(p[1]) + 0.114 * f32::from(p[2])
                };
                return Ok(pixels.iter().map(luma).collect());
            }
        };
        let at = inside((picture.width(), picture.height()), crop)?;
        let size = (self.spec.width, self.spec.height);
        let (scale, black) = if picture.colour().full_range {
            (1.0, 0.0)
        } else {
            (255.0 / 219.0, 16.0)
        };
        let mut sink = tensor::Grey {
            scale,
            black,
            out: Vec::with_capacity(size.0 * size.1),
        };
        let filter = self.spec.filter;
        self.planes.scale_luma(picture, at, filter, size, &mut sink);
        Ok(sink.out)
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
    pub fn run_into<'a>(
        &mut self,
        picture: impl Into<Pixels<'a>>,
        crop: Option<PixelBox>,
        out: &mut [f32],
    ) -> Result<Letterbox, PreprocessError> {
        let picture = match picture.into() {
            Pixels::Rgb(picture) => picture,
            Pixels::Yuv(picture) => return self.planes_into(picture, crop, out),
        };
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

    /// The box to scale, where it lies in the input, and how positions find back.
    fn place(
        &self,
        picture: &Yuv420,
        crop: Option<PixelBox>,
    ) -> Result<([f64; 4], Placed, Letterbox), PreprocessError> {
        let at = inside((picture.width(), picture.height()), crop)?;
        let [left, top, right, bottom] = at;
        let (width, height) = (right - left, bottom - top);
        let (w, h) = (self.spec.width, self.spec.height);
        let placed = Placed::of(self.spec.fit, width, height, w, h);
        let scale = [placed.width as f64 / width, placed.height as f64 / height];
        let letterbox = Letterbox {
            scale: scale.map(|v| v as f32),
            offset: [
                (placed.x as f64 - left * scale[0]) as f32,
                (placed.y as f64 - top * scale[1]) as f32,
            ],
        };
        Ok((at, placed, letterbox))
    }

    /// [`Preprocess::fit`] of a YUV picture.
    fn fit_planes(
        &mut self,
        picture: &Yuv420,
        crop: Option<PixelBox>,
        out: &mut [u8],
    ) -> Result<Letterbox, PreprocessError> {
        let (at, placed, letterbox) = self.place(picture, crop)?;
        let (size, filter) = ((placed.width, placed.height), self.spec.filter);
        self.fitted.resize(3 * size.0 * size.1, 0);
        self.planes
            .rgb_into(picture, at, filter, size, &mut self.fitted);
        placed.paste(&self.fitted, self.spec.width, out);
        Ok(letterbox)
    }

    /// [`Preprocess::run_into`] of a YUV picture: scaled, coloured and normalised row by row, nothing stored between.
    fn planes_into(
        &mut self,
        picture: &Yuv420,
        crop: Option<PixelBox>,
        out: &mut [f32],
    ) -> Result<Letterbox, PreprocessError> {
        assert_eq!(
            out.len(),
            self.tensor_len(),
            "the tensor of one picture is 3 * height * width"
        );
        let (at, placed, letterbox) = self.place(picture, crop)?;
        let (w, h) = (self.spec.width, self.spec.height);
        let rgb = picture.colour().to_rgb();
        let weights = match self.spec.channels {
            Channels::Rgb => rgb,
            Channels::Bgr => [rgb[2], rgb[1], rgb[0]],
        };
        let unit = match self.spec.range {
            Range::Unit => 1.0 / 255.0,
            Range::Byte => 1.0,
        };
        let layout = self.spec.layout;
        if (placed.width, placed.height) != (w, h) {
            let grey = [0, 1, 2].map(|c: usize| self.values[c][usize::from(placed.grey)]);
            match layout {
                Layout::Nchw => {
                    for (plane, grey) in out.chunks_exact_mut(h * w).zip(grey) {
                        plane.fill(grey);
                    }
                }
                Layout::Nhwc => out.as_chunks_mut::<3>().0.fill(grey),
            }
        }
        let mut sink = tensor::Tensor {
            layout,
            size: (w, h),
            placed: (placed.x, placed.y, placed.width),
            channels: std::array::from_fn(|c| tensor::Channel {
                weights: weights[c],
                scale: unit / self.spec.std[c],
                shift: -self.spec.mean[c] / self.spec.std[c],
            }),
            out,
        };
        let (size, filter) = ((placed.width, placed.height), self.spec.filter);
        self.planes.scale(picture, at, filter, size, &mut sink);
        Ok(letterbox)
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
        let placed = Placed::of(self.spec.fit, inner.width, inner.height, w, h);
        let (fit_w, fit_h) = (placed.width, placed.height);
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
            placed.paste(&self.fitted, w, out);
        }
        let scale = [fit_w as f64 / inner.width, fit_h as f64 / inner.height];
        let offset = [
            placed.x as f64 - (x as f64 + inner.left) * scale[0],
            placed.y as f64 - (y as f64 + inner.top) * scale[1],
        ];
        Ok(Letterbox {
            scale: scale.map(|v| v as f32),
            offset: offset.map(|v| v as f32),
        })
    }
}
