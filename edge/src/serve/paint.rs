//! Boxes and labels drawn into a picture, without a font file.

use image::codecs::jpeg::JpegEncoder;
use image::{ImageError, Rgb, RgbImage};

use crate::types::Ltrb;

/// A 5 x 7 glyph, one byte per row, bit 4 on the left.
fn glyph(c: char) -> [u8; 7] {
    match c.to_ascii_lowercase() {
        '0' => [14, 17, 19, 21, 25, 17, 14],
        '1' => [4, 12, 4, 4, 4, 4, 14],
        '2' => [14, 17, 1, 2, 4, 8, 31],
        '3' => [31, 2, 4, 2, 1, 17, 14],
        '4' => [2, 6, 10, 18, 31, 2, 2],
        '5' => [31, 16, 30, 1, 1, 17, 14],
        '6' => [6, 8, 16, 30, 17, 17, 14],
        '7' => [31, 1, 2, 4, 8, 8, 8],
        '8' => [14, 17, 17, 14, 17, 17, 14],
        '9' => [14, 17, 17, 15, 1, 2, 12],
        'a' => [14, 17, 17, 31, 17, 17, 17],
        'b' => [30, 17, 17, 30, 17, 17, 30],
        'c' => [14, 17, 16, 16, 16, 17, 14],
        'd' => [30, 17, 17, 17, 17, 17, 30],
        'e' => [31, 16, 16, 30, 16, 16, 31],
        'f' => [31, 16, 16, 30, 16, 16, 16],
        '?' => [14, 17, 1, 2, 4, 0, 4],
        '.' => [0, 0, 0, 0, 0, 12, 12],
        ' ' => [0; 7],
        _ => [31, 17, 17, 17, 17, 17, 31],
    }
}

/// Hue, 0..360, of the n-th identity: golden angle steps keep neighbours apart for any number of them.
pub fn hue(n: usize) -> f32 {
    (n as f32 * 137.507_77 + 200.0) % 360.0
}

/// A bright colour of a hue (HSL with saturation .78, lightness .62, as the page uses).
pub fn colour(hue: f32) -> Rgb<u8> {
    let (s, l) = (0.78f32, 0.62f32);
    let chroma = (1.0 - (2.0 * l - 1.0).abs()) * s;
    let channel = |shift: f32| {
        let k = (shift + hue / 30.0) % 12.0;
        let value = l - chroma / 2.0 * (k - 3.0).min(9.0 - k).clamp(-1.0, 1.0);
        (value * 255.0).round() as u8
    };
    Rgb([channel(0.0), channel(8.0), channel(4.0)])
}

/// Colour of somebody without an identity.
pub const NOBODY: Rgb<u8> = Rgb([150, 158, 170]);

/// Draws a box with a label on top of it; parts outside the picture are left out. Only hex digits, `?`, `.` and spaces
/// have glyphs.
pub fn draw_box(picture: &mut RgbImage, ltrb: &Ltrb, text: &str, colour: Rgb<u8>) {
    let size = (picture.height() / 360).max(1) as i64;
    let (l, t) = (ltrb.left.round() as i64, ltrb.top.round() as i64);
    let (r, b) = (ltrb.right.round() as i64, ltrb.bottom.round() as i64);
    let edge = 2 * size;
    fill(picture, l, t, r, t + edge, colour);
    fill(picture, l, b - edge, r, b, colour);
    fill(picture, l, t, l + edge, b, colour);
    fill(picture, r - edge, t, r, b, colour);
    if text.is_empty() {
        return;
    }
    let (width, height) = ((text.len() as i64 * 6 + 3) * size, 11 * size);
    let top = if t >= height { t - height } else { t };
    fill(picture, l, top, l + width, top + height, colour);
    for (i, c) in text.chars().enumerate() {
        for (y, bits) in glyph(c).into_iter().enumerate() {
            for x in 0..5 {
                if bits & (16 >> x) != 0 {
                    let left = l + (2 + i as i64 * 6 + x) * size;
                    let above = top + (2 + y as i64) * size;
                    fill(
                        picture,
                        left,
                        above,
                        left + size,
                        above + size,
                        Rgb([12, 14, 18]),
                    );
                }
            }
        }
    }
}

fn fill(picture: &mut RgbImage, l: i64, t: i64, r: i64, b: i64, colour: Rgb<u8>) {
    let (w, h) = (i64::from(picture.width()), i64::from(picture.height()));
    for y in t.clamp(0, h)..b.clamp(0, h) {
        for x in l.clamp(0, w)..r.clamp(0, w) {
            picture.put_pixel(x as u32, y as u32, colour);
        }
    }
}

/// Quality 82 JPEG.
///
/// # Errors
/// A picture too large for JPEG (65,535 pixels on a side) or empty.
pub fn jpeg(picture: &RgbImage) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 82).encode_image(picture)?;
    bytes.shrink_to_fit();
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_inside_the_picture_whatever_the_box() {
        let mut picture = RgbImage::new(64, 48);
        for (left, top, right, bottom) in [
            (-20.0, -20.0, 200.0, 200.0),
            (10.0, 20.0, 30.0, 40.0),
            (90.0, 90.0, 95.0, 95.0),
        ] {
            let ltrb = Ltrb {
                left,
                top,
                right,
                bottom,
            };
            draw_box(&mut picture, &ltrb, "3f2a", colour(40.0));
        }
        assert_eq!(*picture.get_pixel(10, 30), colour(40.0));
        assert_eq!(*picture.get_pixel(40, 30), Rgb([0, 0, 0]));
    }

    #[test]
    fn colours_are_those_of_the_hue() {
        let Rgb([r, g, b]) = colour(0.0);
        assert!(r > 200 && g < 130 && b < 130, "red, got {r} {g} {b}");
        let Rgb([r, g, b]) = colour(120.0);
        assert!(g > 200 && r < 130 && b < 130, "green, got {r} {g} {b}");
    }
}
