//! From a person, a pose and a place to the parts that are painted.

use std::f32::consts::FRAC_PI_2;

use crate::garment::{Cut, LowerCut};
use crate::part::{Part, capsule_widths, ellipse_view, profile_widths};
use crate::person::{BagKind, Person};
use crate::pose::{P3, Skeleton, add, lerp};

use crate::surface::Surface;
use crate::view::{Eye, Placement};

/// A person ready to be painted, in canvas pixels.
#[derive(Debug, Clone)]
pub struct Figure<'a> {
    /// Parts, far to near.
    pub parts: Vec<Part<'a>>,
    /// Tight left, top, right, bottom of the body (without a trolley), canvas pixels.
    pub bounds: [f32; 4],
    /// Where the feet stand, canvas pixels.
    pub ground: [f32; 2],
    /// Canvas pixels to a metre at the body.
    pub scale: f32,
    /// Distance, metres.
    pub depth: f32,
}

/// Collects the parts of one person.
pub(crate) struct Builder<'a, 'b> {
    pub(crate) person: &'a Person,
    place: Placement,
    eye: &'b Eye,
    pub(crate) turn: f32,
    bulge: f32,
    /// Brings everything above the legs nearer, so that a thigh swings under a coat and not through it.
    lift: f32,
    parts: Vec<Part<'a>>,
}

