//! Materials of grounds and walls, as functions of a point in metres.

use crate::colour::{Rgb, floor, fract, hex, lattice, mix, noise, scale, shift};
use crate::domain::Domain;
use crate::seed::{Draw, path};

/// Ground materials; sizes in metres.
#[derive(Debug, Clone, Copy)]
enum Ground {
    /// Rough and uniform, with painted lines every so often (0 for none).
    Asphalt { line: f32 },
    /// Slabs with joints.
    Slabs {
        width: f32,
        length: f32,
        joint: f32,
        polish: f32,
    },
    /// Alternating slabs.
    Checker { size: f32 },
    /// Small stones.
    Cobble,
    /// Boards.
    Boards { width: f32 },
}

/// Wall materials; sizes in metres.
#[derive(Debug, Clone, Copy)]
enum Wall {
    /// Bricks.
    Brick,
    /// Plaster with windows.
    Windows { pitch: f32, sill: f32 },
    /// Shop windows with goods.
    Shop { pitch: f32 },
    /// Shelves full of packets.
    Shelves { pitch: f32 },
    /// Plain with posters and a dado.
    Panels { pitch: f32 },
    /// Hedge.
    Hedge,
}

/// What ground and wall of a place are made of.
#[derive(Debug)]
pub(crate) struct Look {
    ground: Ground,
    ground_colours: [Rgb; 2],
    wall: Wall,
    wall_colours: [Rgb; 2],
    /// Metres from the camera to the wall.
    pub(crate) wall_distance: f32,
    salt: u32,
}

impl Look {
    /// Cameras of one world hang at one site: most of its ground is of one make and colour.
    pub(crate) fn sample(domain: Domain, seed: u64, draw: &mut Draw, range: [f32; 2]) -> Self {
        let site = &mut Draw::new(seed, &[path::SCENE, domain.code()]);
        let mut own = Draw::new(draw.word(), &[]);
        let slab = |draw: &mut Draw, polish: f32| Ground::Slabs {
            width: draw.range(0.4, 1.2),
            length: draw.range(0.4, 1.2),
            joint: draw.range(0.012, 0.035),
            polish,
        };
        let floor: &mut Draw = if draw.chance(0.7) { site } else { &mut own };
        let ground = match domain {
            Domain::Street => match floor.int(0, 4) {
                0 => Ground::Asphalt {
                    line: if floor.chance(0.5) {
                        floor.range(2.4, 4.0)
                    } else {
                        0.0
                    },
                },
                1 => Ground::Cobble,
                2 => Ground::Checker {
                    size: floor.range(0.5, 1.0),
                },
                _ => slab(floor, 0.0),
            },
            Domain::Mall => match floor.int(0, 3) {
                0 => Ground::Checker {
                    size: floor.range(0.5, 1.1),
                },
                1 => Ground::Boards {
                    width: floor.range(0.14, 0.25),
                },
                _ => slab(floor, 0.35),
            },
            Domain::Station => match floor.int(0, 2) {
                0 => Ground::Asphalt {
                    line: floor.range(2.0, 4.0),
                },
                _ => slab(floor, 0.15),
            },
        };
        let tone = match domain {
            Domain::Street => {
                floor.pick(&[0x8f8c86, 0x77787a, 0xa39a8b, 0x5f6165, 0xb3ada2, 0x8a7768])
            }
            Domain::Mall => floor.pick(&[0xd6cfc2, 0xbfb8ad, 0xc9c9c7, 0xa98d6d, 0xe0dcd3]),
            Domain::Station => floor.pick(&[0x6d7073, 0x8b8a85, 0x55585c, 0x9a948b]),
        };
        let base = shift(
            hex(tone),
            floor.normal(0.0, 0.01),
            1.0,
            draw.range(0.85, 1.12),
        );
        let wall = match domain {
            Domain::Street => match draw.int(0, 3) {
                0 => Wall::Brick,
                1 => Wall::Windows {
                    pitch: draw.range(2.0, 3.5),
                    sill: draw.range(0.8, 1.3),
                },
                2 => Wall::Shop {
                    pitch: draw.range(2.5, 4.5),
                },
                _ => Wall::Hedge,
            },
            Domain::Mall => match draw.int(0, 2) {
                0 => Wall::Shelves {
                    pitch: draw.range(0.35, 0.5),
                },
                _ => Wall::Shop {
                    pitch: draw.range(2.5, 5.0),
                },
            },
            Domain::Station => match draw.int(0, 2) {
                0 => Wall::Brick,
                1 => Wall::Windows {
                    pitch: draw.range(1.5, 2.5),
                    sill: draw.range(0.3, 0.9),
                },
                _ => Wall::Panels {
                    pitch: draw.range(1.6, 3.0),
                },
            },
        };
        let paint = draw.pick(&[
            0x9b5a44, 0xc7b79a, 0x8c929a, 0xd2cdc4, 0x6f7f73, 0x7b6a5a, 0x55606e, 0xb08d57,
        ]);
        let wall_base = shift(
            hex(paint),
            draw.normal(0.0, 0.01),
            1.0,
            draw.range(0.8, 1.15),
        );
        Self {
            ground,
            ground_colours: [base, scale(base, draw.range(0.45, 0.75))],
            wall,
            wall_colours: [wall_base, scale(wall_base, draw.range(0.35, 0.7))],
            wall_distance: range[1] + draw.range(1.2, 4.0),
            salt: draw.word() as u32,
        }
    }

