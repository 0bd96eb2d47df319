//! Garments: what covers which part of a body. Their cloth is in [`crate::pattern`].

use std::f32::consts::FRAC_PI_2;

use crate::colour::{Rgb, fract, scale};
use crate::domain::{Domain, Role};
use crate::pattern::{Cloth, Pattern, contrast, wrap};
use crate::seed::Draw;

/// Cut of the upper garment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// Short sleeves, hem at the hip.
    TShirt,
    /// Long sleeves, collar, button line.
    Shirt,
    /// Long sleeves, ribbed hem.
    Sweater,
    /// A hood behind the neck, front pocket.
    Hoodie,
    /// Hem at the hip, zip line or open over another cloth.
    Jacket,
    /// Suit jacket, open in a V over shirt (and tie).
    Blazer,
    /// Hem between mid-thigh and knee.
    Coat,
    /// Sleeveless quilted body over the sleeves of another cloth.
    Vest,
    /// Upper and skirt in one.
    Dress,
    /// Fluorescent vest with reflective bands.
    HiVis,
}

/// The upper garment.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Upper {
    /// Its cut.
    pub cut: Cut,
    /// Its cloth.
    pub cloth: Cloth,
    /// The cloth under it, seen where it is open, at the neck, and as the sleeves of a vest.
    pub inner: Cloth,
    /// Half-angle (radians) of the front opening; 0 is closed.
    pub open: f32,
    /// Sleeve length, 0 (none) to 1 (wrist).
    pub sleeve: f32,
    /// Colour of the sleeves when it is not the cloth's.
    pub sleeve_colour: Option<Rgb>,
    /// Hem, as a share of body height above the ground.
    pub hem: f32,
    /// Thickness of the cloth, 1 is skin-tight.
    pub ease: f32,
    /// Light bands of down jackets: period in metres, 0 for none.
    pub quilt: f32,
}

