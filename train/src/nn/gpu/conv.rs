//! Convolutions: a matrix product where the kernel is a point, a library's algorithm where there is one, else matrices of
//! columns (Chellapilla et al. 2006), a block of images at a time.

use candle_core::{DType, Result, Tensor};

use super::launch::{blocks, int, type_name};
use super::{Arg, ConvAddresses, ConvPass, Gpu, Matrix, Product};
use crate::nn::kernels::{ConvShape, Epilogue};

/// A matrix of columns: so many images at a time, one group of channels.
struct Columns {
    shape: ConvShape,
    dtype: DType,
    /// Images of a full block.
    images: usize,
    /// Rows of an image: its output pixels.
    pixels: usize,
    address: u64,
    /// What lies at the address, for as long as parts are worked on.
    _memory: Tensor,
}

/// A block of images within one group.
#[derive(Clone, Copy)]
struct Part {
    first: usize,
    count: usize,
    group: usize,
}

impl Columns {
    fn new(gpu: &Gpu, s: &ConvShape, dtype: DType) -> Result<Self> {
        let [oh, ow] = s.out();
        let pixels = oh * ow;
        let image = (pixels * s.filter_len() * dtype.size_in_bytes()).max(1);
        let images = (gpu.room / image).clamp(1, s.n.max(1));
        let memory = gpu.empty(images * pixels * s.filter_len(), dtype)?;
        Ok(Columns {
            shape: *s,
            dtype,
            images,
            pixels,
            address: gpu.driver.address(&memory)?,
            _memory: memory,
        })
    }

    fn parts(&self) -> impl Iterator<Item = Part> {
        let (n, images, groups) = (self.shape.n, self.images, self.shape.groups);
        (0..n).step_by(images).flat_map(move |first| {
            (0..groups).map(move |group| Part {
                first,
                count: images.min(n - first),
                group,
            })
        })
    }

    fn rows(&self, part: Part) -> usize {
        part.count * self.pixels
    }

    fn matrix(&self, transposed: bool) -> Matrix {
        Matrix {
            address: self.address,
            dtype: self.dtype,
            stride: self.shape.filter_len(),
            transposed,
        }
    }

    /// A part of the output or of its gradient: rows of all groups' channels.
    fn output(&self, address: u64, part: Part, transposed: bool) -> Matrix {
        let s = &self.shape;
        let skipped = part.first * self.pixels * s.o + part.group * (s.o / s.groups);
        Matrix {
            address: address + (skipped * self.dtype.size_in_bytes()) as u64,
            dtype: self.dtype,
            stride: s.o,
            transposed,
        }
    }

    /// A group's filters, (O / groups, kh kw C / groups).
    fn filters(&self, address: u64, dtype: DType, part: Part, transposed: bool) -> Matrix {
        let s = &self.shape;
        let skipped = part.group * (s.o / s.groups) * s.filter_len();
        Matrix {
            address: address + (skipped * dtype.size_in_bytes()) as u64,
            dtype,
            stride: s.filter_len(),
            transposed,
        }
    }

    /// Runs `im2col` (map to columns) or `col2im` (columns to map).
    fn move_map(
        &self,
        gpu: &Gpu,
        kernel: &str,
        map: &Tensor,
        part: Part,
        more: &[Arg],
    ) -> Result<()> {
        let s = &self.shape;
        let skipped = part.first * s.h * s.w * s.c * self.dtype.size_in_bytes();
        let map = Arg::Pointer(gpu.driver.address(map)? + skipped as u64);
        let columns = Arg::Pointer(self.address);
        let per_group = s.c / s.groups;
        let out = s.out();
        // Whole vectors must not straddle a group's edge; a pixel's is one.
        let (name, lanes) = gpu.vector_kernel(kernel, self.dtype, per_group, &[map, columns])?;
        let (pointers, items) = match kernel {
            "im2col" => ([map, columns], self.rows(part) * s.filter_len()),
            _ => ([columns, map], part.count * s.h * s.w * per_group),
        };
        let mut args = pointers.to_vec();
        let ints = [
            part.count,
            s.h,
            s.w,
            s.c,
            part.group * per_group,
            per_group,
            out[0],
            out[1],
            s.kernel[0],
            s.kernel[1],
            s.stride[0],
            s.stride[1],
            s.padding[0],
            s.padding[1],
            s.dilation[0],
            s.dilation[1],
        ];
        for n in ints {
            args.push(int(n)?);
        }
        args.extend(more);
        gpu.run("conv", &name, blocks(items / lanes), &args)
    }
}