    /// Albedo of the ground at a point, metres.
    pub(crate) fn ground(&self, x: f32, y: f32) -> Rgb {
        let [base, dark] = self.ground_colours;
        let grit = 1.0
            + 0.07 * noise(x * 23.0, y * 23.0, self.salt)
            + 0.06 * noise(x * 1.3, y * 1.3, self.salt ^ 3);
        let cell = |u: f32, v: f32| lattice(floor(u), floor(v), self.salt ^ 11);
        let colour = match self.ground {
            Ground::Asphalt { line } => {
                if line > 0.0 && fract(y / line) < 0.12 / line {
                    [0.62, 0.61, 0.56]
                } else {
                    scale(base, 1.0 + 0.12 * noise(x * 60.0, y * 60.0, self.salt))
                }
            }
            Ground::Slabs {
                width,
                length,
                joint,
                polish,
            } => {
                let row = floor(y / length) as f32;
                let u = x / width + 0.5 * row;
                let v = y / length;
                let edge = (fract(u) * width).min(fract(v) * length);
                let slab = scale(base, 1.0 + 0.09 * cell(u, v));
                let glow = polish * (0.5 + 0.5 * noise(x * 0.5, y * 0.25, self.salt ^ 21));
                if edge < joint {
                    dark
                } else {
                    mix(slab, [0.95; 3], glow * 0.5)
                }
            }
            Ground::Checker { size } => {
                let even = (floor(x / size) ^ floor(y / size)) & 1 == 0;
                if even { base } else { dark }
            }
            Ground::Cobble => {
                let row = floor(y / 0.12) as f32;
                let u = x / 0.14 + 0.5 * row;
                let stone = scale(base, 1.0 + 0.2 * cell(u, y / 0.12));
                let edge = (fract(u) - 0.5).abs().max((fract(y / 0.12) - 0.5).abs());
                mix(stone, dark, ((edge - 0.36) * 8.0).clamp(0.0, 1.0))
            }
            Ground::Boards { width } => {
                let u = x / width;
                let grain = noise(x * 40.0, y * 2.0, self.salt);
                let board = scale(base, 1.0 + 0.14 * cell(u, y / 1.8) + 0.06 * grain);
                if fract(u) < 0.06 { dark } else { board }
            }
        };
        scale(colour, grit)
    }

