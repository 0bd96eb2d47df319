//! Surfaces: the albedo of a point of a body part, bag or prop.

use std::f32::consts::{FRAC_PI_2, PI};

use crate::colour::{Rgb, fract, mix, noise, scale};
use crate::garment::{Lower, LowerCut};
use crate::pattern::wrap;
use crate::person::{Bag, BagKind, HairStyle, Headwear, Person, Shoes};

/// A point of a part.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    /// Angle around the body, radians: 0 right, pi/2 front, -pi/2 back (not wrapped).
    pub theta: f32,
    /// Metres along the part.
    pub z: f32,
    /// Share along the part, 0..1.
    pub v: f32,
    /// Position across the part, -1..1.
    pub t: f32,
    /// How far the surface faces down on the canvas, -1..1.
    pub down: f32,
}

/// What a part is made of.
#[derive(Debug, Clone, Copy)]
pub enum Surface<'a> {
    /// One colour.
    Flat(Rgb),
    /// Trunk in its upper garment.
    Trunk(&'a Person),
    /// Sleeve and bare arm; the number is metres already above this part.
    Arm(&'a Person, f32),
    /// Trouser leg and bare leg: side (+1 right, -1 left), height of the part's start and end in metres.
    Leg(&'a Person, f32, [f32; 2]),
    /// Seat of the trousers, or a skirt.
    Seat(&'a Person),
    /// Head with hair, face and headwear.
    Head(&'a Person),
    /// Hanging hair.
    Mane(Rgb),
    /// Shoe with its sole.
    Shoe(&'a Shoes),
    /// Bag with pocket or flap.
    Bag(&'a Bag),
    /// Leaves.
    Leaves(Rgb, u32),
    /// Two colours in turn along the part: bollards, barriers.
    Bands(Rgb, Rgb, f32),
}

impl Surface<'_> {
    /// Albedo at a point.
    pub fn albedo(&self, p: &Point) -> Rgb {
        match *self {
            Self::Flat(colour) => colour,
            Self::Trunk(person) => trunk(person, p),
            Self::Arm(person, above) => arm(person, p, above),
            Self::Leg(person, side, heights) => leg(person, p, side, heights),
            Self::Seat(person) => seat(person, p),
            Self::Head(person) => head(person, p),
            Self::Mane(colour) => scale(colour, 0.9 + 0.25 * noise(p.t * 5.0, p.v * 2.0, 9)),
            Self::Shoe(shoes) => {
                if p.down > 0.42 {
                    shoes.sole
                } else {
                    shoes.colour
                }
            }
            Self::Bag(bag) => bag_albedo(bag, p),
            Self::Leaves(colour, salt) => {
                scale(colour, 0.75 + 0.6 * noise(p.t * 4.0, p.v * 7.0, salt))
            }
            Self::Bands(a, b, period) => {
                if fract(p.z / period) < 0.5 {
                    a
                } else {
                    b
                }
            }
        }
    }
}

fn trunk(person: &Person, p: &Point) -> Rgb {
    let theta = wrap(p.theta);
    let front = wrap(theta - FRAC_PI_2);
    match person.bag.kind {
        BagKind::Backpack if p.z > 0.0 && p.z < 0.36 && (front.abs() - 0.62).abs() < 0.15 => {
            return scale(person.bag.colour, 0.85);
        }
        BagKind::Crossbody => {
            // From the shoulder opposite to the bag down to its hip, in front and behind.
            let x = theta.cos() * if person.bag.right { -1.0 } else { 1.0 };
            if (p.z - (0.28 - 0.34 * x)).abs() < 0.035 {
                return scale(person.bag.colour, 0.85);
            }
        }
        BagKind::Shoulder => {
            let x = theta.cos() * if person.bag.right { 1.0 } else { -1.0 };
            if (0.62..0.78).contains(&x) && p.z < 0.3 {
                return scale(person.bag.colour, 0.85);
            }
        }
        _ => {}
    }
    if let Some(scarf) = person.scarf
        && (p.z < 0.075 || (p.z < 0.34 && (front - 0.22).abs() < 0.17))
    {
        return scale(scarf, if fract(p.z * 60.0) < 0.2 { 0.8 } else { 1.0 });
    }
    person.upper.albedo(theta, p.z)
}

fn arm(person: &Person, p: &Point, above: f32) -> Rgb {
    let z = above + p.z;
    let sleeve = person.upper.sleeve * 0.335 * person.body.height;
    if z < sleeve {
        person.upper.sleeve_albedo(p.theta, z)
    } else {
        person.skin
    }
}

fn leg(person: &Person, p: &Point, side: f32, heights: [f32; 2]) -> Rgb {
    let height = (heights[0] + (heights[1] - heights[0]) * p.v) / person.body.height;
    let lower = &person.lower;
    let shaft = person.shoes.shaft;
    if height < shaft && (height < lower.hem || lower.cut == LowerCut::Leggings || lower.ease < 1.2)
    {
        return person.shoes.colour;
    }
    if height < lower.hem || lower.cut == LowerCut::Skirt {
        // A skirt is its own part; below it the leg is bare.
        return person.skin;
    }
    trouser(lower, p.theta, height, side)
}

fn trouser(lower: &Lower, theta: f32, height: f32, side: f32) -> Rgb {
    let outer = if side > 0.0 { 0.0 } else { PI };
    if let Some(stripe) = lower.stripe
        && wrap(theta - outer).abs() < 0.5
    {
        return stripe;
    }
    let mut colour = lower.cloth.weave(theta * 0.5, 1.7 * (0.6 - height));
    if lower.fade > 0.0 {
        let front = wrap(theta - FRAC_PI_2).abs();
        let thigh = (1.0 - ((height - 0.36) / 0.1).powi(2)).max(0.0) * (1.0 - front / 1.2).max(0.0);
        colour = mix(colour, [0.5, 0.56, 0.64], lower.fade * 0.6 * thigh);
    }
    if lower.torn && wrap(theta - FRAC_PI_2).abs() < 0.6 && (height - 0.29).abs() < 0.022 {
        colour = [0.5, 0.4, 0.34];
    }
    colour
}

fn seat(person: &Person, p: &Point) -> Rgb {
    if let Some(belt) = person.belt
        && p.z < 0.05
    {
        return belt;
    }
    let lower = &person.lower;
    let theta = wrap(p.theta);
    if lower.cut == LowerCut::Skirt {
        return lower.cloth.weave(theta, p.z);
    }
    let side = if theta.abs() < FRAC_PI_2 { 1.0 } else { -1.0 };
    trouser(lower, theta, 0.55 - p.z / person.body.height, side)
}

fn head(person: &Person, p: &Point) -> Rgb {
    let theta = wrap(p.theta);
    let front = wrap(theta - FRAC_PI_2);
    let side = front.abs();
    let v = p.v;
    match person.headwear {
        Headwear::Hood if side > 0.85 || v < 0.2 => return person.headwear_colour,
        Headwear::Headscarf if side > 0.8 || !(0.24..=0.93).contains(&v) => {
            return person.headwear_colour;
        }
        Headwear::Cap if v < 0.34 => return person.headwear_colour,
        Headwear::Beanie if v < 0.42 => {
            return scale(person.headwear_colour, if v > 0.32 { 0.8 } else { 1.0 });
        }
        Headwear::Hat if v < 0.36 => {
            return scale(person.headwear_colour, if v > 0.29 { 0.45 } else { 1.0 });
        }
        _ => {}
    }
    let hairline = match person.hair {
        HairStyle::Bald => -1.0,
        HairStyle::Short => {
            if side < 1.0 {
                0.24 + 0.05 * side
            } else if side < 1.9 {
                0.3 + 0.22 * (side - 1.0)
            } else {
                0.72
            }
        }
        HairStyle::Bun | HairStyle::Ponytail => {
            if side < 1.0 {
                0.25 + 0.06 * side
            } else if side < 1.8 {
                0.42
            } else {
                0.75
            }
        }
        HairStyle::Bob | HairStyle::Long | HairStyle::Curly => {
            if side < 0.62 {
                0.26 + 0.1 * side
            } else if side < 0.95 {
                0.32 + 2.2 * (side - 0.62)
            } else {
                1.2
            }
        }
    };
    if v < hairline {
        let strands = 0.92 + 0.22 * noise(p.t * 4.0, v * 6.0, 5);
        return scale(person.hair_colour, strands);
    }
    if side < 1.15 {
        if let Some(glasses) = person.glasses
            && (0.43..0.56).contains(&v)
            && (side > 0.1 || v < 0.47)
        {
            return glasses;
        }
        if (0.445..0.54).contains(&v) && (side - 0.4).abs() < 0.17 {
            return scale(person.skin, 0.3);
        }
        if (0.385..0.425).contains(&v) && (side - 0.4).abs() < 0.23 {
            return mix(person.skin, person.hair_colour, 0.6);
        }
        if (0.5..0.66).contains(&v) && side < 0.11 {
            return scale(person.skin, 0.86);
        }
        if (0.755..0.8).contains(&v) && side < 0.27 {
            return [
                person.skin[0] * 0.66,
                person.skin[1] * 0.4,
                person.skin[2] * 0.4,
            ];
        }
        if v > 0.68 && person.beard > 0.0 {
            return mix(person.skin, person.hair_colour, person.beard * 0.85);
        }
    } else if side < 1.75 && v > 0.62 && person.beard > 0.5 {
        return mix(person.skin, person.hair_colour, 0.6);
    }
    person.skin
}

fn bag_albedo(bag: &Bag, p: &Point) -> Rgb {
    match bag.kind {
        BagKind::Backpack => {
            let pocket = p.v > 0.52 && p.v < 0.86 && p.t.abs() < 0.68;
            let zip = (p.v - 0.3).abs() < 0.025 && p.t.abs() < 0.7;
            if pocket {
                bag.trim
            } else if zip {
                scale(bag.colour, 0.5)
            } else {
                bag.colour
            }
        }
        BagKind::Trolley => {
            if fract(p.t * 2.5) < 0.25 {
                scale(bag.colour, 0.6)
            } else {
                bag.colour
            }
        }
        BagKind::Shopping => {
            if p.v > 0.35 && p.v < 0.65 && p.t.abs() < 0.5 {
                bag.trim
            } else {
                bag.colour
            }
        }
        _ => {
            if p.v < 0.42 {
                bag.trim
            } else {
                bag.colour
            }
        }
    }
}
