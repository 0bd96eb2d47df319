//! Skeleton and gait: joints of a walking person in metres.
//!
//! The person's own frame: x to the right, y forward, z up, origin on the ground between the feet.

use std::f32::consts::PI;

use crate::person::{ArmHabit, Person};

/// A point or vector in metres.
pub type P3 = [f32; 3];

/// Sum of two vectors.
pub(crate) fn add(a: P3, b: P3) -> P3 {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

/// A vector times a number.
pub(crate) fn times(a: P3, k: f32) -> P3 {
    [a[0] * k, a[1] * k, a[2] * k]
}

/// From `a` at 0 to `b` at 1.
pub(crate) fn lerp(a: P3, b: P3, t: f32) -> P3 {
    add(times(a, 1.0 - t), times(b, t))
}

/// A moment of a walk.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pose {
    /// Phase of the step, radians; a full turn is two steps.
    pub phase: f32,
    /// 0 stands, 1 walks at full stride.
    pub stride: f32,
    /// Turn of the head to the right, radians.
    pub gaze: f32,
}

/// One side of the body, in the order right, left.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limb {
    /// Shoulder joint.
    pub shoulder: P3,
    /// Elbow.
    pub elbow: P3,
    /// Wrist.
    pub wrist: P3,
    /// Tip of the hand.
    pub hand: P3,
    /// Hip joint.
    pub hip: P3,
    /// Knee.
    pub knee: P3,
    /// Ankle.
    pub ankle: P3,
    /// Heel.
    pub heel: P3,
    /// Tip of the foot.
    pub toe: P3,
}

/// Joints of a person in the person's frame.
#[derive(Debug, Clone, Copy)]
pub struct Skeleton {
    /// Right (0) and left (1).
    pub sides: [Limb; 2],
    /// Between the hip joints.
    pub pelvis: P3,
    /// Base of the neck.
    pub neck: P3,
    /// Chin.
    pub chin: P3,
    /// Crown of the head.
    pub crown: P3,
    /// Forward direction of the face.
    pub face: P3,
    /// Right direction of the face.
    pub ear: P3,
}

impl Skeleton {
    /// The skeleton of `person` at a moment of the walk. The lower foot stands on the ground.
    pub fn new(person: &Person, pose: Pose) -> Self {
        let body = &person.body;
        let h = body.height;
        let gait = &person.gait;
        let stride = pose.stride;
        let swing = gait.swing * stride;

        let sides: [Limb; 2] = std::array::from_fn(|i| {
            let side = if i == 0 { 1.0 } else { -1.0 };
            let phase = pose.phase + if i == 0 { 0.0 } else { PI };
            let hip = [side * body.hip * 0.52 * h, 0.0, body.leg * h];
            let thigh = swing * phase.sin() + 0.04;
            // The knee bends while the leg swings forward and is nearly straight in stance.
            let knee_bend = 0.06 + stride * (0.08 + 0.62 * phase.cos().max(0.0).powi(2));
            let thigh_length = (body.leg - 0.285) * h;
            let shin_length = (0.285 - 0.045) * h;
            let splay = side * 0.02;
            let knee = add(hip, times([splay, thigh.sin(), -thigh.cos()], thigh_length));
            let shin = thigh - knee_bend;
            let ankle = add(
                knee,
                times([splay * 0.4, shin.sin(), -shin.cos()], shin_length),
            );
            // The heel lifts behind, the toe lifts before the foot lands.
            let pitch = shin * 0.75 + stride * 0.3 * (phase.sin() * 0.5);
            let forward = [side * 0.12, pitch.cos(), pitch.sin()];
            let down = [0.0, pitch.sin() * 0.8, -pitch.cos()];
            let heel = add(
                add(ankle, times(forward, -0.028 * h)),
                times(down, 0.028 * h),
            );
            let toe = add(
                add(ankle, times(forward, 0.105 * h)),
                times(down, 0.033 * h),
            );

            let shoulder = [side * body.shoulder * h, 0.0, 0.797 * h];
            let habit = gait.arms[i];
            let (upper_arm, elbow_bend, inward) = match habit {
                ArmHabit::Swing => {
                    let angle = -gait.arm * stride * phase.sin();
                    (angle, 0.22 + 0.3 * stride * angle.max(0.0), -0.13)
                }
                ArmHabit::Pocket => (-0.32, 0.75, 0.05),
                ArmHabit::Carry => (-0.12 * stride * phase.sin(), 0.08, -0.14),
                ArmHabit::Phone => (0.42, 1.85, 0.32),
                ArmHabit::Draw => (-0.5, 0.06, -0.16),
            };
            let out = 0.1;
            let elbow = add(
                shoulder,
                times([side * out, upper_arm.sin(), -upper_arm.cos()], 0.172 * h),
            );
            let fore = upper_arm + elbow_bend;
            let direction = [-side * inward * 0.55, fore.sin(), -fore.cos()];
            let wrist = add(elbow, times(direction, 0.15 * h));
            let hand = add(wrist, times(direction, 0.075 * h));
            Limb {
                shoulder,
                elbow,
                wrist,
                hand,
                hip,
                knee,
                ankle,
                heel,
                toe,
            }
        });

        let neck = [0.0, 0.0, 0.845 * h];
        let head = 0.135 * body.head * h;
        let chin = [0.0, 0.018 * h, 0.995 * h - head];
        let crown = [0.0, 0.012 * h, 0.995 * h];
        let mut skeleton = Self {
            sides,
            pelvis: [0.0, 0.0, body.leg * h],
            neck,
            chin,
            crown,
            face: [pose.gaze.sin(), pose.gaze.cos(), 0.0],
            ear: [pose.gaze.cos(), -pose.gaze.sin(), 0.0],
        };
        skeleton.lean(gait.lean * (0.5 + 0.5 * stride));
        skeleton.stand();
        skeleton
    }

