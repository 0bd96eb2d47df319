//! Identities: a body, hair, clothes, bags, and a way of walking, all from one seed.

use serde::Serialize;

use crate::colour::{self, Rgb, hex, mix, scale, shift};
use crate::domain::{Domain, Role};
use crate::garment::{Cut, Lower, LowerCut, Upper};
use crate::pattern::{Cloth, Pattern, contrast};
use crate::seed::{Draw, path};

/// Measures of a body. Lengths are shares of `height` unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Body {
    /// Metres, without shoes.
    pub height: f32,
    /// Height of the hip joints above the ground.
    pub leg: f32,
    /// Half the distance between the shoulder joints.
    pub shoulder: f32,
    /// Half-width of the hips.
    pub hip: f32,
    /// Half-width of the waist.
    pub waist: f32,
    /// Half-depth of the chest.
    pub chest: f32,
    /// Half-depth of the belly.
    pub belly: f32,
    /// Thickness of limbs, 1 is average.
    pub limb: f32,
    /// Size of the head, 1 is average.
    pub head: f32,
}

/// What grows on a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HairStyle {
    /// None.
    Bald,
    /// Cropped.
    Short,
    /// Covers the ears.
    Bob,
    /// To the shoulders or below.
    Long,
    /// Gathered behind, hanging.
    Ponytail,
    /// Gathered on top of the back.
    Bun,
    /// Wide and round.
    Curly,
}

/// What is worn on a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Headwear {
    /// Nothing.
    None,
    /// A cap with a peak.
    Cap,
    /// A knitted hat.
    Beanie,
    /// A hat with a brim all around.
    Hat,
    /// The garment's own hood.
    Hood,
    /// A scarf around head and neck.
    Headscarf,
}

/// What is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BagKind {
    /// Nothing.
    None,
    /// On the back, straps over both shoulders.
    Backpack,
    /// At one hip, strap across the torso.
    Crossbody,
    /// Under one arm, strap on that shoulder.
    Shoulder,
    /// In one hand.
    Handbag,
    /// In one hand: light, wide, reaching the shin.
    Shopping,
    /// On wheels, drawn behind.
    Trolley,
}

/// A bag: kind, colour, second colour, side, size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bag {
    /// Its kind.
    pub kind: BagKind,
    /// Its colour.
    pub colour: Rgb,
    /// Pocket or flap.
    pub trim: Rgb,
    /// True at the right side.
    pub right: bool,
    /// 1 is average.
    pub size: f32,
}

/// Shoes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Shoes {
    /// Upper.
    pub colour: Rgb,
    /// Sole.
    pub sole: Rgb,
    /// Height of the shaft as a share of body height; boots reach 0.2.
    pub shaft: f32,
}

/// How somebody walks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Gait {
    /// Amplitude of the thigh, radians.
    pub swing: f32,
    /// Amplitude of the arm, radians.
    pub arm: f32,
    /// Lean of the trunk forward, radians.
    pub lean: f32,
    /// Metres per second.
    pub speed: f32,
    /// Habit of each arm, right then left.
    pub arms: [ArmHabit; 2],
}

/// What an arm does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ArmHabit {
    /// Swings against the leg.
    Swing,
    /// Hand in the pocket.
    Pocket,
    /// Holds a bag still.
    Carry,
    /// Holds a phone before the chest or at the ear.
    Phone,
    /// Reaches back to a trolley.
    Draw,
}

/// One identity. The same person looks the same to every camera; what differs is the view.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Person {
    /// Measures.
    pub body: Body,
    /// Skin.
    pub skin: Rgb,
    /// Hair style.
    pub hair: HairStyle,
    /// Hair colour.
    pub hair_colour: Rgb,
    /// Length of hanging hair, metres below the crown.
    pub hair_length: f32,
    /// Beard, 0 none to 1 full.
    pub beard: f32,
    /// Glasses; dark ones are sunglasses.
    pub glasses: Option<Rgb>,
    /// Headwear.
    pub headwear: Headwear,
    /// Its colour.
    pub headwear_colour: Rgb,
    /// A scarf around the neck.
    pub scarf: Option<Rgb>,
    /// Upper garment.
    pub upper: Upper,
    /// Lower garment.
    pub lower: Lower,
    /// Shoes.
    pub shoes: Shoes,
    /// Bag.
    pub bag: Bag,
    /// Colour of a belt, if it shows.
    pub belt: Option<Rgb>,
    /// Walk.
    pub gait: Gait,
}