    /// Albedo of the wall at `x` and height `z`, metres.
    pub(crate) fn wall(&self, x: f32, z: f32) -> Rgb {
        let [base, dark] = self.wall_colours;
        let pick = |i: f32, j: f32, salt: u32| lattice(i as i32, j as i32, self.salt ^ salt);
        let goods = |hue: f32, value: f32| {
            crate::colour::rgb_from_hsv([fract(hue), 0.55, value]).map(crate::colour::decode)
        };
        let stain = 1.0 + 0.08 * noise(x * 0.8, z * 0.8, self.salt ^ 5);
        let colour = match self.wall {
            Wall::Brick => {
                let row = floor(z / 0.085) as f32;
                let u = x / 0.26 + 0.5 * row;
                let joint = fract(z / 0.085) < 0.14 || fract(u) < 0.06;
                if joint {
                    [0.42, 0.4, 0.37]
                } else {
                    scale(base, 1.0 + 0.18 * pick(floor(u) as f32, row, 1))
                }
            }
            Wall::Windows { pitch, sill } => {
                let u = fract(x / pitch);
                let inside =
                    (0.22..0.78).contains(&u) && z > sill && (z - sill).rem_euclid(3.0) < 1.7;
                let frame = (u - 0.5).abs() < 0.015 || !(0.25..0.75).contains(&u);
                if !inside {
                    base
                } else if frame {
                    [0.55; 3]
                } else {
                    scale(
                        [0.16, 0.2, 0.25],
                        1.0 + 0.5 * noise(x * 0.7, z * 0.5, self.salt),
                    )
                }
            }
            Wall::Shop { pitch } => {
                let shop = floor(x / pitch) as f32;
                let u = fract(x / pitch);
                if z > 2.7 {
                    goods(pick(shop, 0.0, 2), 0.55)
                } else if !(0.06..0.94).contains(&u) || z < 0.35 {
                    dark
                } else {
                    let (i, j) = (floor(x / 0.33) as f32, floor(z / 0.45) as f32);
                    let warm = mix(
                        [0.5, 0.44, 0.34],
                        [0.8, 0.76, 0.66],
                        (z / 2.7).clamp(0.0, 1.0),
                    );
                    if pick(i, j, 3) > 0.1 {
                        mix(warm, goods(pick(i, j, 4), 0.6), 0.6)
                    } else {
                        warm
                    }
                }
            }
            Wall::Shelves { pitch } => {
                let board = fract(z / pitch);
                let row = floor(z / pitch) as f32;
                let i = floor(x / 0.16) as f32;
                if board < 0.09 {
                    [0.55, 0.55, 0.54]
                } else if board > 0.72 + 0.2 * pick(i, row, 6) {
                    [0.05, 0.05, 0.055]
                } else {
                    let brand = floor(x / 0.9) as f32;
                    goods(
                        pick(brand, row, 7) + 0.04 * pick(i, row, 8),
                        0.6 + 0.2 * pick(i, row, 9),
                    )
                }
            }
            Wall::Panels { pitch } => {
                let i = floor(x / pitch) as f32;
                let u = fract(x / pitch);
                let poster =
                    (0.2..0.8).contains(&u) && (0.9..2.3).contains(&z) && pick(i, 0.0, 12) > -0.2;
                if poster {
                    let (a, b) = (goods(pick(i, 1.0, 13), 0.7), goods(pick(i, 2.0, 14), 0.4));
                    if noise(u * 5.0, z * 2.0, self.salt ^ i as u32) > 0.1 {
                        a
                    } else {
                        b
                    }
                } else if z < 1.0 {
                    dark
                } else {
                    base
                }
            }
            Wall::Hedge => {
                if z > 2.2 {
                    let haze = ((z - 2.2) / 6.0).clamp(0.0, 1.0);
                    mix(base, [0.72, 0.8, 0.9], haze)
                } else {
                    let leaf = noise(x * 9.0, z * 9.0, self.salt)
                        + 0.6 * noise(x * 21.0, z * 21.0, self.salt ^ 2);
                    scale(hex(0x47612f), 0.75 + 0.4 * leaf)
                }
            }
        };
        scale(colour, stain)
    }
}
