//! Parts: an axis on the canvas, half-widths along it, and a surface.

use crate::colour::NoiseTile;
use crate::surface::Surface;

/// Number of half-widths stored along a part.
pub const STATIONS: usize = 21;

/// A generalised cylinder on the canvas.
#[derive(Debug, Clone)]
pub struct Part<'a> {
    /// Start of the axis, canvas pixels.
    pub origin: [f32; 2],
    /// Unit direction of the axis, canvas pixels.
    pub axis: [f32; 2],
    /// Positions along the axis where the part starts and ends, pixels.
    pub span: [f32; 2],
    /// Half-widths in pixels, evenly spaced over `span`.
    pub widths: [f32; STATIONS],
    /// Angle around the body at the side of the part that is rightmost on the canvas, radians.
    pub delta: f32,
    /// Sine of the camera's elevation: how far rings bulge down, as a share of the half-width.
    pub bulge: f32,
    /// Metres along the axis of a pixel.
    pub metre: f32,
    /// What the surface is.
    pub surface: Surface<'a>,
    /// Strength of folds, 0 for skin and metal.
    pub folds: f32,
    /// Distance from the camera in metres, biased where one part always lies over another.
    pub depth: f32,
    /// The same without the bias.
    pub solid: f32,
}

impl Part<'_> {
    /// Left, top, right, bottom in canvas pixels.
    pub fn bounds(&self) -> [f32; 4] {
        let mut bounds = [
            f32::INFINITY,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NEG_INFINITY,
        ];
        let perp = [self.axis[1], -self.axis[0]];
        for k in 0..STATIONS {
            let s = self.span[0] + (self.span[1] - self.span[0]) * k as f32 / (STATIONS - 1) as f32;
            let r = self.widths[k];
            for sign in [-1.0, 1.0] {
                let x = self.origin[0] + self.axis[0] * s + perp[0] * r * sign;
                let y = self.origin[1] + self.axis[1] * s + perp[1] * r * sign;
                bounds = [
                    bounds[0].min(x),
                    bounds[1].min(y),
                    bounds[2].max(x),
                    bounds[3].max(y),
                ];
            }
        }
        bounds
    }
}

/// Folds of the cloth of one part: two octaves of noise over angle and length.
pub(crate) struct Folds {
    strength: f32,
    broad: NoiseTile,
    fine: NoiseTile,
}

/// Units of the folds to a radian around the body.
const FOLDS_AROUND: f32 = 2.2;

impl Folds {
    pub(crate) fn new(part: &Part<'_>, span: f32, salt: u32) -> Self {
        // acos is at most pi, and may miss it by its error.
        let u = [
            (part.delta - std::f32::consts::PI - 1e-3) * FOLDS_AROUND,
            (part.delta + 1e-3) * FOLDS_AROUND,
        ];
        let z = (span + 1.0) * part.metre;
        Self {
            strength: part.folds,
            broad: NoiseTile::new(
                [u[0] * 1.1, u[1] * 1.1 + z * 2.0],
                [-0.6 * u[1], z * 7.0 - 0.6 * u[0]],
                salt,
            ),
            fine: NoiseTile::new([u[0] * 2.7, u[1] * 2.7], [0.0, z * 17.0], salt ^ 77),
        }
    }

    /// Light of a point as a share of that of smooth cloth.
    #[inline]
    pub(crate) fn shade(&self, theta: f32, z: f32) -> f32 {
        let u = theta * FOLDS_AROUND;
        let wave = self.broad.at(u * 1.1 + z * 2.0, z * 7.0 - u * 0.6)
            + 0.5 * self.fine.at(u * 2.7, z * 17.0);
        1.0 + self.strength * wave
    }
}

/// Half-width and angle of an elliptic column seen at `turn` (heading minus bearing; 0 shows the back).
///
/// `a` is the half-width to the side, `b` the half-depth, any unit. A point `theta` of the ellipse appears
/// at `half * cos(theta - delta)` to the right of the axis.
pub fn ellipse_view(a: f32, b: f32, turn: f32) -> (f32, f32) {
    let (x, y) = (a * turn.cos(), b * turn.sin());
    (x.hypot(y), y.atan2(x))
}

/// Half-widths of a capsule: the straight part from `r0` to `r1` with round ends, over
/// `-r0 ..= length + r1`.
pub fn capsule_widths(length: f32, r0: f32, r1: f32) -> ([f32; 2], [f32; STATIONS]) {
    let span = [-r0, length + r1];
    let widths = std::array::from_fn(|k| {
        let s = span[0] + (span[1] - span[0]) * k as f32 / (STATIONS - 1) as f32;
        if s < 0.0 {
            (r0 * r0 - s * s).max(0.0).sqrt()
        } else if s > length {
            (r1 * r1 - (s - length).powi(2)).max(0.0).sqrt()
        } else {
            r0 + (r1 - r0) * s / length.max(1e-3)
        }
    });
    (span, widths)
}

/// Half-widths sampled from `(position 0..1, half-width)` stations by smooth interpolation.
pub fn profile_widths(stations: &[(f32, f32)]) -> [f32; STATIONS] {
    std::array::from_fn(|k| {
        let v = k as f32 / (STATIONS - 1) as f32;
        let next = stations
            .iter()
            .position(|&(at, _)| at >= v)
            .unwrap_or(stations.len() - 1);
        let before = next.saturating_sub(1);
        let ((v0, r0), (v1, r1)) = (stations[before], stations[next]);
        let f = if v1 > v0 {
            ((v - v0) / (v1 - v0)).clamp(0.0, 1.0)
        } else {
            1.0
        };
        let smooth = 0.5 * (f + f * f * (3.0 - 2.0 * f));
        r0 + (r1 - r0) * smooth
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f32::consts::FRAC_PI_2;

    #[test]
    fn a_column_shows_its_back_when_it_walks_away() {
        let (half, delta) = ellipse_view(0.2, 0.1, 0.0);
        assert!((half - 0.2).abs() < 1e-6);
        assert!(delta.abs() < 1e-3);
        let (half, _) = ellipse_view(0.2, 0.1, FRAC_PI_2);
        assert!((half - 0.1).abs() < 1e-6);
    }
}
