//! The frame at analysis size.

use image::RgbImage;

/// A frame averaged over squares of `factor` pixels. Averaging takes most of the noise with it.
pub(super) struct Shrunk {
    /// Side of a square, frame pixels.
    pub(super) factor: usize,
    width: usize,
    height: usize,
    /// RGB 0..255, row by row.
    pub(super) pixels: Vec<[f32; 3]>,
    sums: Vec<[u32; 3]>,
}

impl Shrunk {
    pub(super) fn new(factor: usize) -> Self {
        Shrunk {
            factor,
            width: 0,
            height: 0,
            pixels: Vec::new(),
            sums: Vec::new(),
        }
    }

    /// (width, height).
    pub(super) fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// Takes a new frame. An incomplete square at the right or bottom is averaged over what there is.
    pub(super) fn take(&mut self, picture: &RgbImage) {
        let (w, h) = (picture.width() as usize, picture.height() as usize);
        let f = self.factor;
        self.width = w.div_ceil(f);
        self.height = h.div_ceil(f);
        self.pixels.resize(self.width * self.height, [0.0; 3]);
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_squares_also_at_ragged_edges() {
        // 5 x 3 pixels by squares of 2: red = x, green = y.
        let picture = RgbImage::from_fn(5, 3, |x, y| image::Rgb([x as u8 * 10, y as u8 * 10, 7]));
        let mut s = Shrunk::new(2);
        s.take(&picture);
        assert_eq!(s.size(), (3, 2));
        assert_eq!(s.pixels[0], [5.0, 5.0, 7.0]);
        assert_eq!(s.pixels[2], [40.0, 5.0, 7.0], "one column left");
        assert_eq!(s.pixels[5], [40.0, 20.0, 7.0], "one pixel left");
    }
}
