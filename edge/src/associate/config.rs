//! `[associate]` of the configuration.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::AssociateError;

/// As many as a tracklet gives references to its identity.
const MAX_PARTS: usize = super::tracklet::REFERENCES;

/// `[associate]`: when a tracklet is recognised and when it is somebody new.
///
/// Thresholds are cosine similarities and belong to one model on one site: those that are absent are learned from the
/// site's own footage (`calibrate`); until it has shown enough they come from the model card
/// ([`AssociateConfig::with_thresholds`]), which knows the model but not the site, else from defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AssociateConfig {
    /// At least this similar to be recognised, -1 to 1.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub match_score: Option<f32>,
    /// At least this far ahead of the next best identity, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin: Option<f32>,
    /// At most this similar to everyone to become a new identity, -1 to 1, not above `match`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mint: Option<f32>,
    /// At least this similar for its embeddings to become references of the identity, not below `match`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enrich: Option<f32>,
    /// Learn absent thresholds from the cameras: people seen at the same time in one camera are different people, the
    /// looks at one tracklet are one person.
    pub calibrate: bool,
    /// Fraction of different people that learned thresholds may take for the same, 0 to 0.5.
    pub far: f64,
    /// Good looks after which something may be claimed, at least 1.
    pub min_crops: usize,
    /// Seconds of being seen after which something may be claimed, with half of `min_crops`.
    pub min_secs: f64,
    /// Seconds between two queries for a tracklet that lives on.
    pub requery_secs: f64,
    /// Seconds after which a tracklet that resembles somebody, though not enough, is a new identity all the same.
    pub ambiguous_secs: f64,
    /// Parts in time into which a tracklet's looks are split, 1 to 4. With more than one, beginnings are compared with beginnings
    /// and ends with ends (temporal partition pooling). On simulated cameras it costs IDF1: docs/BENCHMARKS.md.
    pub temporal_parts: usize,
    /// Whether two cameras can see the same spot. If not, nobody is in two of them at once.
    pub overlapping: bool,
    /// Seconds that a change of camera takes at least, whichever the cameras.
    pub min_travel_secs: f64,
    /// Seconds that a change between two given cameras takes at least.
    pub travel: Vec<Travel>,
    /// The model card's thresholds; not a key of the file.
    #[serde(skip)]
    pub card: BTreeMap<String, f32>,
}

/// `[[associate.travel]]`: the way between two cameras, in both directions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Travel {
    /// Name of one camera.
    pub from: String,
    /// Name of the other.
    pub to: String,
    /// Shortest time it takes, seconds.
    pub min_secs: f64,
}

impl Default for AssociateConfig {
    fn default() -> Self {
        AssociateConfig {
            match_score: None,
            margin: None,
            mint: None,
            enrich: None,
            calibrate: true,
            far: 0.01,
            min_crops: 5,
            min_secs: 1.0,
            requery_secs: 0.5,
            ambiguous_secs: 4.0,
            temporal_parts: 1,
            overlapping: false,
            min_travel_secs: 0.0,
            travel: Vec::new(),
            card: BTreeMap::new(),
        }
    }
}

impl AssociateConfig {
    /// Refuses what cannot be meant.
    ///
    /// # Errors
    /// [`AssociateError::Config`] naming key, value and remedy.
    pub fn check(&self, cameras: &[String]) -> Result<(), AssociateError> {
        let refuse = |key: &str, value: String, remedy: &str| {
            Err(AssociateError::Config {
                key: key.to_owned(),
                value,
                remedy: remedy.to_owned(),
            })
        };
        for (key, value, low) in [
            ("match", self.match_score, -1.0),
            ("margin", self.margin, 0.0),
            ("mint", self.mint, -1.0),
            ("enrich", self.enrich, -1.0),
        ] {
            if let Some(v) = value
                && !(low..=1.0).contains(&v)
            {
                return refuse(key, v.to_string(), &format!("must be {low} to 1"));
            }
        }
        if let (Some(mint), Some(bar)) = (self.mint, self.match_score)
            && mint > bar
        {
            return refuse(
                "mint",
                mint.to_string(),
                "must not be above associate.match",
            );
        }
        if let (Some(enrich), Some(bar)) = (self.enrich, self.match_score)
            && enrich < bar
        {
            return refuse(
                "enrich",
                enrich.to_string(),
                "must not be below associate.match",
            );
        }
        if !(self.far > 0.0 && self.far <= 0.5) {
            return refuse(
                "far",
                self.far.to_string(),
                "must be above 0 and at most 0.5",
            );
        }
        if self.min_crops == 0 {
            return refuse("min_crops", "0".into(), "must be at least 1");
        }
        if !(1..=MAX_PARTS).contains(&self.temporal_parts) {
            let remedy = format!("must be 1 to {MAX_PARTS}");
            return refuse("temporal_parts", self.temporal_parts.to_string(), &remedy);
        }
        for (key, value) in [
            ("min_secs", self.min_secs),
            ("requery_secs", self.requery_secs),
            ("ambiguous_secs", self.ambiguous_secs),
            ("min_travel_secs", self.min_travel_secs),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return refuse(key, value.to_string(), "must be seconds, 0 or more");
            }
        }
        for way in &self.travel {
            for name in [&way.from, &way.to] {
                if !cameras.contains(name) {
                    return refuse(
                        "travel",
                        name.clone(),
                        &format!("must name a camera: {}", cameras.join(", ")),
                    );
                }
            }
            if !(way.min_secs.is_finite() && way.min_secs >= 0.0) {
                return refuse(
                    "travel.min_secs",
                    way.min_secs.to_string(),
                    "must be seconds, 0 or more",
                );
            }
        }
        Ok(())
    }

    /// Takes note of a model card's `thresholds` (`match`, `margin`, `mint`, `enrich`): what counts until the site has shown
    /// enough of its own, for keys that the configuration leaves open.
    pub fn with_thresholds(mut self, card: &BTreeMap<String, f32>) -> Self {
        self.card.clone_from(card);
        self
    }
}