const SKIN: [(u32, f32); 7] = [
    (0xf0cfb6, 1.6),
    (0xe3b798, 2.0),
    (0xd09f7c, 1.6),
    (0xb37f5a, 1.1),
    (0x8d5d3e, 0.8),
    (0x643f2a, 0.7),
    (0x472c1f, 0.5),
];

const HAIR: [(u32, f32); 9] = [
    (0x14110f, 2.6),
    (0x2a1d16, 2.2),
    (0x47301f, 1.6),
    (0x6d4b2d, 0.9),
    (0xa57f4d, 0.7),
    (0xcfb27a, 0.45),
    (0x7e3a20, 0.3),
    (0x8f8c88, 0.6),
    (0xdedcd8, 0.35),
];

impl Person {
    /// The person of that seed.
    pub fn sample(domain: Domain, seed: u64) -> Self {
        let draw = &mut Draw::new(seed, &[path::PERSON, domain.code()]);
        let feminine = draw.chance(0.48);
        let body = Body::sample(draw, feminine);
        let skin = shift(
            hex(draw.weighted(&SKIN)),
            draw.normal(0.0, 0.008),
            draw.range(0.85, 1.15),
            draw.range(0.92, 1.06),
        );
        let dark_skin = crate::colour::luminance(skin) < 0.16;
        let hair_code = if dark_skin {
            draw.pick(&[0x14110f, 0x1d1613, 0x2a1d16])
        } else {
            draw.weighted(&HAIR)
        };
        let hair_colour = shift(
            hex(hair_code),
            0.0,
            draw.range(0.8, 1.2),
            draw.range(0.8, 1.2),
        );
        let hair = if feminine {
            draw.weighted(&[
                (HairStyle::Short, 0.7),
                (HairStyle::Bob, 1.6),
                (HairStyle::Long, 2.8),
                (HairStyle::Ponytail, 1.5),
                (HairStyle::Bun, 0.9),
                (HairStyle::Curly, 0.6),
            ])
        } else {
            draw.weighted(&[
                (HairStyle::Bald, 0.7),
                (HairStyle::Short, 4.2),
                (HairStyle::Bob, 0.35),
                (HairStyle::Long, 0.2),
                (HairStyle::Ponytail, 0.12),
                (HairStyle::Curly, 0.5),
            ])
        };
        let cold = domain.cold();
        let upper = Upper::sample(domain, draw, feminine);
        let lower = if upper.cut == Cut::Dress {
            // Bare legs or tights below a dress.
            let mut lower = Lower::sample(domain, draw, true);
            lower.cut = if draw.chance(0.5) {
                LowerCut::Leggings
            } else {
                LowerCut::Shorts
            };
            lower.hem = if lower.cut == LowerCut::Leggings {
                0.06
            } else {
                0.4
            };
            lower.ease = 1.0;
            lower
        } else {
            let mut lower = Lower::sample(domain, draw, feminine);
            if contrast(lower.colour, upper.cloth.base) < 0.04 {
                lower.colour = shift(
                    lower.colour,
                    0.0,
                    1.0,
                    if draw.chance(0.5) { 1.5 } else { 0.75 },
                );
                lower.cloth.base = lower.colour;
            }
            lower
        };
        let headwear = draw.weighted(&[
            (Headwear::None, 8.0),
            (Headwear::Cap, 1.1),
            (Headwear::Beanie, 2.2 * cold * cold),
            (Headwear::Hat, 0.35),
            (
                Headwear::Hood,
                if matches!(upper.cut, Cut::Hoodie | Cut::Jacket) {
                    0.9
                } else {
                    0.0
                },
            ),
            (Headwear::Headscarf, if feminine { 0.9 } else { 0.0 }),
        ]);
        let headwear_colour = match headwear {
            Headwear::Hood => scale(upper.cloth.base, 0.94),
            _ => domain.colour(draw, Role::Accessory),
        };
        let sole = if draw.chance(0.45) {
            hex(0xd9d8d3)
        } else {
            hex(0x1c1b1a)
        };
        let shoes = Shoes {
            colour: domain.colour(draw, Role::Shoe),
            sole,
            shaft: if draw.chance(0.12 + 0.22 * cold) {
                draw.range(0.09, if feminine { 0.24 } else { 0.13 })
            } else {
                0.0
            },
        };
        let bag = Bag::sample(domain, draw, feminine);
        let gait = Gait::sample(draw, &bag);
        Self {
            body,
            skin,
            hair,
            hair_colour,
            hair_length: draw.range(0.3, 0.6),
            beard: if !feminine && draw.chance(0.3) {
                draw.range(0.4, 1.0)
            } else {
                0.0
            },
            glasses: draw
                .chance(0.22)
                .then(|| draw.pick(&[hex(0x0b0b0c), hex(0x0b0b0c), hex(0x55504a)])),
            headwear,
            headwear_colour,
            scarf: draw
                .chance(0.05 + 0.3 * cold * cold)
                .then(|| domain.colour(draw, Role::Accent)),
            belt: (upper.hem > 0.49 && draw.chance(0.6)).then(|| hex(0x1b1613)),
            upper,
            lower,
            shoes,
            bag,
            gait,
        }
    }

