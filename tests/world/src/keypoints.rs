//! Keypoints of a rendered person in the two orders that trainers expect.

use crate::pose::{P3, Skeleton, add, lerp, times};
use crate::render::Canvas;
use crate::view::{Eye, Placement};

/// Names of COCO-17, in order. Left and right are the person's own.
pub const COCO_17: [&str; 17] = [
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
];

/// Names of OpenPose BODY_25, in order.
pub const BODY_25: [&str; 25] = [
    "nose",
    "neck",
    "right_shoulder",
    "right_elbow",
    "right_wrist",
    "left_shoulder",
    "left_elbow",
    "left_wrist",
    "mid_hip",
    "right_hip",
    "right_knee",
    "right_ankle",
    "left_hip",
    "left_knee",
    "left_ankle",
    "right_eye",
    "left_eye",
    "right_ear",
    "left_ear",
    "left_big_toe",
    "left_small_toe",
    "left_heel",
    "right_big_toe",
    "right_small_toe",
    "right_heel",
];

/// How a joint is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// Outside the picture.
    Outside,
    /// Inside, behind something.
    Hidden,
    /// Seen.
    Visible,
}

/// One joint: where it is on the canvas and how it is seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Joint {
    /// Canvas pixels.
    pub at: [f32; 2],
    /// How it is seen.
    pub sight: Sight,
}

/// All joints of a person; the order is [`BODY_25`]'s.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Joints(pub [Joint; 25]);

/// Keypoints in crop pixels, as they are written to `keypoints.jsonl`.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Keypoints {
    /// `[x, y, visibility]`: 0 outside, 1 hidden, 2 visible.
    pub coco: Vec<[f32; 3]>,
    /// `[x, y, confidence]`: 0 outside, 0.5 hidden, 1 visible.
    pub body25: Vec<[f32; 3]>,
}

/// Index in BODY_25 of each COCO-17 keypoint.
const COCO_FROM_BODY: [usize; 17] = [0, 16, 15, 18, 17, 5, 2, 6, 3, 7, 4, 12, 9, 13, 10, 14, 11];

/// World positions of the joints, order of [`BODY_25`].
pub fn positions(skeleton: &Skeleton, place: &Placement) -> [P3; 25] {
    let [right, left] = &skeleton.sides;
    let head = skeleton.head();
    let size = (skeleton.crown[2] - skeleton.chin[2]) / 2.0;
    let face = |side: f32, up: f32, forward: f32| {
        add(
            head,
            add(
                add(
                    times(skeleton.ear, side * size),
                    times(skeleton.face, forward * size),
                ),
                [0.0, 0.0, up * size],
            ),
        )
    };
    let toe = |limb: &crate::pose::Limb, side: f32| add(limb.toe, [side * 0.025, 0.0, 0.0]);
    [
        face(0.0, -0.15, 0.9),
        lerp(right.shoulder, left.shoulder, 0.5),
        right.shoulder,
        right.elbow,
        right.wrist,
        left.shoulder,
        left.elbow,
        left.wrist,
        lerp(right.hip, left.hip, 0.5),
        right.hip,
        right.knee,
        right.ankle,
        left.hip,
        left.knee,
        left.ankle,
        face(0.27, 0.03, 0.78),
        face(-0.27, 0.03, 0.78),
        face(0.66, -0.05, 0.05),
        face(-0.66, -0.05, 0.05),
        toe(left, 1.0),
        toe(left, -1.0),
        left.heel,
        toe(right, -1.0),
        toe(right, 1.0),
        right.heel,
    ]
    .map(|p| place.world(p))
}

/// A joint counts as hidden when what is seen there is nearer than it by more than this, metres.
const THICKNESS: f32 = 0.08;

impl Joints {
    /// Looks at the painted canvas to say how each joint of the actor `owner` is seen.
    pub fn new(
        skeleton: &Skeleton,
        place: &Placement,
        eye: &Eye,
        canvas: &Canvas,
        owner: u16,
    ) -> Self {
        Self(positions(skeleton, place).map(|p| {
            let at = eye.project(p).at;
            let inside = at[0] >= 0.0
                && at[1] >= 0.0
                && at[0] < canvas.width as f32
                && at[1] < canvas.height as f32;
            let sight = if inside {
                let index = at[1] as usize * canvas.width + at[0] as usize;
                let behind = crate::body::along(place, p) - canvas.depth[index];
                if canvas.owner[index] == owner && behind < THICKNESS {
                    Sight::Visible
                } else {
                    Sight::Hidden
                }
            } else {
                Sight::Outside
            };
            Joint { at, sight }
        }))
    }

    /// The joints in a crop whose pixels are the canvas' times `factor`.
    pub fn keypoints(&self, factor: [f32; 2]) -> Keypoints {
        let round = |x: f32| (x * 10.0).round() / 10.0;
        let write = |joint: &Joint, levels: [f32; 3]| match joint.sight {
            Sight::Outside => [0.0, 0.0, levels[0]],
            Sight::Hidden => [
                round(joint.at[0] * factor[0]),
                round(joint.at[1] * factor[1]),
                levels[1],
            ],
            Sight::Visible => [
                round(joint.at[0] * factor[0]),
                round(joint.at[1] * factor[1]),
                levels[2],
            ],
        };
        Keypoints {
            coco: COCO_FROM_BODY
                .iter()
                .map(|&i| write(&self.0[i], [0.0, 1.0, 2.0]))
                .collect(),
            body25: self
                .0
                .iter()
                .map(|joint| write(joint, [0.0, 0.5, 1.0]))
                .collect(),
        }
    }
}

impl Keypoints {
    /// Keypoints of a picture that shows nobody: all outside.
    pub fn nobody() -> Self {
        Self {
            coco: vec![[0.0; 3]; 17],
            body25: vec![[0.0; 3]; 25],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_orders_name_the_same_joints() {
        for (coco, &body) in COCO_17.iter().zip(&COCO_FROM_BODY) {
            assert_eq!(*coco, BODY_25[body]);
        }
    }
}
