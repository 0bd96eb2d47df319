//! Shots: one detection of one person by one camera, from the walk to the pixels of the crop.

use image::RgbImage;

use crate::blocks::block_artefacts;
use crate::camera::Camera;
use crate::colour::Rgb;
use crate::domain::Domain;
use crate::keypoints::Keypoints;
use crate::person::Person;
use crate::pose::Pose;
use crate::prop::{Prop, PropKind};
use crate::render::Canvas;
use crate::seed::{Draw, derive, path};
use crate::sensor::{Grain, resize, soften};
use crate::stage::{Actor, bounds, paint};
use crate::view::{Eye, Placement};

/// One walk of a person past a camera: the crops of a track share place, direction and light.
#[derive(Debug, Clone, Copy)]
pub struct Track {
    place: Placement,
    phase: f32,
    gain: f32,
    tint: Rgb,
    walks: bool,
}

impl Track {
    /// Draws a walk past `camera`.
    pub fn sample(camera: &Camera, draw: &mut Draw) -> Self {
        let gain = draw.normal(0.0, 0.1).exp();
        let warm = draw.normal(0.0, 0.035);
        Self {
            place: camera.stand(draw),
            phase: draw.range(0.0, std::f32::consts::TAU),
            gain,
            tint: [1.0 + warm, 1.0, 1.0 - warm],
            walks: draw.chance(0.9),
        }
    }
}

/// How a detection frames its person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Around the body, as carelessly as the camera's detector is.
    Body,
    /// A piece of the body: overlaps the body's box by less than half.
    Piece,
    /// Nobody: a false alarm.
    Nobody,
}

/// Everything random about one crop.
#[derive(Debug, Clone)]
pub struct Shot {
    place: Placement,
    pose: Pose,
    gain: f32,
    tint: Rgb,
    framing: Framing,
    passer: Option<(Person, Placement, Pose)>,
    prop: Option<Prop>,
    seed: u64,
}

impl Shot {
    /// The shot number `step` of a track; shots of one track are 0.3 to 1 seconds apart.
    pub fn sample(
        domain: Domain,
        camera: &Camera,
        person: &Person,
        track: &Track,
        step: usize,
        framing: Framing,
        seed: u64,
    ) -> Self {
        let draw = &mut Draw::new(seed, &[path::SHOT]);
        let seconds = step as f32 * 0.55 + draw.range(0.0, 0.35);
        let stride = if track.walks { 1.0 } else { 0.08 };
        let travel = person.gait.speed * stride * seconds;
        let mut place = track.place;
        place.x += travel * place.heading.sin();
        place.y = (place.y + travel * place.heading.cos())
            .clamp(camera.range[0] * 0.92, camera.range[1] * 1.08);
        let edge = camera.half_width(place.y) * 0.86;
        place.x = place.x.clamp(-edge, edge);
        place.heading += draw.normal(0.0, 0.1);
        let pose = Pose {
            phase: track.phase + seconds * 6.1 * person.gait.speed / 1.35,
            stride,
            gaze: draw.normal(0.0, 0.32),
        };
        let mut passer = None;
        let mut prop = None;
        if framing == Framing::Body && draw.chance(camera.clutter) {
            if draw.chance(0.55) {
                let other = Person::sample(domain, derive(seed, &[path::PASSER]));
                let nearer = draw.chance(0.4);
                let side = draw.pick(&[-1.0, 1.0]);
                let place = Placement {
                    x: place.x + side * draw.range(if nearer { 0.3 } else { 0.2 }, 0.75),
                    y: place.y
                        + if nearer {
                            -draw.range(0.35, 0.7)
                        } else {
                            draw.range(0.35, 1.6)
                        },
                    heading: camera.lane + draw.normal(0.0, 0.5),
                };
                let pose = Pose {
                    phase: draw.range(0.0, std::f32::consts::TAU),
                    stride: 1.0,
                    gaze: 0.0,
                };
                passer = Some((other, place, pose));
            } else {
                let ahead = draw.range(0.45, 1.1);
                let reach = (place.y - ahead) / place.y;
                let item = Prop::sample(domain, draw, 0.0, 0.0);
                let off = if item.kind == PropKind::Pillar {
                    0.5
                } else {
                    0.0
                };
                let side = draw.pick(&[-1.0, 1.0]);
                prop = Some(Prop {
                    x: place.x * reach + side * (off + draw.range(0.02, 0.3)),
                    y: place.y - ahead,
                    ..item
                });
            }
        }
        Self {
            place,
            pose,
            gain: track.gain * draw.normal(0.0, 0.03).exp(),
            tint: track.tint,
            framing,
            passer,
            prop,
            seed,
        }
    }
}

/// A rendered detection.
#[derive(Debug, Clone)]
pub struct Crop {
    /// The picture.
    pub image: RgbImage,
    /// Keypoints in its pixels.
    pub keypoints: Keypoints,
    /// Share of the person that is seen, 0..1 (0 where the picture shows nobody).
    pub visible: f32,
}

