//! Cloth: colours, patterns and prints as functions of a point of the body.
//!
//! A point of the torso is `theta` (angle around the body, radians: 0 is the wearer's right side,
//! pi/2 the front, -pi/2 the back) and `z` (metres below the collar). A pattern is a function of both, so
//! it turns with the wearer, and a print on the chest is not seen from behind.

use std::f32::consts::{FRAC_PI_2, PI, TAU};

use crate::colour::{Rgb, floor, fract, mix, noise};
use crate::domain::{Domain, Role};
use crate::seed::Draw;

/// `angle` wrapped to -pi..pi.
#[inline]
pub fn wrap(angle: f32) -> f32 {
    if (-PI..PI).contains(&angle) {
        angle
    } else {
        fract((angle + PI) * (1.0 / TAU)) * TAU - PI
    }
}

/// How two colours share a cloth. Lengths in metres.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// One colour.
    Plain,
    /// Rings around the body.
    Stripes {
        /// Distance from one stripe to the next.
        period: f32,
        /// Share of the second colour, 0..1.
        share: f32,
    },
    /// Stripes along the body.
    Pinstripes {
        /// Distance from one stripe to the next.
        period: f32,
    },
    /// Both kinds of stripes, half transparent.
    Plaid {
        /// Distance from one stripe to the next.
        period: f32,
    },
    /// Dots on a staggered grid.
    Dots {
        /// Distance from one dot to the next.
        period: f32,
    },
    /// Second colour below a height.
    Yoke {
        /// Metres below the collar where the colour changes.
        below: f32,
    },
    /// One ring of the second colour.
    Band {
        /// Metres below the collar where it starts.
        from: f32,
        /// Its height.
        height: f32,
    },
    /// Second colour on the flanks.
    Flanks,
    /// Blotches, as camouflage and flower prints.
    Blotches {
        /// Typical size.
        size: f32,
        /// Lattice salt.
        salt: u32,
    },
}

/// Outline of a print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// A filled box.
    Box,
    /// A disc.
    Disc,
    /// A ring.
    Ring,
    /// Three lines of text.
    Text,
    /// A broad V.
    Chevron,
    /// A cross.
    Cross,
}

/// A print on one side of the torso.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Print {
    /// True on the back, else on the chest.
    pub back: bool,
    /// Its outline.
    pub figure: Figure,
    /// Its colour.
    pub colour: Rgb,
    /// Half-width in metres.
    pub half: f32,
    /// Centre: radians from the middle of that side, metres below the collar.
    pub centre: [f32; 2],
}

/// A piece of cloth: colours, pattern, print.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Cloth {
    /// Main colour.
    pub base: Rgb,
    /// Second colour.
    pub second: Rgb,
    /// How they share the cloth.
    pub pattern: Pattern,
    /// A print, if any.
    pub print: Option<Print>,
}

/// Radius that turns angles into metres of cloth; one value for all keeps patterns comparable.
const GIRTH: f32 = 0.16;

impl Cloth {
    /// One colour, nothing on it.
    pub fn plain(base: Rgb) -> Self {
        Self {
            base,
            second: base,
            pattern: Pattern::Plain,
            print: None,
        }
    }

    /// Draws a cloth of the domain; `fancy` scales the chance of patterns and prints.
    pub fn sample(domain: Domain, draw: &mut Draw, role: Role, fancy: f32) -> Self {
        let base = domain.colour(draw, role);
        let mut second = domain.colour(draw, Role::Accent);
        // A second colour that cannot be told from the first is no pattern.
        for _ in 0..6 {
            if contrast(base, second) > 0.22 {
                break;
            }
            second = domain.colour(draw, Role::Accent);
        }
        let pattern = Pattern::sample(draw, 0.42 * fancy);
        let print = draw
            .chance(0.38 * fancy)
            .then(|| Print::sample(domain, draw, base));
        Self {
            base,
            second,
            pattern,
            print,
        }
    }

    /// Albedo at `theta`, `z` of the torso.
    #[inline]
    pub fn albedo(&self, theta: f32, z: f32) -> Rgb {
        if let Some(print) = &self.print
            && print.covers(theta, z)
        {
            return print.colour;
        }
        self.weave(theta, z)
    }

    /// Albedo without the print: sleeves, hoods.
    #[inline]
    pub fn weave(&self, theta: f32, z: f32) -> Rgb {
        if matches!(self.pattern, Pattern::Plain) {
            return self.base;
        }
        mix(self.base, self.second, self.pattern.share(theta, z))
    }
}

/// Visible difference of two linear colours, 0..1, taken after a square root as the eye does.
pub fn contrast(a: Rgb, b: Rgb) -> f32 {
    (0..3)
        .map(|i| (a[i].max(0.0).sqrt() - b[i].max(0.0).sqrt()).abs())
        .fold(0.0, f32::max)
}