impl<'a> Builder<'a, '_> {
    /// A limb from `a` to `b` (person's frame, metres) with radii in metres.
    pub(crate) fn tube(
        &mut self,
        a: P3,
        b: P3,
        radii: [f32; 2],
        surface: Surface<'a>,
        folds: f32,
        bias: f32,
    ) {
        let (from, to) = (
            self.eye.project(self.place.world(a)),
            self.eye.project(self.place.world(b)),
        );
        let d = [to.at[0] - from.at[0], to.at[1] - from.at[1]];
        let length = d[0].hypot(d[1]);
        let axis = if length > 0.3 {
            [d[0] / length, d[1] / length]
        } else {
            [0.0, 1.0]
        };
        let (span, widths) = capsule_widths(length, radii[0] * from.scale, radii[1] * to.scale);
        let solid = (0..3).map(|i| (a[i] - b[i]).powi(2)).sum::<f32>().sqrt() + radii[0] + radii[1];
        self.parts.push(Part {
            origin: from.at,
            axis,
            span,
            widths,
            delta: self.turn,
            bulge: self.bulge * 0.5,
            metre: solid / (span[1] - span[0]).max(1.0),
            surface,
            folds,
            depth: (self.range(a) + self.range(b)) / 2.0 + bias + self.lift,
            solid: (self.range(a) + self.range(b)) / 2.0,
        });
    }

    /// An upright column from `top` to `bottom` whose stations are `(share, half-width, half-depth)`, metres.
    pub(crate) fn column(
        &mut self,
        top: P3,
        bottom: P3,
        stations: &[(f32, f32, f32)],
        turn: f32,
        surface: Surface<'a>,
        folds: f32,
        bias: f32,
    ) {
        let (from, to) = (
            self.eye.project(self.place.world(top)),
            self.eye.project(self.place.world(bottom)),
        );
        let d = [to.at[0] - from.at[0], to.at[1] - from.at[1]];
        let length = d[0].hypot(d[1]).max(0.5);
        let axis = if length > 0.6 {
            [d[0] / length, d[1] / length]
        } else {
            [0.0, 1.0]
        };
        let seen: Vec<(f32, f32)> = stations
            .iter()
            .map(|&(v, a, b)| {
                (
                    v,
                    ellipse_view(a, b, turn).0 * (from.scale + (to.scale - from.scale) * v),
                )
            })
            .collect();
        let count = stations.len() as f32;
        let mean =
            |pick: fn(&(f32, f32, f32)) -> f32| stations.iter().map(pick).sum::<f32>() / count;
        let (a, b) = (mean(|s| s.1), mean(|s| s.2));
        let (half, delta) = ellipse_view(a, b, turn);
        let deep = ellipse_view(a, b, turn + FRAC_PI_2).0;
        self.parts.push(Part {
            origin: from.at,
            axis,
            span: [0.0, length],
            widths: profile_widths(&seen),
            delta,
            bulge: self.bulge * (deep / half.max(1e-3)).min(1.5),
            metre: (0..3)
                .map(|i| (top[i] - bottom[i]).powi(2))
                .sum::<f32>()
                .sqrt()
                / length,
            surface,
            folds,
            depth: (self.range(top) + self.range(bottom)) / 2.0 + bias + self.lift,
            solid: (self.range(top) + self.range(bottom)) / 2.0,
        });
    }

    /// Distance along the ground in the direction of the person: what hides what, whatever the pitch.
    fn range(&self, p: P3) -> f32 {
        along(&self.place, self.place.world(p))
    }

    pub(crate) fn ball(&mut self, centre: P3, radius: f32, surface: Surface<'a>, bias: f32) {
        self.tube(centre, centre, [radius, radius], surface, 0.0, bias);
    }

    fn legs(&mut self, skeleton: &Skeleton) {
        let person = self.person;
        let (body, lower) = (&person.body, &person.lower);
        let h = body.height;
        let thick = 0.5 * (1.0 + body.limb);
        for (i, limb) in skeleton.sides.iter().enumerate() {
            let side = if i == 0 { 1.0 } else { -1.0 };
            let bare = matches!(lower.cut, LowerCut::Skirt);
            let ease = if bare { 1.0 } else { lower.ease };
            let hip = 0.049 * h * thick * (1.0 + 0.25 * (ease - 1.0));
            let knee = 0.034
                * h
                * thick
                * if lower.hem < 0.285 {
                    ease.powf(0.8)
                } else {
                    1.0
                };
            let cuff = if lower.hem < 0.15 && !bare {
                0.0235 * ease * thick
            } else {
                0.021 * thick
            };
            let folds = if bare || lower.cut == LowerCut::Leggings {
                0.05
            } else {
                0.2
            };
            let heights = [body.leg * h, 0.285 * h];
            self.tube(
                limb.hip,
                limb.knee,
                [hip, knee],
                Surface::Leg(person, side, heights),
                folds,
                0.0,
            );
            self.tube(
                limb.knee,
                limb.ankle,
                [knee, cuff * h],
                Surface::Leg(person, side, [0.285 * h, 0.045 * h]),
                folds,
                0.0,
            );
            self.tube(
                limb.heel,
                limb.toe,
                [0.021 * h, 0.0165 * h],
                Surface::Shoe(&person.shoes),
                0.04,
                -0.01,
            );
        }
        // Seat, skirt.
        let drop = body.leg * h - skeleton.pelvis[2];
        let bottom = if lower.cut == LowerCut::Skirt {
            lower.hem
        } else {
            body.leg - 0.065
        };
        let top = add(skeleton.pelvis, [0.0, 0.0, 0.06 * h]);
        let end = [0.0, skeleton.pelvis[1], bottom * h - drop];
        let (a, b) = (body.hip * h, (body.belly + 0.012) * h);
        let waist = (body.waist * h, body.belly * h);
        if lower.cut == LowerCut::Skirt {
            let flare = lower.ease;
            let tall = (body.leg + 0.06 - bottom).max(0.08);
            let hip = 0.09 / tall;
            self.column(
                top,
                end,
                &[
                    (0.0, waist.0, waist.1),
                    (hip.min(0.6), a, b * 1.1),
                    (1.0, a * flare, b * 1.15 * flare),
                ],
                self.turn,
                Surface::Seat(person),
                0.16,
                -0.42,
            );
        } else {
            self.column(
                top,
                end,
                &[
                    (0.0, waist.0, waist.1),
                    (0.5, a, b * 1.12),
                    (0.85, a * 0.97, b * 1.1),
                    (1.0, a * 0.75, b * 0.8),
                ],
                self.turn,
                Surface::Seat(person),
                0.12,
                -0.03,
            );
        }
    }

    fn trunk(&mut self, skeleton: &Skeleton) {
        let person = self.person;
        let (body, upper) = (&person.body, &person.upper);
        let h = body.height;
        let drop = body.leg * h - skeleton.pelvis[2];
        let top_share = 0.858;
        let top = add(skeleton.neck, [0.0, 0.0, (top_share - 0.845) * h]);
        let hem = upper.hem.min(body.leg + 0.01);
        // The line from the neck through the pelvis, down to the hem.
        let end_z = hem * h - drop;
        let reach = (top[2] - end_z) / (top[2] - skeleton.pelvis[2]).max(0.1);
        let mut end = lerp(top, skeleton.pelvis, reach);
        end[1] *= if reach > 1.2 { 0.5 } else { 1.0 };
        let flare = match upper.cut {
            Cut::Dress => 1.35,
            Cut::Coat => 1.16,
            Cut::Jacket | Cut::Vest | Cut::HiVis => 1.06,
            _ => 1.02,
        };
        let ease = upper.ease;
        let loose = (ease - 1.0) * 0.9;
        let slim = matches!(upper.cut, Cut::Dress | Cut::TShirt | Cut::Blazer);
        let waist = if slim {
            body.waist
        } else {
            body.waist.max(body.hip * 0.92)
        };
        let table = [
            (0.858, 0.036, 0.034),
            (0.842, 0.062, 0.045),
            (0.828, body.shoulder * 0.9, 0.055),
            (0.805, body.shoulder * 1.12, body.chest * 0.9),
            (0.77, body.shoulder * 1.08, body.chest * 1.0),
            (0.71, body.shoulder * 0.97, body.chest * 1.02),
            (
                0.62,
                waist * (1.0 + loose * 0.7),
                body.belly * (1.0 + loose),
            ),
            (
                0.53,
                body.hip * (1.0 + loose * 0.7),
                (body.belly + 0.008) * (1.0 + loose),
            ),
            (
                0.47,
                body.hip * (1.02 + loose * 0.7),
                (body.belly + 0.012) * (1.0 + loose),
            ),
        ];
        let span = top_share - hem;
        let mut stations: Vec<(f32, f32, f32)> = table
            .iter()
            .filter(|row| row.0 > hem + 0.005)
            .map(|&(share, a, b)| {
                let wide = if share > 0.82 {
                    1.0
                } else {
                    1.0 + (ease - 1.0) * 0.6
                };
                ((top_share - share) / span, a * wide * h, b * ease * h)
            })
            .collect();
        let below = ((0.5 - hem) / 0.2).max(0.0);
        let grow = 1.0 + (flare - 1.0) * (0.4 + below);
        stations.push((
            1.0,
            body.hip * (1.0 + (ease - 1.0) * 0.9) * grow * h,
            (body.belly + 0.012) * ease * grow * h,
        ));
        let folds = match upper.cut {
            Cut::TShirt | Cut::Shirt | Cut::Dress => 0.2,
            Cut::Blazer | Cut::Coat => 0.11,
            _ => 0.17,
        };
        self.column(
            top,
            end,
            &stations,
            self.turn,
            Surface::Trunk(person),
            folds,
            -0.08,
        );
    }

    fn arms(&mut self, skeleton: &Skeleton) {
        let person = self.person;
        let (body, upper) = (&person.body, &person.upper);
        let h = body.height;
        for limb in &skeleton.sides {
            let covered = |share: f32| upper.sleeve > share;
            let ease = |share: f32| if covered(share) { upper.ease } else { 1.0 };
            let top = 0.031
                * h
                * body.limb
                * if upper.sleeve > 0.0 {
                    upper.ease.powf(0.8)
                } else {
                    0.9
                };
            let elbow = 0.0245 * h * body.limb * ease(0.5);
            let cuff = 0.0185 * h * body.limb * ease(0.9);
            let folds = if covered(0.3) { 0.18 } else { 0.03 };
            let upper_length = 0.172 * h;
            self.tube(
                limb.shoulder,
                limb.elbow,
                [top, elbow],
                Surface::Arm(person, -top),
                folds,
                -0.06,
            );
            self.tube(
                limb.elbow,
                limb.wrist,
                [elbow, cuff],
                Surface::Arm(person, upper_length - elbow),
                if covered(0.6) { folds } else { 0.03 },
                -0.065,
            );
            self.tube(
                limb.wrist,
                limb.hand,
                [0.0165 * h, 0.0125 * h],
                Surface::Flat(person.skin),
                0.0,
                -0.06,
            );
        }
    }
}

