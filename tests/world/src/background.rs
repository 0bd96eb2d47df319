//! Places: ground, wall, furniture and shade behind (and sometimes in front of) the people.

use crate::colour::{Rgb, mix, noise, scale};
use crate::domain::Domain;
use crate::material::Look;
use crate::prop::{Prop, PropKind};
use crate::render::{Canvas, Light};
use crate::seed::{Draw, path};
use crate::view::{Eye, View};

/// The static part of a camera's frame.
#[derive(Debug, Clone)]
pub struct Scene {
    /// Width and height in frame pixels.
    pub size: (usize, usize),
    /// Linear light, row by row.
    pub pixels: Vec<Rgb>,
    /// Furniture among the people, drawn with them in order of distance.
    pub props: Vec<Prop>,
    shade: Shade,
}

/// Patches of shade on the ground.
#[derive(Debug, Clone, Copy)]
struct Shade {
    share: f32,
    salt: u32,
    /// Sine and cosine of the patches' direction.
    turn: (f32, f32),
}

impl Shade {
    /// 0 in the light, 1 in the shade, soft between.
    fn at(&self, x: f32, y: f32) -> f32 {
        if self.share <= 0.0 {
            return 0.0;
        }
        let (sin, cos) = self.turn;
        let (u, v) = ((x * cos + y * sin) / 5.0, (y * cos - x * sin) / 2.4);
        let level = 0.5 + 0.62 * noise(u, v, self.salt);
        ((self.share - level) * 7.0 + 0.5).clamp(0.0, 1.0)
    }
}

impl Scene {
    /// Paints the scene of a camera. `range` is where people walk; the wall stands behind it.
    pub fn paint(
        domain: Domain,
        seed: u64,
        index: usize,
        frame: (usize, usize),
        view: &View,
        range: [f32; 2],
        light: &Light,
        shade: [f32; 2],
    ) -> Self {
        let draw = &mut Draw::new(seed, &[path::SCENE, domain.code(), index as u64]);
        let look = Look::sample(domain, seed, draw, range);
        let patches = Shade {
            share: shade[0],
            salt: draw.word() as u32,
            turn: draw.range(-0.8, 0.8).sin_cos(),
        };
        let (w, h) = frame;
        let mut pixels = Vec::with_capacity(w * h);
        let rays = view.rays();
        let lit = |colour: Rgb, facing: f32, shaded: f32| -> Rgb {
            let ambient = 1.0 - 0.12 * shaded * shade[1];
            let direct = facing * (1.0 - shaded * shade[1]);
            let channel = |c: usize| light.ambient[c] * ambient + light.direct[c] * direct;
            [
                colour[0] * channel(0),
                colour[1] * channel(1),
                colour[2] * channel(2),
            ]
        };
        let up = (-light.towards[1]).max(0.15);
        let front = light.towards[2].max(0.1);
        for y in 0..h {
            for x in 0..w {
                let (mx, my) = (x as f32 + 0.5, y as f32 + 0.5);
                // Shade is soft enough for one look a pixel.
                let shaded = match rays.ground(mx, my) {
                    Some([gx, gy]) if gy < look.wall_distance => patches.at(gx, gy),
                    _ => {
                        let [wx, wz] = rays.wall(mx, my, look.wall_distance);
                        patches.at(wx, look.wall_distance + wz * 0.6)
                    }
                };
                let mut sum = [0.0; 3];
                for k in 0..4 {
                    let (px, py) = (
                        x as f32 + 0.25 + 0.5 * (k % 2) as f32,
                        y as f32 + 0.25 + 0.5 * (k / 2) as f32,
                    );
                    let colour = match rays.ground(px, py) {
                        Some([gx, gy]) if gy < look.wall_distance => {
                            let near_wall = (1.0 - (look.wall_distance - gy) / 0.9).max(0.0);
                            let base = scale(look.ground(gx, gy), 1.0 - 0.35 * near_wall);
                            lit(base, up, shaded)
                        }
                        _ => {
                            let [wx, wz] = rays.wall(px, py, look.wall_distance);
                            lit(look.wall(wx, wz), front * 0.8, shaded)
                        }
                    };
                    for c in 0..3 {
                        sum[c] += colour[c] * 0.25;
                    }
                }
                pixels.push(sum);
            }
        }
        let eye = Eye::whole(*view);
        // Furniture along the wall is part of the picture; furniture among the people is kept apart.
        let mut back = Vec::new();
        for _ in 0..draw.int(2, 6) {
            let y = look.wall_distance - draw.range(0.4, 1.4);
            let x = draw_x(draw, y, view, frame);
            back.push(Prop::sample(domain, draw, x, y));
        }
        back.sort_by(|a, b| b.y.total_cmp(&a.y));
        let mut canvas = Canvas::new(w, h);
        for prop in back.iter().rev() {
            prop.paint(&mut canvas, &eye, light);
        }
        canvas.back(&pixels);
        let mut props = Vec::new();
        for _ in 0..draw.int(0, 2) {
            let y = draw.range(range[0] * 0.95, range[1]);
            let x = draw_x(draw, y, view, frame);
            let prop = Prop::sample(domain, draw, x, y);
            if !matches!(prop.kind, PropKind::Pillar | PropKind::Shelf) {
                props.push(prop);
            }
        }
        Self {
            size: frame,
            pixels: canvas.pixels,
            props,
            shade: patches,
        }
    }

    /// How much a ground point lies in shade, 0..1.
    pub fn shade_at(&self, x: f32, y: f32) -> f32 {
        self.shade.at(x, y)
    }

    /// Puts a window of the scene behind what is painted, bilinearly; beyond the frame its border repeats.
    pub fn lay_behind(&self, canvas: &mut Canvas, eye: &Eye) {
        let (w, h) = self.size;
        if *eye == Eye::whole(eye.view) && (canvas.width, canvas.height) == self.size {
            return canvas.back(&self.pixels);
        }
        let clamp = |v: f32, n: usize| v.clamp(0.0, n as f32 - 1.001);
        let split = |v: f32| (v as usize, v - v as usize as f32);
        let columns: Vec<(usize, f32)> = (0..canvas.width)
            .map(|x| split(clamp((x as f32 + 0.5) / eye.zoom + eye.corner[0] - 0.5, w)))
            .collect();
        for y in 0..canvas.height {
            let (y0, ty) = split(clamp((y as f32 + 0.5) / eye.zoom + eye.corner[1] - 0.5, h));
            let (top, bottom) = (
                &self.pixels[y0 * w..][..w],
                &self.pixels[(y0 + 1) * w..][..w],
            );
            let range = y * canvas.width..(y + 1) * canvas.width;
            let row = canvas.pixels[range.clone()].iter_mut();
            for ((pixel, &through), &(x0, tx)) in row.zip(&canvas.through[range]).zip(&columns) {
                if through <= 0.0 {
                    continue;
                }
                let a = mix(top[x0], top[x0 + 1], tx);
                let b = mix(bottom[x0], bottom[x0 + 1], tx);
                let behind = mix(a, b, ty);
                for c in 0..3 {
                    pixel[c] += behind[c] * through;
                }
            }
        }
    }
}

fn draw_x(draw: &mut Draw, y: f32, view: &View, frame: (usize, usize)) -> f32 {
    let half = frame.0 as f32 / 2.0 / view.focal * y;
    draw.range(-half, half)
}