impl Pattern {
    /// Draws a pattern; plain with probability `1 - patterned`.
    pub fn sample(draw: &mut Draw, patterned: f32) -> Self {
        if !draw.chance(patterned) {
            return Self::Plain;
        }
        match draw.weighted(&[
            (0, 3.0),
            (1, 0.9),
            (2, 1.6),
            (3, 0.7),
            (4, 1.6),
            (5, 1.2),
            (6, 0.8),
            (7, 1.0),
        ]) {
            0 => Self::Stripes {
                period: draw.range(0.055, 0.14),
                share: draw.range(0.3, 0.55),
            },
            1 => Self::Pinstripes {
                period: draw.range(0.06, 0.1),
            },
            2 => Self::Plaid {
                period: draw.range(0.08, 0.15),
            },
            3 => Self::Dots {
                period: draw.range(0.07, 0.12),
            },
            4 => Self::Yoke {
                below: draw.range(0.16, 0.36),
            },
            5 => Self::Band {
                from: draw.range(0.1, 0.3),
                height: draw.range(0.06, 0.13),
            },
            6 => Self::Flanks,
            _ => Self::Blotches {
                size: draw.range(0.05, 0.1),
                salt: draw.word() as u32,
            },
        }
    }

    /// Share of the second colour at a point, 0..1.
    pub fn share(&self, theta: f32, z: f32) -> f32 {
        let u = theta * GIRTH;
        let phase = |x: f32, period: f32| fract(x / period);
        let on = |yes: bool| if yes { 1.0 } else { 0.0 };
        match *self {
            Self::Plain => 0.0,
            Self::Stripes { period, share } => on(phase(z, period) < share),
            Self::Pinstripes { period } => on(phase(u, period) < 0.4),
            Self::Plaid { period } => {
                0.5 * (on(phase(z, period) < 0.45) + on(phase(u, period) < 0.45))
            }
            Self::Dots { period } => {
                let row = floor(z / period) as f32;
                let du = phase(u + row * period * 0.5, period) - 0.5;
                let dz = phase(z, period) - 0.5;
                on(du * du + dz * dz < 0.085)
            }
            Self::Yoke { below } => on(z > below),
            Self::Band { from, height } => on(z > from && z < from + height),
            Self::Flanks => on(wrap(theta - FRAC_PI_2)
                .abs()
                .min(wrap(theta + FRAC_PI_2).abs())
                > 1.0),
            Self::Blotches { size, salt } => on(noise(u / size, z / size, salt) > 0.12),
        }
    }
}

impl Print {
    fn sample(domain: Domain, draw: &mut Draw, ground: Rgb) -> Self {
        let mut colour = domain.colour(draw, Role::Accent);
        for _ in 0..8 {
            if contrast(ground, colour) > 0.3 {
                break;
            }
            colour = domain.colour(draw, Role::Accent);
        }
        let small = draw.chance(0.25);
        Self {
            back: draw.chance(0.4),
            figure: draw.pick(&[
                Figure::Box,
                Figure::Disc,
                Figure::Ring,
                Figure::Text,
                Figure::Chevron,
                Figure::Cross,
            ]),
            colour,
            half: if small {
                0.045
            } else {
                draw.range(0.075, 0.12)
            },
            centre: if small {
                [0.45, 0.17]
            } else {
                [0.0, draw.range(0.2, 0.3)]
            },
        }
    }

    fn covers(&self, theta: f32, z: f32) -> bool {
        let middle = if self.back { -FRAC_PI_2 } else { FRAC_PI_2 };
        let u = wrap(theta - middle - self.centre[0]) * GIRTH / self.half;
        let w = (z - self.centre[1]) / self.half;
        if u.abs() > 1.0 || w.abs() > 1.0 {
            return false;
        }
        let radius = (u * u + w * w).sqrt();
        match self.figure {
            Figure::Box => w.abs() < 0.75,
            Figure::Disc => radius < 0.95,
            Figure::Ring => radius < 1.0 && radius > 0.55,
            Figure::Text => fract(w * 2.2 + 0.3) < 0.62 && w.abs() < 0.85,
            Figure::Chevron => (w - u.abs() * 0.8 + 0.3).abs() < 0.36,
            Figure::Cross => u.abs().min(w.abs()) < 0.3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_print_on_the_chest_is_not_on_the_back() {
        let mut draw = Draw::new(5, &[]);
        for _ in 0..50 {
            let mut print = Print::sample(Domain::Street, &mut draw, [0.0; 3]);
            print.figure = Figure::Disc;
            let seen = |middle: f32| {
                (0..200).any(|i| {
                    let theta = middle + (i % 20) as f32 * 0.15 - 1.5;
                    print.covers(wrap(theta), 0.02 * (i / 20) as f32 + 0.12)
                })
            };
            assert_ne!(seen(FRAC_PI_2), seen(-FRAC_PI_2), "{print:?}");
        }
    }

    #[test]
    fn stripes_alternate_down_the_body() {
        let stripes = Pattern::Stripes {
            period: 0.1,
            share: 0.5,
        };
        let row: Vec<f32> = (0..4)
            .map(|i| stripes.share(0.0, 0.025 + 0.05 * i as f32))
            .collect();
        assert_eq!(row, [1.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn wrap_stays_in_one_turn() {
        for i in -100..100 {
            let angle = wrap(i as f32 * 0.37);
            assert!((-PI..=PI).contains(&angle));
        }
    }
}
