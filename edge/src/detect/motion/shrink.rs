//! The frame at analysis size.

use image::RgbImage;
use reid_models::picture::{Chroma, Picture, Yuv420};

/// A frame averaged over squares of `factor` pixels. Averaging takes most of the noise with it.
pub(super) struct Shrunk {
    /// Side of a square, frame pixels.
    pub(super) factor: usize,
    width: usize,
    height: usize,
    /// RGB 0..255, row by row.
    pub(super) pixels: Vec<[f32; 3]>,
    sums: Vec<[u32; 3]>,
    planes: [Vec<f32>; 3],
}

impl Shrunk {
    pub(super) fn new(factor: usize) -> Self {
        Shrunk {
            factor,
            width: 0,
            height: 0,
            pixels: Vec::new(),
            sums: Vec::new(),
            planes: Default::default(),
        }
    }

    /// (width, height).
    pub(super) fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// Takes a new frame. An incomplete square at the right or bottom is averaged over what there is.
    pub(super) fn take(&mut self, picture: &Picture) {
        let (w, h) = picture.size();
        self.width = w.div_ceil(self.factor);
        self.height = h.div_ceil(self.factor);
        self.pixels.resize(self.width * self.height, [0.0; 3]);
        match picture {
            Picture::Rgb(picture) => self.take_rgb(picture),
            Picture::Yuv(picture) => self.take_yuv(picture),
        }
    }

    fn take_rgb(&mut self, picture: &RgbImage) {
        let (w, h) = (picture.width() as usize, picture.height() as usize);
        let f = self.factor;
        self.sums.resize(self.width, [0; 3]);
        let data = picture.as_raw();
        for y in 0..self.height {
            self.sums.fill([0; 3]);
            let rows = (y * f..((y + 1) * f).min(h)).len() as f32;
            for source in data[y * f * w * 3..((y + 1) * f).min(h) * w * 3].chunks_exact(w * 3) {
                for (sum, square) in self.sums.iter_mut().zip(source.chunks(3 * f)) {
                    for pixel in square.chunks_exact(3) {
                        for c in 0..3 {
                            sum[c] += u32::from(pixel[c]);
                        }
                    }
                }
            }
            for x in 0..self.width {
                let columns = (x * f..((x + 1) * f).min(w)).len() as f32;
                let scale = 1.0 / (rows * columns);
                self.pixels[y * self.width + x] = self.sums[x].map(|s| s as f32 * scale);
            }
        }
    }

    /// Planes are averaged before they are converted: the same but for clipping. A chroma sample on the border of two
    /// squares counts in both.
    fn take_yuv(&mut self, picture: &Yuv420) {
        let (size, f) = ((self.width, self.height), self.factor);
        let whole = (picture.width(), picture.height());
        let chroma = picture.chroma_size();
        let samples = picture.chroma_data();
        let [y, u, v] = &mut self.planes;
        average(picture.luma(), whole, 1, 0, size, |i| i * f..(i + 1) * f, y);
        let near = |i: usize| i * f / 2..((i + 1) * f).div_ceil(2);
        match picture.chroma() {
            Chroma::Planar => {
                let (us, vs) = samples.split_at(chroma.0 * chroma.1);
                average(us, chroma, 1, 0, size, near, u);
                average(vs, chroma, 1, 0, size, near, v);
            }
            Chroma::Interleaved => {
                average(samples, chroma, 2, 0, size, near, u);
                average(samples, chroma, 2, 1, size, near, v);
            }
        }
        for (((pixel, &y), &u), &v) in self.pixels.iter_mut().zip(&*y).zip(&*u).zip(&*v) {
            *pixel = picture.colour().rgb(y, u, v);
        }
    }
}