impl Upper {
    /// Draws an upper garment.
    pub fn sample(domain: Domain, draw: &mut Draw, feminine: bool) -> Self {
        let cold = domain.cold();
        let dress = if feminine { 1.2 } else { 0.0 };
        let cut = draw.weighted(&[
            (Cut::TShirt, 4.0 * (1.0 - cold)),
            (Cut::Shirt, 2.0 - cold),
            (Cut::Sweater, 0.4 + 1.4 * cold),
            (Cut::Hoodie, 0.5 + 1.2 * cold),
            (Cut::Jacket, 0.4 + 2.6 * cold),
            (Cut::Blazer, 0.6 + 0.5 * cold),
            (Cut::Coat, 0.05 + 2.4 * cold * cold),
            (Cut::Vest, 0.15 + 0.6 * cold),
            (Cut::Dress, dress * (1.1 - cold)),
            (Cut::HiVis, 0.12),
        ]);
        let fancy = match cut {
            Cut::TShirt | Cut::Sweater | Cut::Dress => 1.35,
            Cut::Shirt => 1.0,
            Cut::Hoodie | Cut::Jacket => 0.9,
            Cut::Vest => 0.6,
            Cut::Blazer | Cut::Coat => 0.3,
            Cut::HiVis => 0.0,
        };
        let mut cloth = Cloth::sample(domain, draw, Role::Upper, fancy);
        let mut inner = Cloth::sample(domain, draw, Role::Upper, 0.6);
        for _ in 0..4 {
            if contrast(inner.base, cloth.base) > 0.15 {
                break;
            }
            inner = Cloth::sample(domain, draw, Role::Accent, 0.6);
        }
        if cut == Cut::Dress {
            cloth.print = None;
        }
        if cut == Cut::Shirt {
            cloth.print = None;
        }
        if cut == Cut::HiVis {
            cloth = Cloth::plain(
                draw.pick(&[crate::colour::hex(0xd8e02a), crate::colour::hex(0xe8701c)]),
            );
        }
        let (hem, ease, sleeve, open): (f32, f32, f32, f32) = match cut {
            Cut::TShirt => (
                draw.range(0.47, 0.51),
                draw.range(1.02, 1.12),
                draw.range(0.28, 0.5),
                0.0,
            ),
            Cut::Shirt => (
                draw.range(0.46, 0.51),
                draw.range(1.04, 1.12),
                draw.pick(&[0.45, 1.0, 1.0]),
                0.0,
            ),
            Cut::Sweater => (draw.range(0.46, 0.51), draw.range(1.08, 1.16), 1.0, 0.0),
            Cut::Hoodie => (draw.range(0.45, 0.5), draw.range(1.1, 1.2), 1.0, 0.0),
            Cut::Jacket => {
                let open = if draw.chance(0.4) {
                    draw.range(0.25, 0.6)
                } else {
                    0.0
                };
                (draw.range(0.44, 0.5), draw.range(1.1, 1.28), 1.0, open)
            }
            Cut::Blazer => (
                draw.range(0.43, 0.47),
                draw.range(1.08, 1.16),
                1.0,
                draw.range(0.2, 0.35),
            ),
            Cut::Coat => {
                let open = if draw.chance(0.35) {
                    draw.range(0.2, 0.45)
                } else {
                    0.0
                };
                (draw.range(0.27, 0.42), draw.range(1.12, 1.26), 1.0, open)
            }
            Cut::Vest | Cut::HiVis => (draw.range(0.45, 0.49), draw.range(1.14, 1.26), 1.0, 0.0),
            Cut::Dress => (
                draw.range(0.2, 0.38),
                draw.range(1.0, 1.08),
                draw.pick(&[0.0, 0.3, 1.0]),
                0.0,
            ),
        };
        let sleeve_colour = match cut {
            Cut::TShirt | Cut::Jacket | Cut::Sweater | Cut::Hoodie if draw.chance(0.14) => {
                Some(cloth.second)
            }
            _ => None,
        };
        let quilt = if matches!(cut, Cut::Vest | Cut::Jacket | Cut::Coat)
            && draw.chance(0.3 * cold + 0.1)
        {
            draw.range(0.06, 0.1)
        } else {
            0.0
        };
        Self {
            cut,
            cloth,
            inner,
            open,
            sleeve,
            sleeve_colour,
            hem,
            ease,
            quilt,
        }
    }

    /// Albedo of the torso at `theta`, `z` (metres below the collar).
    pub fn albedo(&self, theta: f32, z: f32) -> Rgb {
        let front = wrap(theta - FRAC_PI_2);
        let side = front.abs();
        if self.open > 0.0 {
            // A blazer closes in a V at the waist; a jacket hangs open to the hem.
            let width = if self.cut == Cut::Blazer {
                (self.open * (1.0 - z / 0.34)) * 1.6
            } else {
                self.open * (0.75 + 0.6 * z)
            };
            if side < width {
                if self.cut == Cut::Blazer && side < 0.13 {
                    return self.inner.second;
                }
                return self.inner.albedo(theta, z);
            }
            if side < width + 0.13 && z < 0.3 {
                return scale(self.cloth.base, 0.72);
            }
        } else if side < 0.09
            && matches!(
                self.cut,
                Cut::Jacket | Cut::Coat | Cut::Vest | Cut::Shirt | Cut::HiVis
            )
        {
            return scale(self.cloth.base, 0.6);
        }
        match self.cut {
            Cut::HiVis => {
                let bands = (z > 0.2 && z < 0.25) || (z > 0.33 && z < 0.38);
                let braces = z < 0.22 && (side - 0.7).abs() < 0.14;
                if bands || braces {
                    return [0.72, 0.73, 0.74];
                }
            }
            Cut::Hoodie if front.abs() < 0.75 && z > 0.36 && z < 0.375 => {
                return scale(self.cloth.base, 0.6);
            }
            Cut::Sweater if z > 0.62 * (1.0 - self.hem) => return scale(self.cloth.base, 0.8),
            _ => {}
        }
        let neckline = match self.cut {
            Cut::TShirt | Cut::Dress => 0.02,
            Cut::Shirt => 0.0,
            _ => 0.03,
        };
        if side < 0.5 && z < neckline + 0.035 * (1.0 - side * 2.0) {
            return self.inner.base;
        }
        let mut colour = self.cloth.albedo(theta, z);
        if self.quilt > 0.0 && fract(z / self.quilt) < 0.22 {
            colour = scale(colour, 0.62);
        }
        colour
    }