    /// Turns everything above the pelvis forward.
    fn lean(&mut self, angle: f32) {
        let pivot = self.pelvis;
        let (sin, cos) = angle.sin_cos();
        let turn = |p: &mut P3| {
            let (y, z) = (p[1] - pivot[1], p[2] - pivot[2]);
            p[1] = pivot[1] + y * cos + z * sin;
            p[2] = pivot[2] + z * cos - y * sin;
        };
        for limb in &mut self.sides {
            turn(&mut limb.shoulder);
            turn(&mut limb.elbow);
            turn(&mut limb.wrist);
            turn(&mut limb.hand);
        }
        turn(&mut self.neck);
        turn(&mut self.chin);
        turn(&mut self.crown);
    }

    /// Moves the body down (or up) until its lowest sole touches the ground.
    fn stand(&mut self) {
        let lowest = self
            .sides
            .iter()
            .flat_map(|limb| [limb.heel[2], limb.toe[2]])
            .fold(f32::INFINITY, f32::min);
        let drop = lowest - 0.018;
        let lower = |p: &mut P3| p[2] -= drop;
        for limb in &mut self.sides {
            for p in [
                &mut limb.shoulder,
                &mut limb.elbow,
                &mut limb.wrist,
                &mut limb.hand,
                &mut limb.hip,
                &mut limb.knee,
                &mut limb.ankle,
                &mut limb.heel,
                &mut limb.toe,
            ] {
                lower(p);
            }
        }
        for p in [
            &mut self.pelvis,
            &mut self.neck,
            &mut self.chin,
            &mut self.crown,
        ] {
            lower(p);
        }
    }

    /// Centre of the head.
    pub fn head(&self) -> P3 {
        lerp(self.chin, self.crown, 0.5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Domain;

    fn length(a: P3, b: P3) -> f32 {
        (0..3).map(|i| (a[i] - b[i]).powi(2)).sum::<f32>().sqrt()
    }

    #[test]
    fn feet_touch_the_ground_and_bones_keep_their_length() {
        for seed in 0..20 {
            let person = Person::sample(Domain::Street, seed);
            let at = |phase: f32| {
                Skeleton::new(
                    &person,
                    Pose {
                        phase,
                        stride: 1.0,
                        gaze: 0.0,
                    },
                )
            };
            let first = at(0.0);
            let mut reach = 0.0f32;
            for step in 0..24 {
                let s = at(step as f32 * PI / 12.0);
                let lowest = s
                    .sides
                    .iter()
                    .flat_map(|l| [l.heel[2], l.toe[2]])
                    .fold(f32::INFINITY, f32::min);
                assert!((lowest - 0.018).abs() < 1e-4);
                for i in 0..2 {
                    let bone = |s: &Skeleton| length(s.sides[i].hip, s.sides[i].knee);
                    assert!((bone(&s) - bone(&first)).abs() < 1e-4);
                }
                assert!(s.crown[2] > 0.9 * person.body.height);
                reach = reach.max((s.sides[0].ankle[1] - s.sides[1].ankle[1]).abs());
            }
            assert!((0.4..1.1).contains(&reach), "step of {reach} m");
        }
    }
}
