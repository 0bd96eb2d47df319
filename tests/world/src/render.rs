//! Raster: generalised cylinders painted near to far with analytic anti-aliasing.
//!
//! Every visible thing is a [`Part`]. The position across its axis gives the point's angle around the body and
//! its normal, so patterns wrap around and light falls as on a solid, at the price of a 2-D fill.

use crate::colour::Rgb;
use crate::part::{Folds, Part, STATIONS};
use crate::surface::Point;

/// Owner of a pixel that nobody stands on.
pub const NOBODY: u16 = 0;

/// A picture in linear light with the owner of every pixel.
///
/// It is painted from near to far, and each pixel remembers how much of the light from behind still comes
/// through: what lies hidden, a third of a dressed body, costs no shading.
#[derive(Debug, Clone)]
pub struct Canvas {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Linear colours, row by row.
    pub pixels: Vec<Rgb>,
    /// Share of the light from behind what is painted that still comes through, 0..1.
    pub through: Vec<f32>,
    /// Who is seen at a pixel: [`NOBODY`] or the number given when painting.
    pub owner: Vec<u16>,
    /// Distance of what is seen there, metres; infinite where nothing was painted.
    pub depth: Vec<f32>,
    /// Who painted here last, seen or hidden: counts every pixel of an owner once.
    marks: Vec<u16>,
}

/// Light of a place and time, in view coordinates (x right, y down, z to the camera).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Light {
    /// Unit direction to the light.
    pub towards: [f32; 3],
    /// Colour and strength of the directed light.
    pub direct: Rgb,
    /// Colour and strength of the light from everywhere.
    pub ambient: Rgb,
}

/// `acos` within 0.0002 rad (Abramowitz and Stegun 4.4.45), much faster than libm's.
#[inline]
fn acos(x: f32) -> f32 {
    let a = x.abs().min(1.0);
    let p =
        (1.0 - a).sqrt() * (1.570_728_8 + a * (-0.212_114_4 + a * (0.074_261 - 0.018_729_3 * a)));
    if x < 0.0 { std::f32::consts::PI - p } else { p }
}

/// Cuts `range` to where `low <= slope * x + start <= high`; empty ranges end before they start.
fn narrow(range: &mut [f32; 2], slope: f32, start: f32, [low, high]: [f32; 2]) {
    if slope.abs() < 1e-3 {
        // Nearly the same all over the range: every pixel is asked.
        return;
    }
    let (a, b) = ((low - start) / slope, (high - start) / slope);
    range[0] = range[0].max(a.min(b));
    range[1] = range[1].min(a.max(b));
}

impl Canvas {
    /// An empty canvas owned by nobody: black, and all the light from behind comes through.
    pub fn new(width: usize, height: usize) -> Self {
        Self {
            width,
            height,
            pixels: vec![[0.0; 3]; width * height],
            through: vec![1.0; width * height],
            owner: vec![NOBODY; width * height],
            depth: vec![f32::INFINITY; width * height],
            marks: vec![NOBODY; width * height],
        }
    }

    /// Makes the canvas as new.
    pub fn clear(&mut self) {
        self.pixels.fill([0.0; 3]);
        self.through.fill(1.0);
        self.owner.fill(NOBODY);
        self.depth.fill(f32::INFINITY);
        self.marks.fill(NOBODY);
    }

    /// Puts a picture of the canvas' size behind all that is painted.
    pub fn back(&mut self, picture: &[Rgb]) {
        for ((pixel, through), behind) in self.pixels.iter_mut().zip(&self.through).zip(picture) {
            for c in 0..3 {
                pixel[c] += behind[c] * through;
            }
        }
    }

