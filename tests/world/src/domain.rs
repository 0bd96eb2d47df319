//! Domains: what people wear, where they walk and what the cameras are like.
//!
//! A domain is a distribution, not a data set: two worlds of one domain and different seeds share no
//! person and no camera. Adaptation (UDA) goes from one domain to another.

use crate::colour::{Rgb, hex, shift};
use crate::seed::Draw;

/// A distribution of people, places and cameras.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Domain {
    /// Outdoors in spring and autumn: sun and shade, facades, asphalt; the default.
    Street,
    /// A shopping centre in summer: shops, shelves, polished tiles, mixed lamps.
    Mall,
    /// A railway station in winter: coats, scarves, hats, trolleys, cold or sodium light.
    Station,
}

/// What a colour is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Shirts, jackets, coats.
    Upper,
    /// Trousers, skirts.
    Lower,
    /// Shoes.
    Shoe,
    /// Bags, hats, scarves.
    Accessory,
    /// Second colours: stripes, prints, blocks.
    Accent,
}

/// Colour names are for `world.json`; the codes are sRGB albedos seen in street photographs' order of
/// frequency: most people wear black, grey, navy, white, so colour alone tells few of them apart.
const CLOTH: [(u32, f32); 26] = [
    (0x17171a, 2.6),  // black
    (0x26272b, 1.6),  // washed black
    (0x3b3d42, 1.2),  // charcoal
    (0x1c2438, 1.5),  // navy
    (0x2c3a58, 0.7),  // dark blue
    (0x7b7e83, 0.9),  // grey
    (0xa9acb0, 0.6),  // light grey
    (0xe6e5e1, 1.2),  // white
    (0xcfc8b8, 0.4),  // off-white
    (0xb09a78, 0.45), // beige
    (0x8a6a48, 0.3),  // tan
    (0x4a3728, 0.35), // brown
    (0x3c4432, 0.4),  // olive
    (0x5c6650, 0.2),  // sage
    (0x33566b, 0.25), // petrol
    (0x4d7fb5, 0.35), // sky blue
    (0x2f55a0, 0.3),  // royal blue
    (0x8c1f2a, 0.3),  // burgundy
    (0xc0302c, 0.3),  // red
    (0xd9702c, 0.12), // orange
    (0xd8b13a, 0.14), // mustard
    (0x2f7d4f, 0.15), // green
    (0xd898a8, 0.22), // pink
    (0x77508c, 0.12), // purple
    (0x9fc3d8, 0.2),  // pale blue
    (0xb9d0ae, 0.1),  // mint
];

const DENIM: [(u32, f32); 5] = [
    (0x232c40, 1.0),
    (0x34435f, 1.2),
    (0x506689, 1.0),
    (0x7d93b0, 0.5),
    (0x1d1f26, 0.8),
];

const SHOES: [(u32, f32); 9] = [
    (0x161618, 3.0),
    (0xe8e8e6, 2.2),
    (0x4a3222, 0.9),
    (0x6a6c70, 0.8),
    (0x24304c, 0.6),
    (0xa8845c, 0.5),
    (0xb02a2e, 0.3),
    (0xc9c4ba, 0.5),
    (0x3f6f8c, 0.2),
];

impl Domain {
    /// Every domain, the default first.
    pub const ALL: [Self; 3] = [Self::Street, Self::Mall, Self::Station];

    /// The name used on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Street => "street",
            Self::Mall => "mall",
            Self::Station => "station",
        }
    }

    /// The domain of that name.
    ///
    /// # Errors
    /// An unknown name; the message lists the known ones.
    pub fn parse(name: &str) -> anyhow::Result<Self> {
        Self::ALL
            .into_iter()
            .find(|domain| domain.name() == name)
            .ok_or_else(|| crate::usage("--domain", name, &Self::ALL.map(Self::name).join(", ")))
    }

    /// A number for seeding, stable across versions.
    pub(crate) fn code(self) -> u64 {
        match self {
            Self::Street => 101,
            Self::Mall => 202,
            Self::Station => 303,
        }
    }

    /// How warmly people dress, 0 (summer) to 1 (winter).
    pub fn cold(self) -> f32 {
        match self {
            Self::Street => 0.45,
            Self::Mall => 0.12,
            Self::Station => 0.95,
        }
    }

    /// True where the sun can reach.
    pub fn outdoors(self) -> bool {
        self == Self::Street
    }

    /// Draws a colour for `role`.
    pub fn colour(self, draw: &mut Draw, role: Role) -> Rgb {
        let code = match role {
            Role::Shoe => draw.weighted(&SHOES),
            Role::Lower if draw.chance(0.42) => draw.weighted(&DENIM),
            _ => {
                let dark = match (self, role) {
                    (Self::Station, Role::Upper) => 1.5,
                    (_, Role::Lower) => 1.6,
                    (_, Role::Accent) => 0.35,
                    (_, Role::Accessory) => 0.9,
                    (Self::Mall, Role::Upper) => 0.55,
                    _ => 0.9,
                };
                let bright = match role {
                    Role::Lower => 0.35,
                    Role::Accent => 1.6,
                    _ if self == Self::Mall => 1.35,
                    _ => 1.0,
                };
                let table: Vec<(u32, f32)> = CLOTH
                    .iter()
                    .enumerate()
                    .map(|(i, &(code, weight))| (code, weight * if i < 5 { dark } else { bright }))
                    .collect();
                draw.weighted(&table)
            }
        };
        // Two black coats are never the same black.
        shift(
            hex(code),
            draw.normal(0.0, 0.012),
            draw.range(0.8, 1.2),
            draw.range(0.82, 1.18),
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::colour::luminance;

    #[test]
    fn names_round_trip_and_an_unknown_one_lists_the_known() {
        for domain in Domain::ALL {
            assert_eq!(Domain::parse(domain.name()).unwrap(), domain);
        }
        let message = Domain::parse("moon").unwrap_err().to_string();
        assert!(message.contains("moon") && message.contains("street, mall, station"));
    }

    #[test]
    fn most_clothes_are_dark() {
        let mut draw = Draw::new(3, &[]);
        let dark = (0..2000)
            .filter(|_| luminance(Domain::Street.colour(&mut draw, Role::Upper)) < 0.06)
            .count();
        assert!((800..1500).contains(&dark), "{dark} of 2000");
    }
}
