//! Furniture: posts, bins, planters and shelves, behind the people and in front of them.

use crate::colour::{Rgb, hex, lattice, scale, shift};
use crate::domain::Domain;
use crate::part::{Part, capsule_widths, profile_widths};
use crate::render::{Canvas, Light, NOBODY};
use crate::seed::Draw;
use crate::surface::Surface;
use crate::view::Eye;

/// A thing that stands in a scene.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prop {
    /// Metres to the right.
    pub x: f32,
    /// Metres away.
    pub y: f32,
    /// Its kind.
    pub kind: PropKind,
    /// Its colour.
    pub colour: Rgb,
    /// Salt of its texture.
    pub salt: u32,
}

/// Kinds of props.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PropKind {
    /// A thin post taller than people.
    Post,
    /// A thick column.
    Pillar,
    /// A knee-high bollard.
    Bollard,
    /// A waist-high bin.
    Bin,
    /// A box of plants, chest-high.
    Planter,
    /// A chest-high board or shelf.
    Shelf,
}

impl Prop {
    /// Draws a prop of the domain at a place.
    pub fn sample(domain: Domain, draw: &mut Draw, x: f32, y: f32) -> Self {
        let kind = match domain {
            Domain::Street => draw.weighted(&[
                (PropKind::Post, 3.0),
                (PropKind::Bollard, 2.0),
                (PropKind::Bin, 1.0),
                (PropKind::Planter, 2.0),
            ]),
            Domain::Mall => draw.weighted(&[
                (PropKind::Shelf, 3.0),
                (PropKind::Planter, 2.0),
                (PropKind::Bin, 1.0),
                (PropKind::Pillar, 1.0),
            ]),
            Domain::Station => draw.weighted(&[
                (PropKind::Post, 1.5),
                (PropKind::Pillar, 1.2),
                (PropKind::Bin, 1.5),
                (PropKind::Shelf, 1.0),
                (PropKind::Bollard, 1.0),
            ]),
        };
        Self {
            x,
            y,
            kind,
            colour: shift(
                hex(draw.pick(&[
                    0x5a5d60, 0x8d9093, 0x35383b, 0x6f5a45, 0x44584a, 0xb4b0a6, 0x7a2f2b, 0x2d4468,
                ])),
                0.0,
                1.0,
                draw.range(0.8, 1.2),
            ),
            salt: draw.word() as u32,
        }
    }

    /// The parts of the prop, far to near.
    pub fn parts(&self, eye: &Eye) -> Vec<Part<'static>> {
        let (half, tall) = match self.kind {
            PropKind::Post => (0.055, 3.4),
            PropKind::Pillar => (0.3, 3.6),
            PropKind::Bollard => (0.09, 0.85),
            PropKind::Bin => (0.26, 0.95),
            PropKind::Planter => (0.45, 0.5),
            PropKind::Shelf => (0.55, 1.15),
        };
        let surface = match self.kind {
            PropKind::Bollard => Surface::Bands(self.colour, [0.62, 0.62, 0.6], 0.3),
            PropKind::Shelf => Surface::Bands(self.colour, scale(self.colour, 0.45), 0.34),
            _ => Surface::Flat(self.colour),
        };
        let top = eye.project([self.x, self.y, tall]);
        let foot = eye.project([self.x, self.y, 0.0]);
        let depth = self.x.hypot(self.y);
        let length = (foot.at[1] - top.at[1]).max(1.0);
        let mut parts = vec![Part {
            origin: top.at,
            axis: unit([foot.at[0] - top.at[0], foot.at[1] - top.at[1]]),
            span: [0.0, length],
            widths: profile_widths(&[(0.0, half * top.scale), (1.0, half * foot.scale)]),
            delta: 0.0,
            bulge: 0.25,
            metre: tall / length,
            surface,
            folds: 0.04,
            depth,
            solid: depth,
        }];
        if self.kind == PropKind::Planter {
            for i in 0..7 {
                let at = |k: i32| lattice(i, k, self.salt);
                let radius = 0.2 + 0.06 * at(0);
                let centre = eye.project([
                    self.x + 0.33 * at(1),
                    self.y + 0.2 * at(2),
                    0.75 + 0.3 * at(3),
                ]);
                let r = radius * centre.scale;
                let (span, widths) = capsule_widths(0.0, r, r);
                parts.push(Part {
                    origin: centre.at,
                    axis: [0.0, 1.0],
                    span,
                    widths,
                    delta: 0.0,
                    bulge: 0.0,
                    metre: radius / r.max(1.0),
                    surface: Surface::Leaves(hex(0x3c5a2c), self.salt ^ i as u32),
                    folds: 0.5,
                    depth,
                    solid: depth,
                });
            }
        }
        parts
    }

    /// Paints the prop behind what is there.
    pub fn paint(&self, canvas: &mut Canvas, eye: &Eye, light: &Light) {
        // Near to far: the thing itself, then its shadow on what is behind it.
        for part in self.parts(eye).iter().rev() {
            canvas.paint(part, light, NOBODY, self.salt);
        }
        let foot = eye.project([self.x, self.y, 0.0]);
        let half = match self.kind {
            PropKind::Post | PropKind::Bollard => 0.16,
            _ => 0.5,
        };
        canvas.shade_ellipse(
            foot.at,
            [half * foot.scale, half * 0.35 * foot.scale],
            0.0,
            0.4,
        );
    }
}

fn unit(d: [f32; 2]) -> [f32; 2] {
    let length = d[0].hypot(d[1]);
    if length < 0.5 {
        [0.0, 1.0]
    } else {
        [d[0] / length, d[1] / length]
    }
}