impl Gpu {
    /// Filters (O, C / groups, kh, kw) in f32 as (O, kh, kw, C / groups) in `dtype`, each times its scale.
    fn packed(
        &self,
        s: &ConvShape,
        w: &Tensor,
        scale: Option<&Tensor>,
        dtype: DType,
    ) -> Result<Tensor> {
        let (taps, c) = (s.kernel[0] * s.kernel[1], s.c / s.groups);
        let packed = self.empty(w.elem_count(), dtype)?;
        self.run(
            "conv",
            &format!("pack_filters_{}", type_name(dtype)?),
            blocks(w.elem_count()),
            &[
                self.pointer(w)?,
                self.pointer_or_null(scale)?,
                self.pointer(&packed)?,
                int(s.o)?,
                int(c)?,
                int(taps)?,
            ],
        )?;
        Ok(packed)
    }

    pub(super) fn convolve(
        &self,
        s: &ConvShape,
        x: &Tensor,
        w: &Tensor,
        then: Epilogue,
    ) -> Result<Tensor> {
        let dtype = x.dtype();
        let [oh, ow] = s.out();
        let y = self.empty((s.n, oh, ow, s.o), dtype)?;
        let filters = self.packed(s, w, then.scale, dtype)?;
        let at = self.addresses(x, &filters, &y)?;
        if s.is_pointwise() {
            let product = Product {
                m: s.rows(),
                n: s.o,
                k: s.c,
                a: whole(at.x, dtype, s.c, false),
                b: whole(at.w, dtype, s.c, true),
                c: whole(at.y, dtype, s.o, false),
                accumulate: false,
                exact: false,
            };
            // SAFETY: whole tensors of these shapes.
            unsafe { self.driver.product(&product)? };
        } else if !self.library(ConvPass::Forward, s, dtype, at)? {
            let columns = Columns::new(self, s, dtype)?;
            for part in columns.parts() {
                columns.move_map(self, "im2col", x, part, &[])?;
                let product = Product {
                    m: columns.rows(part),
                    n: s.o / s.groups,
                    k: s.filter_len(),
                    a: columns.matrix(false),
                    b: columns.filters(at.w, dtype, part, true),
                    c: columns.output(at.y, part, false),
                    accumulate: false,
                    exact: false,
                };
                // SAFETY: parts lie inside their tensors.
                unsafe { self.driver.product(&product)? };
            }
        }
        if then.bias.is_some() || then.residual.is_some() || then.relu {
            let then = Epilogue {
                scale: None,
                ..then
            };
            self.apply_affine(&y, &y, then, y.elem_count())?;
        }
        Ok(y)
    }

    /// Gradient of the input, added to `sum` if there is one.
    pub(super) fn input_grad(
        &self,
        s: &ConvShape,
        w: &Tensor,
        dy: &Tensor,
        sum: Option<Tensor>,
    ) -> Result<Tensor> {
        let dtype = dy.dtype();
        let accumulate = sum.is_some();
        let dx = match sum {
            Some(sum) => sum,
            None => self.empty((s.n, s.h, s.w, s.c), dtype)?,
        };
        let filters = self.packed(s, w, None, dtype)?;
        let at = self.addresses(&dx, &filters, dy)?;
        if s.is_pointwise() {
            let product = Product {
                m: s.rows(),
                n: s.c,
                k: s.o,
                a: whole(at.y, dtype, s.o, false),
                b: whole(at.w, dtype, s.c, false),
                c: whole(at.x, dtype, s.c, false),
                accumulate,
                exact: false,
            };
            // SAFETY: whole tensors of these shapes.
            unsafe { self.driver.product(&product)? };
            return Ok(dx);
        }
        if self.library(ConvPass::InputGrad { accumulate }, s, dtype, at)?
            || (accumulate && self.added_by_library(s, &dx, &filters, dy)?)
        {
            return Ok(dx);
        }
        let columns = Columns::new(self, s, dtype)?;
        for part in columns.parts() {
            let product = Product {
                m: columns.rows(part),
                n: s.filter_len(),
                k: s.o / s.groups,
                a: columns.output(at.y, part, false),
                b: columns.filters(at.w, dtype, part, false),
                c: columns.matrix(false),
                accumulate: false,
                exact: false,
            };
            // SAFETY: parts lie inside their tensors.
            unsafe { self.driver.product(&product)? };
            columns.move_map(self, "col2im", &dx, part, &[Arg::I32(accumulate.into())])?;
        }
        Ok(dx)
    }

