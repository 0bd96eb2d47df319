//! The bars a similarity is held against.

use serde::Serialize;

use super::AssociateConfig;
use super::calibrate::Calibration;

/// Three bars and a lead; recognising is easier than becoming a reference, and both are far from being new.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bars {
    /// At least this similar to be recognised.
    #[serde(rename = "match")]
    pub match_score: f32,
    /// At least this far ahead of the next identity.
    pub margin: f32,
    /// At most this similar to everyone to be new at once.
    pub mint: f32,
    /// At least this similar to give references to the identity.
    pub enrich: f32,
    /// Taken off a similarity within one camera, where even strangers share light and background.
    pub same_camera_offset: f32,
}

impl Bars {
    /// For a model about which nothing is known, on a site about which nothing is known yet.
    pub const CAUTIOUS: Bars = Bars {
        match_score: 0.7,
        margin: 0.05,
        mint: 0.5,
        enrich: 0.78,
        same_camera_offset: 0.0,
    };

    /// What the configuration says; else what the site taught; until then what the model card says; else
    /// [`Bars::CAUTIOUS`].
    pub fn resolve(config: &AssociateConfig, calibration: &Calibration) -> Self {
        let learned = if config.calibrate && config.match_score.is_none() {
            calibration.bars(config.far)
        } else {
            None
        };
        let card = |key: &str| config.card.get(key).copied();
        let known =
            Bars::CAUTIOUS.changed([card("match"), card("margin"), card("mint"), card("enrich")]);
        learned.unwrap_or(known).changed([
            config.match_score,
            config.margin,
            config.mint,
            config.enrich,
        ])
    }

    /// With other values of match, margin, mint and enrich; what is absent keeps its distance from match.
    fn changed(mut self, [match_score, margin, mint, enrich]: [Option<f32>; 4]) -> Self {
        if let Some(match_score) = match_score {
            let moved = match_score - self.match_score;
            self.match_score = match_score;
            self.mint += moved;
            self.enrich += moved;
        }
        self.margin = margin.unwrap_or(self.margin);
        self.mint = mint.unwrap_or(self.mint).min(self.match_score);
        self.enrich = enrich.unwrap_or(self.enrich).max(self.match_score);
        self
    }
}