/// Means of a plane over squares; sample (x, y) of the plane stands at `step * (y * width + x) + first`.
fn average(
    data: &[u8],
    (width, height): (usize, usize),
    step: usize,
    first: usize,
    (out_width, out_height): (usize, usize),
    span: impl Fn(usize) -> std::ops::Range<usize>,
    out: &mut Vec<f32>,
) {
    out.clear();
    let columns: Vec<_> = (0..out_width)
        .map(|x| span(x).start..span(x).end.min(width))
        .collect();
    let mut sums = vec![0u32; out_width];
    for y in 0..out_height {
        sums.fill(0);
        let rows = span(y).start..span(y).end.min(height);
        for row in rows.clone() {
            let row = &data[step * row * width..step * (row + 1) * width];
            for (sum, columns) in sums.iter_mut().zip(&columns) {
                let part = &row[step * columns.start..step * columns.end];
                if step == 1 {
                    *sum += part.iter().map(|&s| u32::from(s)).sum::<u32>();
                } else {
                    let own = part.iter().skip(first).step_by(step);
                    *sum += own.map(|&s| u32::from(s)).sum::<u32>();
                }
            }
        }
        let count = |columns: &std::ops::Range<usize>| (rows.len() * columns.len()) as f32;
        out.extend(sums.iter().zip(&columns).map(|(&s, c)| s as f32 / count(c)));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use reid_models::picture::{Colour, Plane, Siting};

    use super::*;

    #[test]
    fn averages_squares_also_at_ragged_edges() {
        // 5 x 3 pixels by squares of 2: red = x, green = y.
        let picture = RgbImage::from_fn(5, 3, |x, y| image::Rgb([x as u8 * 10, y as u8 * 10, 7]));
        let mut s = Shrunk::new(2);
        s.take(&Picture::Rgb(picture));
        assert_eq!(s.size(), (3, 2));
        assert_eq!(s.pixels[0], [5.0, 5.0, 7.0]);
        assert_eq!(s.pixels[2], [40.0, 5.0, 7.0], "one column left");
        assert_eq!(s.pixels[5], [40.0, 20.0, 7.0], "one pixel left");
    }

    #[test]
    fn planes_give_what_the_converted_picture_gives() {
        // Smooth, so that interpolating chroma differs little from repeating it; its rounding to bytes is multiplied by 2.
        let (w, h) = (94usize, 61usize);
        let (cw, ch) = (w.div_ceil(2), h.div_ceil(2));
        let grid = |w: usize, h: usize, f: fn(usize, usize) -> usize| -> Vec<u8> {
            (0..w * h).map(|i| f(i % w, i / w) as u8).collect()
        };
        let y = grid(w, h, |x, y| 60 + x + y / 2);
        let u = grid(cw, ch, |x, _| 100 + x);
        let v = grid(cw, ch, |_, y| 150 - 2 * y);
        let uv: Vec<u8> = u.iter().zip(&v).flat_map(|(&u, &v)| [u, v]).collect();
        let plane = |data, stride| Plane { data, stride };
        let planar = [plane(&y[..], w), plane(&u, cw), plane(&v, cw)];
        let interleaved = [plane(&y[..], w), plane(&uv, 2 * cw)];
        let colour = Colour {
            siting: Siting::Centre,
            ..Colour::default()
        };
        for factor in [2, 3, 4] {
            for planes in [&planar[..], &interleaved] {
                let yuv = Picture::Yuv(Yuv420::copy((w, h), planes, colour).unwrap());
                let (mut own, mut converted) = (Shrunk::new(factor), Shrunk::new(factor));
                own.take(&yuv);
                converted.take(&Picture::Rgb(yuv.to_rgb()));
                assert_eq!(own.size(), converted.size());
                for (i, (a, b)) in own.pixels.iter().zip(&converted.pixels).enumerate() {
                    for c in 0..3 {
                        let (x, y) = (i % own.width, i / own.width);
                        assert!(
                            (a[c] - b[c]).abs() < 2.5,
                            "{factor} at {x}, {y}: {a:?} {b:?}"
                        );
                    }
                }
            }
        }
    }
}
