//! Routes: who walks through which camera's view, when, and along which line.

use crate::camera::Camera;
use crate::person::Person;
use crate::pose::Pose;
use crate::seed::{Draw, path};
use crate::view::Placement;

/// One crossing of one camera's view.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Crossing {
    /// Camera, from 0.
    pub camera: usize,
    /// Second of entering, may be before the film starts.
    pub enter: f32,
    /// Second of leaving.
    pub leave: f32,
    from: [f32; 2],
    to: [f32; 2],
    bend: f32,
    /// Second (from entering) and length of a stop.
    stop: Option<[f32; 2]>,
    phase: f32,
}

/// Step frequency: radians of gait a metre walked.
const GAIT_PER_METRE: f32 = 4.5;

impl Crossing {
    /// Draws a crossing that starts at `enter`; `rightwards` people go from left to right.
    fn sample(
        camera: &Camera,
        index: usize,
        person: &Person,
        enter: f32,
        rightwards: bool,
        stops: f32,
        draw: &mut Draw,
    ) -> Self {
        let [near, far] = camera.range;
        let lane = draw.range(near * 1.03, far * 0.97);
        let drift = draw.normal(0.0, 0.22) * (far - near);
        let y0 = (lane - drift).clamp(near, far);
        let y1 = (lane + drift).clamp(near, far);
        let side = if rightwards { 1.0 } else { -1.0 };
        let from = [-side * (camera.half_width(y0) + 0.7), y0];
        let to = [side * (camera.half_width(y1) + 0.7), y1];
        let length = (to[0] - from[0]).hypot(to[1] - from[1]);
        let walking = length / person.gait.speed;
        let stop = draw
            .chance(stops)
            .then(|| [walking * draw.range(0.35, 0.65), draw.range(1.5, 4.0)]);
        Self {
            camera: index,
            enter,
            leave: enter + walking + stop.map_or(0.0, |s| s[1]),
            from,
            to,
            bend: draw.normal(0.0, 0.25),
            stop,
            phase: draw.range(0.0, std::f32::consts::TAU),
        }
    }

    /// Where the person is at second `t` and how, `None` outside the crossing.
    pub fn at(&self, t: f32) -> Option<(Placement, Pose)> {
        if t < self.enter || t > self.leave {
            return None;
        }
        let mut walked = t - self.enter;
        let mut stride = 1.0f32;
        let mut total = self.leave - self.enter;
        if let Some([at, pause]) = self.stop {
            // Slowing down and starting again take 0.4 s each.
            let edge = ((walked - at).abs().min((walked - at - pause).abs()) / 0.4).min(1.0);
            let inside = walked > at && walked < at + pause;
            stride = if inside { 0.08 } else { 0.3 + 0.7 * edge };
            walked -= (walked - at).clamp(0.0, pause);
            total -= pause;
        }
        let share = walked / total;
        let [dx, dy] = [self.to[0] - self.from[0], self.to[1] - self.from[1]];
        let length = dx.hypot(dy);
        let along = std::f32::consts::PI * share;
        let slope = self.bend * std::f32::consts::PI / length * along.cos();
        let place = Placement {
            x: self.from[0] + dx * share - dy / length * self.bend * along.sin(),
            y: self.from[1] + dy * share + dx / length * self.bend * along.sin(),
            heading: dx.atan2(dy) - slope.atan(),
        };
        let pose = Pose {
            phase: self.phase + GAIT_PER_METRE * length * share,
            stride,
            gaze: 0.3 * (0.9 * t + self.phase).sin(),
        };
        Some((place, pose))
    }
}

/// Draws the crossings of one person: through neighbouring cameras one after another, forwards or backwards.
///
/// Between two views lie 5 to 14 metres of unseen way. The first crossing starts so that at least two fit
/// into a film of `seconds` if it is long enough.
pub fn route(
    cameras: &[Camera],
    person: &Person,
    seed: u64,
    id: u64,
    seconds: f32,
    stops: f32,
) -> Vec<Crossing> {
    let draw = &mut Draw::new(seed, &[path::ROUTE, id]);
    let forwards = draw.chance(0.5);
    let count = cameras.len();
    // Most see all cameras, some enter or leave on the way.
    let first = if count > 2 && draw.chance(0.25) { 1 } else { 0 };
    let mut order: Vec<usize> = (0..count).collect();
    if !forwards {
        order.reverse();
    }
    let mut crossings: Vec<Crossing> = Vec::new();
    let mut clock = 0.0;
    for &camera in &order[first..] {
        let rightwards = forwards != draw.chance(0.12);
        let crossing = Crossing::sample(
            &cameras[camera],
            camera,
            person,
            clock,
            rightwards,
            stops,
            draw,
        );
        clock = crossing.leave + draw.range(5.0, 14.0) / person.gait.speed;
        crossings.push(crossing);
    }
    let needed = crossings
        .get(1)
        .or(crossings.first())
        .map_or(0.0, |c| c.leave);
    let start = draw.range(0.0, (seconds - needed - 0.5).max(0.1));
    for crossing in &mut crossings {
        crossing.enter += start;
        crossing.leave += start;
    }
    crossings.retain(|c| c.enter < seconds);
    crossings
}
