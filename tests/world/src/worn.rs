//! Head, hair, headwear and bags: the parts that tell people apart when their clothes do not.

use crate::body::Builder;
use crate::colour::{Rgb, scale};
use crate::garment::Cut;
use crate::person::{BagKind, HairStyle, Headwear};
use crate::pose::{P3, Skeleton, add, times};
use crate::surface::Surface;

/// Outline of a bag: `(share of its height, share of its width)`.
const BOX: [(f32, f32); 5] = [
    (0.0, 0.72),
    (0.07, 0.96),
    (0.5, 1.0),
    (0.93, 1.0),
    (1.0, 0.86),
];

/// Outline of a head.
const EGG: [(f32, f32); 9] = [
    (0.0, 0.12),
    (0.05, 0.5),
    (0.14, 0.78),
    (0.28, 0.96),
    (0.45, 1.0),
    (0.64, 0.93),
    (0.82, 0.75),
    (0.94, 0.52),
    (1.0, 0.25),
];

impl Builder<'_, '_> {
    /// Neck, head, hair and headwear.
    pub(crate) fn head(&mut self, skeleton: &Skeleton) {
        let person = self.person;
        let body = &person.body;
        let h = body.height;
        let unit = body.head * h;
        let gaze = skeleton.face[0].atan2(skeleton.face[1]);
        let turn = self.turn + gaze;
        self.tube(
            skeleton.neck,
            skeleton.chin,
            [0.034 * h, 0.03 * h],
            Surface::Flat(scale(person.skin, 0.85)),
            0.0,
            -0.03,
        );
        let (mut wide, mut deep) = (0.0455 * unit, 0.056 * unit);
        let mut crown = skeleton.crown;
        let mut chin = skeleton.chin;
        match person.headwear {
            Headwear::Hood | Headwear::Headscarf => {
                wide *= 1.2;
                deep *= 1.14;
                crown[2] += 0.012 * h;
                chin[2] -= 0.008 * h;
            }
            Headwear::Cap | Headwear::Beanie | Headwear::Hat => {
                wide *= 1.04;
                crown[2] += 0.01 * h;
            }
            _ => match person.hair {
                HairStyle::Curly => {
                    wide *= 1.22;
                    deep *= 1.2;
                    crown[2] += 0.022 * h;
                }
                HairStyle::Bob | HairStyle::Long => {
                    wide *= 1.1;
                    deep *= 1.08;
                    crown[2] += 0.006 * h;
                }
                _ => {}
            },
        }
        let stations: Vec<(f32, f32, f32)> =
            EGG.iter().map(|&(v, k)| (v, k * wide, k * deep)).collect();
        self.column(
            crown,
            chin,
            &stations,
            turn,
            Surface::Head(person),
            0.0,
            -0.1,
        );

        let behind = turn.cos() > 0.0;
        let back = times(skeleton.face, -1.0);
        let middle = skeleton.head();
        let covered = matches!(person.headwear, Headwear::Hood | Headwear::Headscarf);
        if !covered {
            match person.hair {
                HairStyle::Long | HairStyle::Bob => {
                    let length = if person.hair == HairStyle::Bob {
                        0.165 * unit
                    } else {
                        person.hair_length
                    };
                    let top = add(add(skeleton.crown, times(back, 0.028)), [0.0, 0.0, -0.055]);
                    let end = add(top, [0.0, -0.03, -length]);
                    self.column(
                        top,
                        end,
                        &[
                            (0.0, 0.052 * unit, 0.045 * unit),
                            (0.3, 0.062 * unit, 0.05 * unit),
                            (0.75, 0.064 * unit, 0.045 * unit),
                            (1.0, 0.042 * unit, 0.03 * unit),
                        ],
                        turn,
                        Surface::Mane(person.hair_colour),
                        0.1,
                        if behind { -0.13 } else { 0.04 },
                    );
                }
                HairStyle::Ponytail => {
                    let knot = add(
                        add(middle, times(back, 0.065 * unit)),
                        [0.0, 0.0, 0.02 * unit],
                    );
                    let tip = add(
                        add(knot, times(back, 0.02)),
                        [0.0, 0.0, -0.55 * person.hair_length],
                    );
                    self.tube(
                        knot,
                        tip,
                        [0.021 * unit, 0.015 * unit],
                        Surface::Mane(person.hair_colour),
                        0.0,
                        if behind { -0.14 } else { 0.05 },
                    );
                }
                HairStyle::Bun => {
                    let knot = add(
                        add(middle, times(back, 0.05 * unit)),
                        [0.0, 0.0, 0.055 * unit],
                    );
                    self.ball(
                        knot,
                        0.026 * unit,
                        Surface::Mane(person.hair_colour),
                        if behind { -0.12 } else { 0.02 },
                    );
                }
                _ => {}
            }
        }
        self.headwear(skeleton, middle, unit, behind);
    }

