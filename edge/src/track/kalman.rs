//! Constant-velocity Kalman filter of a box, in seconds.
//!
//! Centre x, centre y, width and height each have a position and a velocity. Motion and noise couple none of them with
//! another, so the 8-state filter of SORT (Bewley et al. 2016) falls apart into four 2-state ones: same numbers, no
//! matrices. Noise is relative to the height of the box (ByteTrack), process noise is white acceleration, so any
//! interval between frames is right.

use crate::types::Ltrb;

/// Standard deviation of a person's acceleration, heights per second squared.
const ACCELERATION: f32 = 1.2;
/// Standard deviation of the change of size, heights per second squared.
const RESIZING: f32 = 0.4;
/// Standard deviation of a detected edge, heights.
const MEASUREMENT: f32 = 0.05;
/// Standard deviation of the speed of a person just seen, heights per second.
const START_SPEED: f32 = 1.0;

/// Position and velocity of one coordinate, with covariance.
#[derive(Clone, Copy, Debug)]
struct Axis {
    position: f32,
    velocity: f32,
    var_position: f32,
    covariance: f32,
    var_velocity: f32,
}

impl Axis {
    fn new(position: f32, std_position: f32, std_velocity: f32) -> Self {
        Axis {
            position,
            velocity: 0.0,
            var_position: std_position * std_position,
            covariance: 0.0,
            var_velocity: std_velocity * std_velocity,
        }
    }

    fn predict(&mut self, dt: f32, std_acceleration: f32) {
        let q = std_acceleration * std_acceleration;
        self.position += dt * self.velocity;
        self.var_position +=
            dt * (2.0 * self.covariance + dt * self.var_velocity) + q * dt.powi(4) / 4.0;
        self.covariance += dt * self.var_velocity + q * dt.powi(3) / 2.0;
        self.var_velocity += q * dt * dt;
    }

    fn update(&mut self, measured: f32, std: f32) {
        let innovation = measured - self.position;
        let total = self.var_position + std * std;
        let (gain_p, gain_v) = (self.var_position / total, self.covariance / total);
        self.position += gain_p * innovation;
        self.velocity += gain_v * innovation;
        self.var_velocity -= gain_v * self.covariance;
        self.covariance *= 1.0 - gain_p;
        self.var_position *= 1.0 - gain_p;
    }
}

/// The filtered box of one tracklet.
#[derive(Clone, Copy, Debug)]
pub struct BoxFilter {
    x: Axis,
    y: Axis,
    width: Axis,
    height: Axis,
}

impl BoxFilter {
    /// Starts at a detection, at rest with an unknown speed.
    pub fn new(at: &Ltrb) -> Self {
        let h = at.height().max(1.0);
        let (std, speed) = (2.0 * MEASUREMENT * h, START_SPEED * h);
        BoxFilter {
            x: Axis::new((at.left + at.right) / 2.0, std, speed),
            y: Axis::new((at.top + at.bottom) / 2.0, std, speed),
            width: Axis::new(at.width().max(1.0), std, 0.2 * speed),
            height: Axis::new(h, std, 0.2 * speed),
        }
    }

    /// Moves on by `dt` seconds.
    pub fn predict(&mut self, dt: f32) {
        let h = self.height.position.max(1.0);
        self.x.predict(dt, ACCELERATION * h);
        self.y.predict(dt, ACCELERATION * h);
        self.width.predict(dt, RESIZING * h);
        self.height.predict(dt, RESIZING * h);
    }

    /// Takes in a detection. `trust` 0..1 is its score: a weak detection moves the box less (NSA Kalman, Du et al. 2021).
    pub fn update(&mut self, at: &Ltrb, trust: f32) {
        let std = MEASUREMENT * at.height().max(1.0) * (2.0 - trust.clamp(0.0, 1.0));
        self.x.update((at.left + at.right) / 2.0, std);
        self.y.update((at.top + at.bottom) / 2.0, std);
        self.width.update(at.width(), std);
        self.height.update(at.height(), std);
    }

    /// While nothing is seen the size stays and the speed fades: people behind a pillar do not shoot out of it.
    pub fn coast(&mut self, dt: f32) {
        self.width.velocity = 0.0;
        self.height.velocity = 0.0;
        let fade = (-dt / 2.0).exp();
        self.x.velocity *= fade;
        self.y.velocity *= fade;
    }

    /// The box now.
    pub fn ltrb(&self) -> Ltrb {
        let (w, h) = (
            self.width.position.max(1.0) / 2.0,
            self.height.position.max(1.0) / 2.0,
        );
        Ltrb {
            left: self.x.position - w,
            top: self.y.position - h,
            right: self.x.position + w,
            bottom: self.y.position + h,
        }
    }

    /// Speed of the centre, pixels per second.
    pub fn velocity(&self) -> (f32, f32) {
        (self.x.velocity, self.y.velocity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(x: f32) -> Ltrb {
        Ltrb {
            left: x,
            top: 100.0,
            right: x + 40.0,
            bottom: 200.0,
        }
    }

    #[test]
    fn learns_the_speed_at_any_frame_rate() {
        for fps in [5.0f32, 10.0, 30.0] {
            let mut f = BoxFilter::new(&person(0.0));
            let dt = 1.0 / fps;
            for i in 1..=(2.0 * fps) as usize {
                f.predict(dt);
                f.update(&person(60.0 * i as f32 * dt), 0.9);
            }
            let (vx, vy) = f.velocity();
            assert!(
                (vx - 60.0).abs() < 3.0 && vy.abs() < 1.0,
                "{fps} fps: {vx} {vy}"
            );
            f.predict(0.5);
            assert!((f.ltrb().left - 150.0).abs() < 5.0, "{:?}", f.ltrb());
        }
    }

    #[test]
    fn one_long_step_equals_many_short_ones_in_the_mean() {
        let mut a = BoxFilter::new(&person(0.0));
        for i in 1..10 {
            a.predict(0.1);
            a.update(&person(5.0 * i as f32), 1.0);
        }
        let mut b = a;
        a.predict(1.0);
        for _ in 0..10 {
            b.predict(0.1);
        }
        assert!((a.ltrb().left - b.ltrb().left).abs() < 1e-2);
    }

    #[test]
    fn a_weak_detection_moves_the_box_less() {
        let mut start = BoxFilter::new(&person(0.0));
        for _ in 0..10 {
            start.predict(0.1);
            start.update(&person(0.0), 1.0);
        }
        let (mut strong, mut weak) = (start, start);
        strong.predict(0.1);
        weak.predict(0.1);
        strong.update(&person(20.0), 1.0);
        weak.update(&person(20.0), 0.1);
        assert!(strong.ltrb().left > weak.ltrb().left && weak.ltrb().left > 0.0);
    }
}