    /// Albedo of a sleeve at `theta`, `z` metres below the shoulder.
    pub fn sleeve_albedo(&self, theta: f32, z: f32) -> Rgb {
        match self.cut {
            Cut::Vest | Cut::HiVis => self.inner.weave(theta, z),
            _ => match self.sleeve_colour {
                Some(colour) => colour,
                None => match self.cloth.pattern {
                    // A yoke or band ends at the arm; the sleeve keeps the first colour.
                    Pattern::Yoke { .. } | Pattern::Band { .. } | Pattern::Flanks => {
                        self.cloth.base
                    }
                    _ => self.cloth.weave(theta * 0.4, z),
                },
            },
        }
    }
}

/// Cut of the lower garment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LowerCut {
    /// Straight trousers.
    Trousers,
    /// Jeans, lighter on the thighs.
    Jeans,
    /// Close to the leg.
    Leggings,
    /// Wide legs.
    Wide,
    /// Above the knee.
    Shorts,
    /// A skirt.
    Skirt,
}

/// The lower garment.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Lower {
    /// Its cut.
    pub cut: LowerCut,
    /// Main colour.
    pub colour: Rgb,
    /// A stripe along the outer seam.
    pub stripe: Option<Rgb>,
    /// Pattern of skirts and some trousers.
    pub cloth: Cloth,
    /// Where the cloth ends, as a share of body height above the ground.
    pub hem: f32,
    /// Width of the leg, 1 is the leg itself.
    pub ease: f32,
    /// Lighter thighs, 0..1.
    pub fade: f32,
    /// Knees torn open or patched.
    pub torn: bool,
}

impl Lower {
    /// Draws a lower garment.
    pub fn sample(domain: Domain, draw: &mut Draw, feminine: bool) -> Self {
        let cold = domain.cold();
        let f = if feminine { 1.0 } else { 0.0 };
        let cut = draw.weighted(&[
            (LowerCut::Trousers, 2.4),
            (LowerCut::Jeans, 2.2),
            (LowerCut::Leggings, 0.15 + 1.2 * f),
            (LowerCut::Wide, 0.4 + 0.4 * f),
            (LowerCut::Shorts, 1.9 * (1.0 - cold)),
            (LowerCut::Skirt, 1.5 * f * (1.1 - 0.7 * cold)),
        ]);
        let mut cloth = Cloth::sample(
            domain,
            draw,
            Role::Lower,
            if cut == LowerCut::Skirt { 1.1 } else { 0.16 },
        );
        cloth.print = None;
        let colour = cloth.base;
        let (hem, ease) = match cut {
            LowerCut::Trousers => (draw.range(0.035, 0.06), draw.range(1.15, 1.4)),
            LowerCut::Jeans => (draw.range(0.03, 0.075), draw.range(1.08, 1.3)),
            LowerCut::Leggings => (draw.range(0.05, 0.12), 1.0),
            LowerCut::Wide => (draw.range(0.02, 0.08), draw.range(1.5, 1.9)),
            LowerCut::Shorts => (draw.range(0.27, 0.36), draw.range(1.25, 1.6)),
            LowerCut::Skirt => (draw.range(0.1, 0.37), draw.range(1.0, 1.35)),
        };
        Self {
            cut,
            colour,
            stripe: (cut != LowerCut::Skirt && draw.chance(0.09))
                .then(|| domain.colour(draw, Role::Accent)),
            cloth,
            hem,
            ease,
            fade: if cut == LowerCut::Jeans {
                draw.range(0.1, 0.6)
            } else {
                0.0
            },
            torn: cut == LowerCut::Jeans && draw.chance(0.1),
        }
    }
}
