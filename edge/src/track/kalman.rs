//! Constant-velocity Kalman filter of a box, in seconds.
//!
//! Centre x, centre y, width and height each have a position and a velocity. Motion and noise couple none of them with
//! another, so the 8-state filter of SORT (Bewley et al. 2016) falls apart into four 2-state ones: same numbers, no
//! matrices. Noise is relative to the height of the box (ByteTrack), process noise is white acceleration, so any
//! interval between frames is right.

use crate::types::Ltrb;

// The four were chosen on simulated worlds (seeds 61 to 64, two detectors) and on plaza.mp4, see docs/BENCHMARKS.md.
/// Standard deviation of a person's acceleration, heights per second squared.
const ACCELERATION: f32 = 0.9;
/// Standard deviation of the change of size, heights per second squared.
const RESIZING: f32 = 0.3;
/// Standard deviation of where a detector sees a person, heights: legs that swing and halves that are hidden count.
const MEASUREMENT: f32 = 0.1;
/// Standard deviation of the speed of a person just seen, heights per second.
const START_SPEED: f32 = 1.5;

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
    use proptest::prelude::*;

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

    proptest! {
        /// Against the filter as textbooks write it: an 8 x 8 covariance, matrices in double precision.
        #[test]
        fn agrees_with_the_filter_of_eight_states(
            steps in prop::collection::vec((0.02f32..0.5, -0.3f32..0.3, -0.2f32..0.2, 0.8f32..1.25, 0.1f32..1.0), 1..30),
        ) {
            let mut f = BoxFilter::new(&person(300.0));
            let mut slow = Slow::new(&person(300.0));
            for (dt, dx, dy, size, trust) in steps {
                f.predict(dt);
                slow.predict(f64::from(dt));
                let b = slow.ltrb();
                let (w, h) = (b.width() * size, b.height() * size);
                let (left, top) = (b.left + dx * h, b.top + dy * h);
                let seen = Ltrb { left, top, right: left + w, bottom: top + h };
                f.update(&seen, trust);
                slow.update(&seen, f64::from(trust));
                let (a, b) = (f.ltrb(), slow.ltrb());
                for (a, b) in [(a.left, b.left), (a.top, b.top), (a.right, b.right), (a.bottom, b.bottom)] {
                    prop_assert!((a - b).abs() < 2e-3 * (1.0 + b.abs()), "{} against {}", a, b);
                }
                let (vx, vy) = f.velocity();
                prop_assert!((f64::from(vx) - slow.state[4]).abs() < 0.02 * (1.0 + slow.state[4].abs()), "{} against {}", vx, slow.state[4]);
                prop_assert!((f64::from(vy) - slow.state[5]).abs() < 0.02 * (1.0 + slow.state[5].abs()), "{} against {}", vy, slow.state[5]);
            }
        }
    }

    type Matrix = [[f64; 8]; 8];

    fn product(a: &Matrix, b: &Matrix) -> Matrix {
        std::array::from_fn(|i| std::array::from_fn(|j| (0..8).map(|k| a[i][k] * b[k][j]).sum()))
    }

    fn transposed(a: &Matrix) -> Matrix {
        std::array::from_fn(|i| std::array::from_fn(|j| a[j][i]))
    }

    /// x = F x, P = F P F' + Q; then one measured coordinate after the other, which is the same as all at once because their
    /// noises are independent.
    struct Slow {
        state: [f64; 8],
        covariance: Matrix,
    }

    impl Slow {
        fn new(at: &Ltrb) -> Self {
            let h = f64::from(at.height());
            let position = 2.0 * f64::from(MEASUREMENT) * h;
            let speed = f64::from(START_SPEED) * h;
            let deviations = [
                position,
                position,
                position,
                position,
                speed,
                speed,
                0.2 * speed,
                0.2 * speed,
            ];
            Slow {
                state: [
                    f64::from(at.left + at.right) / 2.0,
                    f64::from(at.top + at.bottom) / 2.0,
                    f64::from(at.width()),
                    h,
                    0.0,
                    0.0,
                    0.0,
                    0.0,
                ],
                covariance: std::array::from_fn(|i| {
                    std::array::from_fn(|j| if i == j { deviations[i].powi(2) } else { 0.0 })
                }),
            }
        }

        fn predict(&mut self, dt: f64) {
            let h = self.state[3].max(1.0);
            let mut motion: Matrix =
                std::array::from_fn(|i| std::array::from_fn(|j| f64::from(u8::from(i == j))));
            let mut noise: Matrix = [[0.0; 8]; 8];
            for i in 0..4 {
                motion[i][i + 4] = dt;
                let acceleration = h * f64::from(if i < 2 { ACCELERATION } else { RESIZING });
                // The noise enters through (dt^2 / 2, dt).
                let enters = [dt * dt / 2.0, dt];
                for (a, row) in [i, i + 4].into_iter().enumerate() {
                    for (b, column) in [i, i + 4].into_iter().enumerate() {
                        noise[row][column] = acceleration.powi(2) * enters[a] * enters[b];
                    }
                }
            }
            self.state =
                std::array::from_fn(|i| (0..8).map(|k| motion[i][k] * self.state[k]).sum());
            let moved = product(&product(&motion, &self.covariance), &transposed(&motion));
            self.covariance =
                std::array::from_fn(|i| std::array::from_fn(|j| moved[i][j] + noise[i][j]));
        }

        fn update(&mut self, at: &Ltrb, trust: f64) {
            let std = f64::from(MEASUREMENT) * f64::from(at.height()).max(1.0) * (2.0 - trust);
            let measured = [
                f64::from(at.left + at.right) / 2.0,
                f64::from(at.top + at.bottom) / 2.0,
                f64::from(at.width()),
                f64::from(at.height()),
            ];
            for (i, z) in measured.into_iter().enumerate() {
                let total = self.covariance[i][i] + std * std;
                let gain: [f64; 8] = std::array::from_fn(|k| self.covariance[k][i] / total);
                let innovation = z - self.state[i];
                let row = self.covariance[i];
                for k in 0..8 {
                    self.state[k] += gain[k] * innovation;
                    for (c, r) in self.covariance[k].iter_mut().zip(row) {
                        *c -= gain[k] * r;
                    }
                }
            }
        }

        fn ltrb(&self) -> Ltrb {
            let (w, h) = (self.state[2].max(1.0) / 2.0, self.state[3].max(1.0) / 2.0);
            Ltrb {
                left: (self.state[0] - w) as f32,
                top: (self.state[1] - h) as f32,
                right: (self.state[0] + w) as f32,
                bottom: (self.state[1] + h) as f32,
            }
        }
    }
}