/// Renders one detection of `person` by `camera`, `size` is width and height of the crop in pixels.
pub fn render_crop(camera: &Camera, person: &Person, shot: &Shot, size: (usize, usize)) -> Crop {
    let draw = &mut Draw::new(shot.seed, &[path::SHOT, 1]);
    let actor = Actor {
        person,
        pose: shot.pose,
        place: shot.place,
        salt: draw.word() as u32,
    };
    let body = bounds(&actor, &Eye::whole(camera.view));
    let [left, top, width, height] = frame_box(camera, shot.framing, body, draw);

    // The sensor sees the box at its own resolution; painting is finer than the sensor and the crop need.
    let sensor_height = (height * camera.style.sharpness).clamp(20.0, size.1 as f32 * 1.5);
    let zoom = (sensor_height.max(size.1 as f32 * 0.75) * 1.4).min(size.1 as f32 * 1.6) / height;
    let eye = Eye {
        view: camera.view,
        corner: [left, top],
        zoom,
    };
    let canvas_size = (
        ((width * zoom).round() as usize).max(8),
        ((height * zoom).round() as usize).max(16),
    );
    let mut canvas = Canvas::new(canvas_size.0, canvas_size.1);
    let mut actors = Vec::with_capacity(2);
    if shot.framing != Framing::Nobody {
        actors.push(actor);
    }
    if let Some((other, place, pose)) = &shot.passer {
        actors.push(Actor {
            person: other,
            pose: *pose,
            place: *place,
            salt: 7,
        });
    }
    let props: Vec<Prop> = shot.prop.into_iter().collect();
    let casts = paint(&mut canvas, &eye, camera, &actors, &props);

    let sensor = (
        ((width * camera.style.sharpness * sensor_height / (height * camera.style.sharpness))
            .round() as usize)
            .max(6),
        (sensor_height.round() as usize).max(12),
    );
    let pixels = develop(
        camera,
        shot,
        &canvas,
        canvas_size,
        &eye,
        sensor,
        draw.word(),
    );
    let pixels = resize(&pixels, sensor, size);
    let mut image = RgbImage::new(size.0 as u32, size.1 as u32);
    for (out, p) in image.pixels_mut().zip(&pixels) {
        out.0 = p.map(|c| (c.clamp(0.0, 1.0) * 255.0 + 0.5) as u8);
    }
    let factor = [
        size.0 as f32 / canvas_size.0 as f32,
        size.1 as f32 / canvas_size.1 as f32,
    ];
    match casts.first() {
        Some(cast) if shot.framing != Framing::Nobody => Crop {
            image,
            keypoints: cast.joints.keypoints(factor),
            visible: cast.visible,
        },
        _ => Crop {
            image,
            keypoints: Keypoints::nobody(),
            visible: 0.0,
        },
    }
}

/// Light of the canvas -> encoded picture at the sensor's resolution.
fn develop(
    camera: &Camera,
    shot: &Shot,
    canvas: &Canvas,
    from: (usize, usize),
    eye: &Eye,
    sensor: (usize, usize),
    seed: u64,
) -> Vec<Rgb> {
    let style = &camera.style;
    let mut pixels = resize(&canvas.pixels, from, sensor);
    let (w, h) = (camera.frame.0 as f32, camera.frame.1 as f32);
    let middle = eye.frame([from.0 as f32 / 2.0, from.1 as f32 / 2.0]);
    let r2 = ((middle[0] / w - 0.5).powi(2) + (middle[1] / h - 0.5).powi(2)) * 2.0;
    let gain = shot.gain * (1.0 - style.vignette * r2);
    for p in &mut pixels {
        let light = [
            p[0] * shot.tint[0],
            p[1] * shot.tint[1],
            p[2] * shot.tint[2],
        ];
        *p = style.develop(light, gain);
    }
    camera.tone.apply(&mut pixels);
    soften(&mut pixels, sensor, style.blur, style.overshoot);
    let mut grain = Grain::new(seed);
    for p in &mut pixels {
        let ([luma, r], [g, b]) = (grain.next_pair(), grain.next_pair());
        for (value, own) in p.iter_mut().zip([r, g, b]) {
            *value = (*value + style.noise * (luma + 0.6 * own)).clamp(0.0, 1.0);
        }
    }
    block_artefacts(&mut pixels, sensor, style.blocks);
    pixels
}

/// Left, top, width, height of the detection in frame pixels.
fn frame_box(camera: &Camera, framing: Framing, body: [f32; 4], draw: &mut Draw) -> [f32; 4] {
    let sloppy = &camera.sloppiness;
    let (w, h) = (body[2] - body[0], body[3] - body[1]);
    // Detectors like boxes of people to be about 0.4 as wide as high.
    let wide = w.max(h * draw.range(0.32, 0.4));
    let centre = [(body[0] + body[2]) / 2.0, (body[1] + body[3]) / 2.0];
    match framing {
        Framing::Body => {
            let grow = (1.0 + 2.0 * sloppy.margin) * draw.normal(0.0, sloppy.size).exp();
            let mut height = h * grow;
            let mut width =
                (wide + h * 2.0 * sloppy.margin * 0.7) * draw.normal(0.0, sloppy.size).exp();
            let x = centre[0] + draw.normal(0.0, sloppy.shift * 0.7) * h;
            let mut y = centre[1] + draw.normal(0.0, sloppy.shift) * h;
            if draw.chance(sloppy.cut) {
                let keep = draw.range(0.6, 0.85);
                let up = draw.chance(0.8);
                y += height * (1.0 - keep) * if up { -0.5 } else { 0.5 };
                height *= keep;
                width *= 0.95;
            }
            [x - width / 2.0, y - height / 2.0, width, height]
        }
        Framing::Piece => {
            let height = h * draw.range(0.28, 0.5);
            let width = height * draw.range(0.4, 0.6);
            let x = centre[0] + draw.range(-0.25, 0.25) * h;
            let y = body[1] + draw.range(0.1, 0.9) * h;
            [x - width / 2.0, y - height / 2.0, width, height]
        }
        Framing::Nobody => {
            let height = h * draw.range(0.7, 1.15);
            [
                centre[0] - height * 0.21,
                centre[1] - height / 2.0,
                height * 0.42,
                height,
            ]
        }
    }
}