    /// Paints `part` behind what is there; returns how many pixels `owner` covers that it did not cover
    /// before, hidden ones too. All parts of an owner must follow on each other.
    pub fn paint(&mut self, part: &Part<'_>, light: &Light, owner: u16, salt: u32) -> usize {
        let bounds = part.bounds();
        let bulge_px = part.bulge * part.widths[STATIONS - 1].max(part.widths[STATIONS / 2]);
        let x0 = (bounds[0] - 1.0).floor().max(0.0) as usize;
        let y0 = (bounds[1] - 1.0).floor().max(0.0) as usize;
        let x1 = ((bounds[2] + 2.0).ceil().max(0.0) as usize).min(self.width);
        let y1 = ((bounds[3] + 2.0 + bulge_px.max(0.0)).ceil().max(0.0) as usize).min(self.height);
        if x0 >= x1 || y0 >= y1 {
            return 0;
        }
        let perp = [part.axis[1], -part.axis[0]];
        let span = (part.span[1] - part.span[0]).max(1e-3);
        let per_px = (STATIONS - 1) as f32 / span;
        let per_span = 1.0 / span;
        let slopes: [f32; STATIONS] = std::array::from_fn(|k| {
            let (a, b) = (k.saturating_sub(1), (k + 1).min(STATIONS - 1));
            let slope = (part.widths[b] - part.widths[a]) * per_px / (b - a) as f32;
            1.0 / (1.0 + slope * slope).sqrt()
        });
        // How far from the axis anything of a station can be seen, with a little for rounding.
        let reach: [f32; STATIONS - 1] = std::array::from_fn(|k| {
            part.widths[k].max(part.widths[k + 1]) + 0.5 / slopes[k] + 0.01
        });
        let folds = (part.folds > 0.0).then(|| Folds::new(part, span, salt));
        let ends = [-1.0, span + 1.0 + bulge_px];
        let mut taken = 0;
        for y in y0..y1 {
            let dy = y as f32 + 0.5 - part.origin[1];
            // Along and across the axis at dx = 0; both are linear in dx.
            let (along0, across0) = (dy * part.axis[1] - part.span[0], dy * perp[1]);
            let mut row = [
                x0 as f32 + 0.5 - part.origin[0],
                x1 as f32 - 0.5 - part.origin[0],
            ];
            narrow(&mut row, part.axis[0], along0, ends);
            let station = |dx: f32| {
                let at = (along0 + dx * part.axis[0]) * per_px;
                at.clamp(0.0, (STATIONS - 1) as f32 - 1e-3) as usize
            };
            let (k0, k1) = (station(row[0]), station(row[1]));
            let far = reach[k0.min(k1)..=k0.max(k1)]
                .iter()
                .fold(0.0f32, |far, &r| far.max(r));
            narrow(&mut row, perp[0], across0, [-far, far]);
            // Pixel centres; one pixel more on each side, as the ends are rounded.
            let first = (row[0] + part.origin[0] - 1.5).max(x0 as f32) as usize;
            let last = ((row[1] + part.origin[0] + 1.5).max(0.0) as usize).min(x1);
            for x in first..last {
                let index = y * self.width + x;
                let through = self.through[index];
                if through <= 0.0 && (owner == NOBODY || self.marks[index] == owner) {
                    continue;
                }
                let dx = x as f32 + 0.5 - part.origin[0];
                let along = dx * part.axis[0] + along0;
                if along < ends[0] || along > ends[1] {
                    continue;
                }
                let across = dx * perp[0] + across0;
                let at = (along * per_px).clamp(0.0, (STATIONS - 1) as f32 - 1e-3);
                let k = at as usize;
                let f = at - k as f32;
                let half = part.widths[k] + (part.widths[k + 1] - part.widths[k]) * f;
                let inside = (half - across.abs()) * slopes[k] + 0.5;
                if inside <= 0.0 {
                    continue;
                }
                let t = (across / half.max(0.25)).clamp(-1.0, 1.0);
                let nz = (1.0 - t * t).max(0.0).sqrt();
                // A ring seen from above hangs lower in the middle: undo that to find where it sits.
                let ring = along - part.bulge * half * nz;
                let start = along + 0.5;
                let end = span - ring + 0.5;
                let coverage = inside.min(1.0).min(start).min(end);
                if coverage <= 0.0 {
                    continue;
                }
                if coverage > 0.5 {
                    if self.marks[index] != owner {
                        self.marks[index] = owner;
                        taken += 1;
                    }
                    if self.depth[index] == f32::INFINITY {
                        self.depth[index] = part.solid;
                        self.owner[index] = owner;
                    }
                }
                if through <= 0.0 {
                    continue;
                }
                self.through[index] = through * (1.0 - coverage);
                let theta = part.delta - acos(t);
                let point = Point {
                    theta,
                    z: ring.max(0.0) * part.metre,
                    v: (ring * per_span).clamp(0.0, 1.0),
                    t,
                    down: perp[1] * t,
                };
                let colour = part.surface.albedo(&point);
                let normal = [perp[0] * t, perp[1] * t, nz];
                let facing = normal[0] * light.towards[0]
                    + normal[1] * light.towards[1]
                    + normal[2] * light.towards[2];
                // Edges turn away from the sky too: keeps black on black apart.
                let t2 = t * t;
                let mut shade = 1.0 - 0.42 * t2 * t2;
                if let Some(folds) = &folds {
                    shade *= folds.shade(theta, point.z);
                }
                let direct = facing.max(0.0) * shade;
                let ambient = (0.86 - 0.14 * normal[1]) * shade;
                let seen = through * coverage;
                let pixel = &mut self.pixels[index];
                for c in 0..3 {
                    let lit = light.ambient[c] * ambient + light.direct[c] * direct;
                    pixel[c] += colour[c] * lit * seen;
                }
            }
        }
        taken
    }