    /// A near-twin: this person with one thing changed, large enough to be seen by somebody who looks.
    ///
    /// Body, skin and hair are drawn again only a little: two colleagues in the same uniform.
    pub fn twin(&self, domain: Domain, seed: u64) -> Self {
        let draw = &mut Draw::new(seed, &[path::TWIN, domain.code()]);
        let mut twin = self.clone();
        twin.body.height = (twin.body.height + draw.normal(0.0, 0.02)).clamp(1.48, 2.0);
        match draw.int(0, 5) {
            0 => {
                twin.bag = if self.bag.kind == BagKind::None {
                    loop {
                        let bag = Bag::sample(domain, draw, true);
                        if bag.kind != BagKind::None {
                            break bag;
                        }
                    }
                } else {
                    Bag {
                        kind: BagKind::None,
                        ..self.bag
                    }
                };
                twin.gait.arms = Gait::sample(draw, &twin.bag).arms;
            }
            1 => {
                let light = crate::colour::luminance(self.shoes.colour) > 0.2;
                twin.shoes.colour = hex(if light { 0x18181a } else { 0xe6e5e2 });
                twin.shoes.sole = hex(if light { 0x18181a } else { 0xd9d8d3 });
            }
            2 => {
                twin.upper.cloth.pattern = if self.upper.cloth.pattern == Pattern::Plain {
                    loop {
                        let pattern = Pattern::sample(draw, 1.0);
                        if pattern != Pattern::Plain {
                            break pattern;
                        }
                    }
                } else {
                    Pattern::Plain
                };
            }
            3 => {
                let darker = crate::colour::luminance(self.lower.colour) > 0.1;
                let target = if darker { hex(0x1b1c20) } else { hex(0x8d8a80) };
                twin.lower.colour = mix(self.lower.colour, target, 0.75);
                twin.lower.cloth = Cloth::plain(twin.lower.colour);
            }
            4 => {
                twin.hair = match self.hair {
                    HairStyle::Long | HairStyle::Bob | HairStyle::Curly => HairStyle::Short,
                    _ => HairStyle::Long,
                };
                if self.headwear == Headwear::None {
                    twin.headwear = Headwear::Cap;
                } else {
                    twin.headwear = Headwear::None;
                }
            }
            _ => {
                let mut fresh = Cloth::sample(domain, draw, Role::Accent, 0.0).base;
                for _ in 0..6 {
                    if contrast(fresh, self.upper.cloth.base) > 0.3 {
                        break;
                    }
                    fresh = domain.colour(draw, Role::Accent);
                }
                twin.upper.sleeve_colour = Some(fresh);
                twin.upper.inner.base = fresh;
            }
        }
        twin
    }

    /// What many people share: the names of the colours above and below the waist. A dress is both.
    pub fn attributes(&self) -> String {
        let upper = colour::name(self.upper.cloth.base);
        let lower = match self.upper.cut {
            Cut::Dress => upper,
            _ => colour::name(self.lower.colour),
        };
        format!("{upper} above {lower}")
    }

    /// A few words for `world.json`.
    pub fn describe(&self) -> String {
        let name = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
        let mut words = vec![
            name(&self.hair),
            name(&self.upper.cut),
            name(&self.lower.cut),
        ];
        if self.headwear != Headwear::None {
            words.push(name(&self.headwear));
        }
        if self.bag.kind != BagKind::None {
            words.push(name(&self.bag.kind));
        }
        words.join(" ")
    }
}

impl Body {
    fn sample(draw: &mut Draw, feminine: bool) -> Self {
        let height = if feminine {
            draw.normal(1.65, 0.065)
        } else {
            draw.normal(1.77, 0.07)
        };
        // -1 slight .. 1 heavy
        let build = draw.normal(0.0, 0.55).clamp(-1.0, 1.4);
        Self {
            height: height.clamp(1.48, 2.0),
            leg: draw.normal(0.515, 0.014),
            shoulder: if feminine { 0.094 } else { 0.108 }
                * (1.0 + 0.06 * build)
                * draw.normal(1.0, 0.03),
            hip: if feminine { 0.1 } else { 0.093 } * (1.0 + 0.13 * build) * draw.normal(1.0, 0.03),
            waist: if feminine { 0.078 } else { 0.086 } * (1.0 + 0.24 * build.max(-0.5)),
            chest: if feminine { 0.068 } else { 0.069 } * (1.0 + 0.16 * build),
            belly: 0.058 * (1.0 + 0.42 * build.max(-0.4)),
            limb: (1.0 + 0.17 * build) * draw.normal(1.0, 0.04),
            head: draw.normal(1.0, 0.035),
        }
    }
}

