//! Cameras: where they hang, which way people walk past them, how they see.

use std::f32::consts::{FRAC_PI_2, PI};
use std::sync::Arc;

use crate::background::Scene;
use crate::colour::{Rgb, scale};
use crate::domain::Domain;
use crate::render::Light;
use crate::seed::{Draw, path};
use crate::sensor::{Style, Tone};
use crate::view::{Placement, View};

/// How careless the person detector of this camera is.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Sloppiness {
    /// Deviation of the box's position, shares of its height.
    pub shift: f32,
    /// Mean margin around the body, shares of its height.
    pub margin: f32,
    /// Deviation of the logarithm of the box's size.
    pub size: f32,
    /// Share of boxes that miss legs or head.
    pub cut: f32,
}

/// One camera of a world.
#[derive(Debug, Clone)]
pub struct Camera {
    /// Name, `cam1`, `cam2`, ...
    pub name: String,
    /// Frame width and height, pixels.
    pub frame: (usize, usize),
    /// Perspective.
    pub view: View,
    /// Nearest and farthest distance at which people walk, metres.
    pub range: [f32; 2],
    /// Main direction of walking, radians as in [`Placement::heading`].
    pub lane: f32,
    /// Share of people who walk along `lane`, the others walk against it.
    pub flow: f32,
    /// Colour response and faults.
    pub style: Style,
    /// Tabulated tone curve of `style`.
    pub tone: Tone,
    /// Detector.
    pub sloppiness: Sloppiness,
    /// Share of crops where something or somebody stands in front.
    pub clutter: f32,
    /// Light of the place.
    pub light: Light,
    /// Share of the place in shade, 0..1, and how much of the direct light the shade takes.
    pub shade: [f32; 2],
    /// What is behind the people.
    pub scene: Arc<Scene>,
}

impl Camera {
    /// Camera number `index` (from 0) of the world `seed`, with a frame of that size.
    ///
    /// People are between 0.55 and 0.25 of the frame's height tall (0.6 to 0.17 where `far` is set, as for
    /// crops, where small people are wanted too).
    pub fn sample(
        domain: Domain,
        seed: u64,
        index: usize,
        frame: (usize, usize),
        far: bool,
    ) -> Self {
        let draw = &mut Draw::new(seed, &[path::CAMERA, domain.code(), index as u64]);
        let (w, h) = (frame.0 as f32, frame.1 as f32);
        let field = if far {
            draw.range(0.7, 0.95)
        } else {
            draw.range(0.9, 1.1)
        };
        let focal = w / 2.0 / (field / 2.0_f32).tan();
        let height = match domain {
            Domain::Street => draw.range(2.4, 4.8),
            Domain::Mall => draw.range(2.3, 3.6),
            Domain::Station => draw.range(2.6, 4.4),
        };
        let (tall, small) = if far {
            (0.62, draw.range(0.19, 0.3))
        } else {
            (0.54, 0.27)
        };
        let reach = |share: f32| {
            let slant = focal * 1.68 / (share * h);
            (slant * slant - (height - 0.9).powi(2)).max(4.0).sqrt()
        };
        let range = [reach(tall), reach(small)];
        let mut range = range;
        // People nearest to the camera must fit into the picture together with the farthest heads.
        let fits = |near: f32| {
            let span = (height / near).atan() - ((height - 1.95) / range[1]).atan();
            span < 1.86 * (h / 2.0 / focal).atan()
        };
        let mut near = range[0];
        while !fits(near) && near < 0.8 * range[1] {
            near *= 1.03;
        }
        range[0] = near;
        let lowest = (height / range[0]).atan();
        let highest = ((height - 1.95) / range[1]).atan();
        let pitch = (lowest + highest) / 2.0 + 0.01;
        // Preference: every camera sees mostly one side of people.
        let lane = match index % 3 {
            0 => draw.normal(PI, 0.35),
            1 => draw.normal(FRAC_PI_2, 0.3) * if draw.chance(0.5) { 1.0 } else { -1.0 },
            _ => draw.normal(0.35, 0.4),
        };
        let mut style = Style::sample(domain, draw);
        if !far {
            // Video is made for detectors and trackers: keep its frames usable.
            style.sharpness = style.sharpness.max(0.6);
        }
        let sun = draw.range(0.55, 1.0);
        let azimuth = draw.range(-1.2, 1.2);
        let lift = draw.range(0.5, 1.1);
        let towards = [
            azimuth.sin() * lift.cos(),
            -lift.sin(),
            azimuth.cos() * lift.cos(),
        ];
        let (direct, ambient): (Rgb, Rgb) = match domain {
            Domain::Street => (
                scale([1.0, 0.93, 0.82], sun * draw.range(0.3, 0.9)),
                scale([0.9, 0.97, 1.08], draw.range(0.45, 0.7)),
            ),
            Domain::Mall => (
                scale([1.0, 0.96, 0.9], sun * draw.range(0.25, 0.5)),
                scale([1.0, 0.98, 0.94], draw.range(0.55, 0.75)),
            ),
            Domain::Station => (
                scale([1.0, 0.95, 0.88], sun * draw.range(0.2, 0.6)),
                scale([0.96, 0.99, 1.03], draw.range(0.4, 0.65)),
            ),
        };
        let light = Light {
            towards,
            direct,
            ambient,
        };
        let shade = if domain.outdoors() {
            [draw.range(0.2, 0.7), draw.range(0.5, 0.9)]
        } else {
            [draw.range(0.0, 0.4), draw.range(0.1, 0.5)]
        };
        let view = View {
            focal,
            centre: [w / 2.0, h / 2.0],
            height,
            pitch,
        };
        let scene = Scene::paint(domain, seed, index, frame, &view, range, &light, shade);
        let sloppiness = Sloppiness {
            shift: draw.range(0.01, 0.032),
            margin: draw.range(0.005, 0.06),
            size: draw.range(0.02, 0.06),
            cut: draw.range(0.01, 0.035),
        };
        Self {
            name: format!("cam{}", index + 1),
            frame,
            view,
            range,
            lane,
            flow: draw.range(0.55, 0.85),
            tone: Tone::new(&style),
            style,
            sloppiness,
            clutter: draw.range(0.05, 0.15),
            light,
            shade,
            scene: Arc::new(scene),
        }
    }

    /// The light at a place: dimmer where the scene lies in shade.
    pub fn light_at(&self, place: &Placement) -> Light {
        let shade = self.scene.shade_at(place.x, place.y) * self.shade[1];
        Light {
            direct: scale(self.light.direct, 1.0 - shade),
            ambient: scale(self.light.ambient, 1.0 - 0.12 * shade),
            ..self.light
        }
    }

    /// Half of the ground's width that is in view at distance `y`, metres.
    pub fn half_width(&self, y: f32) -> f32 {
        let depth = y * self.view.pitch.cos() + self.view.height * self.view.pitch.sin();
        self.frame.0 as f32 / 2.0 / self.view.focal * depth
    }

    /// A random place in view and a heading of somebody who walks there.
    pub fn stand(&self, draw: &mut Draw) -> Placement {
        // Uniform in apparent size rather than on the ground: small people would dominate.
        let near = 1.0 / self.range[0];
        let far = 1.0 / self.range[1];
        let y = 1.0 / draw.range(far, near);
        let half = self.half_width(y) * 0.78;
        let x = draw.range(-half, half);
        let forth = draw.chance(self.flow);
        let heading = self.lane + draw.normal(0.0, 0.26) + if forth { 0.0 } else { PI };
        Placement { x, y, heading }
    }
}