    fn headwear(&mut self, skeleton: &Skeleton, middle: P3, unit: f32, behind: bool) {
        let person = self.person;
        let colour = person.headwear_colour;
        let dark: Rgb = scale(colour, 0.75);
        match person.headwear {
            Headwear::Cap => {
                let brow = add(middle, [0.0, 0.0, 0.026 * unit]);
                let front = add(brow, times(skeleton.face, 0.078 * unit));
                let left = add(front, times(skeleton.ear, -0.03 * unit));
                let right = add(front, times(skeleton.ear, 0.03 * unit));
                let r = [0.0085 * unit; 2];
                self.tube(left, right, r, Surface::Flat(dark), 0.0, -0.1);
                let root = add(brow, times(skeleton.face, 0.04 * unit));
                self.tube(
                    root,
                    add(brow, times(skeleton.face, 0.085 * unit)),
                    r,
                    Surface::Flat(dark),
                    0.0,
                    -0.1,
                );
            }
            Headwear::Hat => {
                let brim = add(middle, [0.0, 0.0, 0.026 * unit]);
                let right = [
                    self.turn.cos() * 0.07 * unit,
                    -self.turn.sin() * -0.07 * unit,
                    0.0,
                ];
                self.tube(
                    add(brim, times(right, -1.0)),
                    add(brim, right),
                    [0.012 * unit; 2],
                    Surface::Flat(dark),
                    0.0,
                    -0.16,
                );
            }
            Headwear::Headscarf => {
                let top = add(skeleton.chin, [0.0, 0.0, 0.01]);
                let end = add(top, [0.0, 0.0, -0.125 * unit]);
                self.column(
                    top,
                    end,
                    &[
                        (0.0, 0.05 * unit, 0.05 * unit),
                        (0.5, 0.075 * unit, 0.065 * unit),
                        (1.0, 0.085 * unit, 0.07 * unit),
                    ],
                    self.turn,
                    Surface::Flat(scale(colour, 0.92)),
                    0.16,
                    -0.11,
                );
            }
            _ => {}
        }
        if person.upper.cut == Cut::Hoodie && person.headwear != Headwear::Hood {
            let nape = add(skeleton.neck, [0.0, -0.045, -0.015]);
            let (a, b) = (add(nape, [-0.05, 0.0, 0.0]), add(nape, [0.05, 0.0, 0.0]));
            self.tube(
                a,
                b,
                [0.052, 0.052],
                Surface::Flat(scale(person.upper.cloth.base, 0.9)),
                0.1,
                if behind { -0.09 } else { 0.03 },
            );
        }
    }

    /// The bag and its straps.
    pub(crate) fn bag(&mut self, skeleton: &Skeleton) {
        let person = self.person;
        let bag = &person.bag;
        let h = person.body.height;
        let side = if bag.right { 1.0 } else { -1.0 };
        let hand = skeleton.sides[usize::from(!bag.right)].hand;
        let lift = skeleton.pelvis[2] - person.body.leg * h;
        let size = bag.size;
        // (centre of the top, height, half-width to the side, half-depth)
        let (top, tall, a, b) = match bag.kind {
            BagKind::None => return,
            BagKind::Backpack => {
                let y = skeleton.neck[1] * 0.7 - person.body.chest * person.upper.ease * h - 0.07;
                (
                    [0.0, y, 0.815 * h + lift],
                    0.245 * h * size,
                    0.083 * h * size,
                    0.085 * size,
                )
            }
            BagKind::Crossbody => (
                [
                    side * (person.body.hip * 1.12 * h + 0.02),
                    0.03,
                    0.535 * h + lift,
                ],
                0.12 * h * size,
                0.045,
                0.12 * size,
            ),
            BagKind::Shoulder => (
                [
                    side * (person.body.shoulder * 1.12 * h + 0.03),
                    -0.04,
                    0.645 * h + lift,
                ],
                0.15 * h * size,
                0.055,
                0.15 * size,
            ),
            BagKind::Handbag => (add(hand, [0.0, 0.0, -0.07]), 0.2 * size, 0.06, 0.14 * size),
            BagKind::Shopping => (add(hand, [0.0, 0.0, -0.06]), 0.36 * size, 0.07, 0.16 * size),
            BagKind::Trolley => (
                [side * 0.3, -0.5, 0.58 * size],
                0.52 * size,
                0.17 * size,
                0.12,
            ),
        };
        let end = add(top, [0.0, 0.0, -tall]);
        let stations: Vec<(f32, f32, f32)> = BOX.iter().map(|&(v, k)| (v, k * a, k * b)).collect();
        self.column(
            top,
            end,
            &stations,
            self.turn,
            Surface::Bag(bag),
            0.07,
            if bag.kind == BagKind::Backpack {
                -0.02
            } else {
                -0.05
            },
        );
        let metal = Surface::Flat([0.3, 0.3, 0.31]);
        let strap = Surface::Flat(scale(bag.colour, 0.7));
        match bag.kind {
            BagKind::Trolley => {
                self.tube(hand, top, [0.012, 0.012], metal, 0.0, 0.02);
                let wheel = add(end, [0.0, 0.0, -0.01]);
                self.tube(
                    add(wheel, [-0.12, 0.0, 0.0]),
                    add(wheel, [0.12, 0.0, 0.0]),
                    [0.03, 0.03],
                    Surface::Flat([0.01; 3]),
                    0.0,
                    0.0,
                );
            }
            BagKind::Handbag | BagKind::Shopping => {
                self.tube(
                    hand,
                    add(top, [0.0, 0.06, 0.0]),
                    [0.009, 0.009],
                    strap,
                    0.0,
                    -0.05,
                );
                self.tube(
                    hand,
                    add(top, [0.0, -0.06, 0.0]),
                    [0.009, 0.009],
                    strap,
                    0.0,
                    -0.05,
                );
            }
            BagKind::Shoulder => {
                let shoulder = add(
                    skeleton.sides[usize::from(!bag.right)].shoulder,
                    [0.0, 0.0, 0.03],
                );
                self.tube(
                    shoulder,
                    add(top, [0.0, 0.05, 0.0]),
                    [0.011, 0.011],
                    strap,
                    0.0,
                    -0.08,
                );
            }
            _ => {}
        }
    }
}
