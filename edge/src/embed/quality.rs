//! Whether a look at a person is worth embedding.
//!
//! "Far from everyone" is also the signature of a bad crop: a cut-off, hidden or smeared person would become a new
//! identity. So such crops are refused before they are embedded.

use reid_models::card::InputSpec;
use reid_models::picture::{Picture, Pixels};
use reid_models::preprocess::Preprocess;

use crate::config::CropsConfig;
use crate::types::Ltrb;

/// Why a crop is not embedded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rejected {
    /// Lower than `crops.min_height`.
    Small,
    /// Cut off by the left or right edge of the frame.
    CutOff,
    /// Too much of it is behind somebody else.
    Hidden,
    /// Too blurred.
    Blurred,
}

/// Height and width at which sharpness is compared.
const COMMON: (usize, usize) = (128, 64);

/// Judges crops.
pub struct Judge {
    config: CropsConfig,
    common_size: Preprocess,
}

impl Judge {
    /// A judge by these rules.
    pub fn new(config: CropsConfig) -> Self {
        Judge {
            config,
            // Sharpness is compared at one size, or large people would always look blurred.
            common_size: Preprocess::new(&InputSpec::imagenet(COMMON.0, COMMON.1)),
        }
    }

    /// Quality 0..1 of the person in `own`, or why it is refused. `others` are the other people of the frame.
    ///
    /// # Errors
    /// [`Rejected`].
    pub fn assess(
        &mut self,
        picture: &Picture,
        own: &Ltrb,
        others: &[Ltrb],
    ) -> Result<f32, Rejected> {
        let (width, height) = (picture.width() as f32, picture.height() as f32);
        if own.height() < self.config.min_height || own.width() < 8.0 {
            return Err(Rejected::Small);
        }
        let rim = 2.0;
        if own.left < rim || own.right > width - rim {
            return Err(Rejected::CutOff);
        }
        // Feet or head outside is usual in small rooms: worse, but not useless.
        let whole = if own.top < rim || own.bottom > height - rim {
            0.6
        } else {
            1.0
        };
        let mut hidden = 0.0f32;
        let mut crowded = 0.0f32;
        for other in others {
            let share = own.intersection(other) / own.area().max(1.0);
            crowded = crowded.max(share);
            // Whose feet are lower in the picture is nearer to the camera.
            if other.bottom > own.bottom {
                hidden = hidden.max(share);
            }
        }
        if hidden > self.config.max_overlap || crowded > 2.0 * self.config.max_overlap {
            return Err(Rejected::Hidden);
        }
        let sharpness = self.sharpness(picture, own);
        if sharpness < self.config.min_sharpness {
            return Err(Rejected::Blurred);
        }
        let size = (own.height() / 128.0).clamp(0.3, 1.0);
        let sharp = sharpness / (sharpness + 20.0);
        Ok((size * sharp * whole * (1.0 - crowded)).clamp(0.0, 1.0))
    }

    /// Variance of the Laplacian of the grey crop at 128 x 64.
    fn sharpness(&mut self, picture: &Picture, own: &Ltrb) -> f32 {
        let crop = Some(own.pixels());
        let Ok(grey) = self.common_size.grey(Pixels::from(picture), crop) else {
            return 0.0;
        };
        let (w, h) = (COMMON.1, COMMON.0);
        let (mut sum, mut squares, mut n) = (0.0f32, 0.0f32, 0.0f32);
        for y in 1..h.saturating_sub(1) {
            for x in 1..w.saturating_sub(1) {
                let i = y * w + x;
                let v = grey[i - 1] + grey[i + 1] + grey[i - w] + grey[i + w] - 4.0 * grey[i];
                sum += v;
                squares += v * v;
                n += 1.0;
            }
        }
        let mean = sum / n.max(1.0);
        squares / n.max(1.0) - mean * mean
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use image::RgbImage;

    use super::*;

    fn at(left: f32, top: f32, width: f32, height: f32) -> Ltrb {
        Ltrb {
            left,
            top,
            right: left + width,
            bottom: top + height,
        }
    }

    #[test]
    fn each_fault_is_refused_by_its_name() {
        let sharp = Picture::Rgb(RgbImage::from_fn(320, 240, |x, y| {
            image::Rgb([((x / 5 + y / 7) % 2 * 200) as u8; 3])
        }));
        let mut judge = Judge::new(CropsConfig::default());
        let good = judge
            .assess(&sharp, &at(100.0, 50.0, 60.0, 140.0), &[])
            .unwrap();
        assert!(good > 0.5, "{good}");
        assert_eq!(
            judge.assess(&sharp, &at(100.0, 50.0, 20.0, 40.0), &[]),
            Err(Rejected::Small)
        );
        assert_eq!(
            judge.assess(&sharp, &at(0.0, 50.0, 60.0, 140.0), &[]),
            Err(Rejected::CutOff)
        );
        let feet_outside = judge
            .assess(&sharp, &at(100.0, 100.0, 60.0, 140.0), &[])
            .unwrap();
        assert!(feet_outside < good);
        let in_front = at(130.0, 60.0, 60.0, 150.0);
        let behind = at(130.0, 30.0, 60.0, 140.0);
        assert_eq!(
            judge.assess(&sharp, &at(100.0, 50.0, 60.0, 140.0), &[in_front]),
            Err(Rejected::Hidden)
        );
        assert!(
            judge
                .assess(&sharp, &at(100.0, 50.0, 60.0, 140.0), &[behind])
                .unwrap()
                < good
        );
        let flat = Picture::Rgb(RgbImage::from_fn(320, 240, |x, _| {
            image::Rgb([(x / 4) as u8; 3])
        }));
        assert_eq!(
            judge.assess(&flat, &at(100.0, 50.0, 60.0, 140.0), &[]),
            Err(Rejected::Blurred)
        );
    }
}
