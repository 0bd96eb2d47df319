//! Does appearance pay within a camera? BoT-SORT compares embeddings while it matches boxes; here the tracker goes by position
//! alone and the associator gives two tracklets of one person one identity. So the same replay is scored twice, by tracklets
//! and by identities, camera by camera: the difference is what appearance adds, or costs.

use std::fs;

use anyhow::{Context, Result};
use serde_json::json;

use super::Bench;
use super::report::{Reach, Row};
use super::site::World;
use super::tracker::{Sequence, WorldDetector};

impl Bench {
    /// IDF1 and HOTA within the cameras of these worlds, with a colour histogram and with reid-retail-0248.
    pub(super) fn appearance(
        &mut self,
        title: &str,
        worlds: &[World],
        sequences: &[Sequence],
        detector: &WorldDetector,
    ) -> Result<()> {
        let embedders = [
            (
                "colour histogram",
                "[embedder]\nkind = \"histogram\"\n".to_owned(),
            ),
            ("reid-retail-0248", self.site.retail()),
        ];
        for (name, section) in embedders {
            let kind = name.split(['-', ' ']).next().unwrap_or_default();
            let ids = [("tracklets", true), ("identities", false)];
            let mut scores = Vec::new();
            for (ids, tracklets) in ids {
                let tracker = format!("{kind}-{ids}");
                let mut left = sequences.iter();
                for world in worlds {
                    let file = world.file(&format!("appearance-{kind}.toml"));
                    let config = self.site.config_with(
                        &file.display().to_string(),
                        &world.sections(),
                        &detector.section,
                        &section,
                        "",
                        "",
                    )?;
                    let results = world.file(&format!("appearance-{tracker}"));
                    let mut more: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"--results", &results];
                    if tracklets {
                        more.push(&"--tracklets");
                    }
                    self.site.replay(&config, &more)?;
                    for camera in &world.cameras {
                        let s = left.next().context("more cameras than sequences")?;
                        let from = results.join(format!("{camera}.txt"));
                        fs::copy(&from, s.results(&tracker))
                            .with_context(|| from.display().to_string())?;
                    }
                }
                scores.push(self.score(sequences, &tracker)?);
            }
            for (key, measure) in [("idf1", "IDF1"), ("hota", "HOTA")] {
                let value = |i: usize| {
                    scores[i][key]
                        .as_f64()
                        .with_context(|| format!("no `{key}`"))
                };
                let (tracklets, identities) = (value(0)?, value(1)?);
                self.table.push(Row {
                    work: format!(
                        "  {measure} within cameras, {title}: identities ({name}); peer: tracklets alone"
                    ),
                    ours: format!("{identities:.3}"),
                    peer: format!("{tracklets:.3}"),
                    ratio: format!("{:.3}", identities / tracklets),
                    reach: Reach::none(),
                    limit: format!(
                        "switches {} against {}",
                        scores[1]["num_switches"], scores[0]["num_switches"]
                    ),
                    numbers: json!({"identities": scores[1], "tracklets": scores[0]}),
                });
            }
        }
        Ok(())
    }
}