impl Bag {
    fn sample(domain: Domain, draw: &mut Draw, feminine: bool) -> Self {
        let f = if feminine { 1.0 } else { 0.0 };
        let travel = if domain == Domain::Station { 1.0 } else { 0.08 };
        let shop = if domain == Domain::Mall { 1.1 } else { 0.3 };
        let kind = draw.weighted(&[
            (BagKind::None, 3.6),
            (BagKind::Backpack, 2.2),
            (BagKind::Crossbody, 1.0),
            (BagKind::Shoulder, 0.4 + 1.1 * f),
            (BagKind::Handbag, 0.3 + 0.6 * f),
            (BagKind::Shopping, shop),
            (BagKind::Trolley, travel),
        ]);
        let role = if draw.chance(0.4) {
            Role::Accent
        } else {
            Role::Accessory
        };
        let mut colour = domain.colour(draw, role);
        if kind == BagKind::Shopping && draw.chance(0.6) {
            colour = hex(draw.pick(&[0xe9e7e0, 0xc79f6b, 0xd9d4c4]));
        }
        Self {
            kind,
            colour,
            trim: if draw.chance(0.4) {
                domain.colour(draw, Role::Accent)
            } else {
                scale(colour, 0.6)
            },
            right: draw.chance(0.5),
            size: draw.normal(1.0, 0.12),
        }
    }
}

impl Gait {
    fn sample(draw: &mut Draw, bag: &Bag) -> Self {
        let habit = |draw: &mut Draw| {
            draw.weighted(&[
                (ArmHabit::Swing, 5.0),
                (ArmHabit::Pocket, 0.9),
                (ArmHabit::Phone, 0.7),
            ])
        };
        let mut arms = [habit(draw), habit(draw)];
        if arms == [ArmHabit::Phone; 2] {
            arms[1] = ArmHabit::Swing;
        }
        let busy = usize::from(!bag.right);
        match bag.kind {
            BagKind::Handbag | BagKind::Shopping => arms[busy] = ArmHabit::Carry,
            BagKind::Trolley => arms[busy] = ArmHabit::Draw,
            _ => {}
        }
        Self {
            swing: draw.range(0.32, 0.52),
            arm: draw.range(0.18, 0.5),
            lean: draw.normal(0.03, 0.025),
            speed: draw.normal(1.35, 0.15),
            arms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_person() {
        assert_eq!(
            Person::sample(Domain::Mall, 4),
            Person::sample(Domain::Mall, 4)
        );
        assert_ne!(
            Person::sample(Domain::Mall, 4),
            Person::sample(Domain::Mall, 5)
        );
        assert_ne!(
            Person::sample(Domain::Mall, 4),
            Person::sample(Domain::Street, 4)
        );
    }

    #[test]
    fn a_twin_differs_and_keeps_the_body() {
        for seed in 0..60 {
            let person = Person::sample(Domain::Street, seed);
            let twin = person.twin(Domain::Street, seed);
            assert_ne!(person, twin);
            assert_eq!(person.skin, twin.skin);
            assert_eq!(person.body.shoulder, twin.body.shoulder);
            let changes = [
                person.bag != twin.bag,
                person.shoes != twin.shoes,
                person.upper != twin.upper,
                person.lower != twin.lower,
                person.hair != twin.hair || person.headwear != twin.headwear,
            ];
            assert_eq!(changes.iter().filter(|&&c| c).count(), 1, "seed {seed}");
        }
    }

    #[test]
    fn bodies_are_human() {
        for seed in 0..500 {
            let body = Person::sample(Domain::Station, seed).body;
            assert!((1.48..=2.0).contains(&body.height));
            assert!((0.46..0.57).contains(&body.leg), "{body:?}");
            assert!((0.07..0.14).contains(&body.shoulder), "{body:?}");
        }
    }

    #[test]
    fn winter_has_more_coats_than_summer() {
        let coats = |domain| {
            (0..400)
                .filter(|&seed| Person::sample(domain, seed).upper.cut == Cut::Coat)
                .count()
        };
        assert!(coats(Domain::Station) > 4 * coats(Domain::Mall).max(1));
    }
}