    /// Darkens what lies behind a soft ellipse (a shadow on the ground); `depth` is how dark its middle is, 0..1.
    pub fn shade_ellipse(&mut self, centre: [f32; 2], half: [f32; 2], slant: f32, depth: f32) {
        let reach = half[0] + slant.abs() * half[1];
        let x0 = (centre[0] - reach * 1.6).floor().max(0.0) as usize;
        let x1 = ((centre[0] + reach * 1.6).ceil().max(0.0) as usize).min(self.width);
        let y0 = (centre[1] - half[1] * 1.6).floor().max(0.0) as usize;
        let y1 = ((centre[1] + half[1] * 1.6).ceil().max(0.0) as usize).min(self.height);
        for y in y0..y1 {
            let dy = (y as f32 + 0.5 - centre[1]) / half[1].max(0.5);
            for x in x0..x1 {
                let dx = (x as f32 + 0.5 - centre[0] - slant * dy * half[1]) / half[0].max(0.5);
                let r2 = dx * dx + dy * dy;
                if r2 < 2.56 {
                    let fall = (1.0 - r2 / 2.56).powi(2);
                    let keep = 1.0 - depth * fall;
                    self.through[y * self.width + x] *= keep;
                }
            }
        }
    }

    /// Number of pixels each owner is seen on; index is the owner.
    pub fn seen(&self, owners: usize) -> Vec<usize> {
        let mut seen = vec![0; owners + 1];
        for &owner in &self.owner {
            if let Some(count) = seen.get_mut(owner as usize) {
                *count += 1;
            }
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::part::capsule_widths;
    use crate::surface::Surface;

    fn disc(x: f32, y: f32, r: f32) -> Part<'static> {
        let (span, widths) = capsule_widths(0.0, r, r);
        Part {
            origin: [x, y],
            axis: [0.0, 1.0],
            span,
            widths,
            delta: 0.0,
            bulge: 0.0,
            metre: 1.0,
            surface: Surface::Flat([1.0; 3]),
            folds: 0.0,
            depth: 1.0,
            solid: 1.0,
        }
    }

    const LIGHT: Light = Light {
        towards: [0.0, 0.0, 1.0],
        direct: [0.5; 3],
        ambient: [0.5; 3],
    };

    #[test]
    fn a_disc_covers_its_area_and_counts_its_pixels() {
        let mut canvas = Canvas::new(80, 80);
        let hidden = canvas.paint(&disc(40.0, 40.0, 10.0), &LIGHT, 4, 0);
        let taken = canvas.paint(&disc(40.0, 40.0, 20.0), &LIGHT, 3, 0);
        let area = std::f32::consts::PI * 400.0;
        assert!(
            (taken as f32 - area).abs() < area * 0.05,
            "{taken} of {area}"
        );
        assert_eq!(canvas.seen(4)[4], hidden);
        assert_eq!(canvas.seen(4)[3], taken - hidden);
        assert_eq!(canvas.paint(&disc(40.0, 40.0, 15.0), &LIGHT, 3, 0), 0);
    }

    #[test]
    fn light_from_behind_comes_through_where_nothing_is_painted() {
        let mut canvas = Canvas::new(80, 80);
        canvas.paint(&disc(40.0, 40.0, 20.0), &LIGHT, 1, 0);
        canvas.shade_ellipse([10.0, 10.0], [4.0, 4.0], 0.0, 0.5);
        canvas.back(&vec![[9.0; 3]; 80 * 80]);
        let at = |x: usize, y: usize| canvas.pixels[y * 80 + x][1];
        assert!(at(40, 40) < 1.0 && at(70, 70) == 9.0);
        assert!((4.0..6.0).contains(&at(10, 10)), "{}", at(10, 10));
        canvas.clear();
        assert_eq!(canvas.seen(1)[1], 0);
    }

    #[test]
    fn parts_outside_the_canvas_paint_nothing() {
        let mut canvas = Canvas::new(20, 20);
        for (x, y) in [(-50.0, 10.0), (90.0, 10.0), (10.0, -50.0), (10.0, 90.0)] {
            assert_eq!(canvas.paint(&disc(x, y, 8.0), &LIGHT, 1, 0), 0);
        }
    }

    #[test]
    fn acos_is_close() {
        for i in -100..=100 {
            let x = i as f32 / 100.0;
            assert!((acos(x) - x.acos()).abs() < 3e-4);
        }
    }
}