/// Distance of a world point along the ground, in the direction in which the camera sees `place`.
pub fn along(place: &Placement, p: P3) -> f32 {
    let reach = place.x.hypot(place.y).max(1e-3);
    (p[0] * place.x + p[1] * place.y) / reach
}

impl<'a> Figure<'a> {
    /// The figure of `person` in that pose at that place, seen through `eye`.
    pub fn new(person: &'a Person, skeleton: &Skeleton, place: Placement, eye: &Eye) -> Self {
        let reach = place.x.hypot(place.y).max(0.5);
        let mut builder = Builder {
            person,
            place,
            eye,
            turn: place.turn(),
            lift: 0.0,
            bulge: ((eye.view.height - 1.0) / reach).atan().sin(),
            parts: Vec::with_capacity(28),
        };
        builder.legs(skeleton);
        let long = person.upper.hem < 0.44 || person.lower.cut == LowerCut::Skirt;
        builder.lift = if long { -0.5 } else { -0.22 };
        builder.trunk(skeleton);
        builder.arms(skeleton);
        builder.head(skeleton);
        let mut bounds = [
            f32::INFINITY,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NEG_INFINITY,
        ];
        for part in &builder.parts {
            let b = part.bounds();
            bounds = [
                bounds[0].min(b[0]),
                bounds[1].min(b[1]),
                bounds[2].max(b[2]),
                bounds[3].max(b[3]),
            ];
        }
        if person.bag.kind == BagKind::Trolley {
            builder.lift = 0.0;
        }
        builder.bag(skeleton);
        builder.parts.sort_by(|a, b| b.depth.total_cmp(&a.depth));
        let ground = eye.project([place.x, place.y, 0.0]);
        Self {
            parts: builder.parts,
            bounds,
            ground: ground.at,
            scale: ground.scale,
            depth: reach,
        }
    }
}