    /// For a library that has the gradient of an input but can't add it to another: computes it apart, then adds.
    fn added_by_library(
        &self,
        s: &ConvShape,
        sum: &Tensor,
        filters: &Tensor,
        dy: &Tensor,
    ) -> Result<bool> {
        let fresh = self.empty(sum.shape(), sum.dtype())?;
        let at = self.addresses(&fresh, filters, dy)?;
        let pass = ConvPass::InputGrad { accumulate: false };
        let done = self.library(pass, s, sum.dtype(), at)?;
        if done {
            self.elementwise("add", &[sum, &fresh, sum], sum, &[Arg::I32(0)])?;
        }
        Ok(done)
    }

    /// Gradient of the filters, in their own layout and f32.
    pub(super) fn filter_grad(
        &self,
        s: &ConvShape,
        x: &Tensor,
        w: &Tensor,
        dy: &Tensor,
    ) -> Result<Tensor> {
        let dtype = dy.dtype();
        let dw = self.empty(w.shape(), DType::F32)?;
        let (from, to) = (self.driver.address(x)?, self.driver.address(dy)?);
        if s.is_pointwise() {
            // (O, 1, 1, C) is (O, C, 1, 1).
            let product = Product {
                m: s.o,
                n: s.c,
                k: s.rows(),
                a: whole(to, dtype, s.o, true),
                b: whole(from, dtype, s.c, false),
                c: whole(self.driver.address(&dw)?, DType::F32, s.c, false),
                accumulate: false,
                exact: false,
            };
            // SAFETY: whole tensors of these shapes.
            unsafe { self.driver.product(&product)? };
            return Ok(dw);
        }
        let packed = self.empty(w.elem_count(), dtype)?;
        let at = self.addresses(x, &packed, dy)?;
        let packed = if self.library(ConvPass::FilterGrad, s, dtype, at)? {
            packed
        } else {
            // Blocks add up in f32, whatever the maps are.
            let packed = self.empty(w.elem_count(), DType::F32)?;
            let address = self.driver.address(&packed)?;
            let columns = Columns::new(self, s, dtype)?;
            for part in columns.parts() {
                columns.move_map(self, "im2col", x, part, &[])?;
                let product = Product {
                    m: s.o / s.groups,
                    n: s.filter_len(),
                    k: columns.rows(part),
                    a: columns.output(at.y, part, true),
                    b: columns.matrix(false),
                    c: columns.filters(address, DType::F32, part, false),
                    accumulate: part.first > 0,
                    exact: false,
                };
                // SAFETY: parts lie inside their tensors.
                unsafe { self.driver.product(&product)? };
            }
            packed
        };
        let (taps, c) = (s.kernel[0] * s.kernel[1], s.c / s.groups);
        self.run(
            "conv",
            &format!("unpack_filters_{}", type_name(packed.dtype())?),
            blocks(w.elem_count()),
            &[
                self.pointer(&packed)?,
                self.pointer(&dw)?,
                int(s.o)?,
                int(c)?,
                int(taps)?,
            ],
        )?;
        Ok(dw)
    }

    fn addresses(&self, x: &Tensor, w: &Tensor, y: &Tensor) -> Result<ConvAddresses> {
        Ok(ConvAddresses {
            x: self.driver.address(x)?,
            w: self.driver.address(w)?,
            y: self.driver.address(y)?,
        })
    }

    fn library(
        &self,
        pass: ConvPass,
        s: &ConvShape,
        dtype: DType,
        at: ConvAddresses,
    ) -> Result<bool> {
        // SAFETY: the addresses are those of tensors of this geometry and type.
        unsafe { self.driver.convolution(pass, s, dtype, at) }
    }
}

fn whole(address: u64, dtype: DType, stride: usize, transposed: bool) -> Matrix {
    Matrix {
        address,
        dtype,
        stride,
        transposed,
    }
}
