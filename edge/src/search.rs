//! `reid-edge search`: who is on this picture, and where were they seen?

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use reid_models::picture::Pixels;
use reid_models::preprocess::decode;
use serde::Serialize;

use crate::config::EdgeConfig;
use crate::embed;
use crate::gallery::{Gallery, Sighting};
use crate::types::IdentityId;

/// Command line of `search`.
#[derive(Clone, Debug, clap::Args)]
pub struct SearchArgs {
    /// Configuration: its model and its gallery.
    #[arg(long, default_value = "edge.toml")]
    pub config: PathBuf,
    /// Picture of one person, cut out as a detector would: JPEG or PNG.
    #[arg(long)]
    pub image: PathBuf,
    /// How many identities.
    #[arg(long, default_value_t = 5)]
    pub top: usize,
    /// One JSON object on standard output.
    #[arg(long)]
    pub json: bool,
}

/// An identity that resembles the picture.
#[derive(Clone, Debug, Serialize)]
pub struct Hit {
    /// Who.
    pub identity: IdentityId,
    /// Name given by a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Cosine similarity of the best reference, -1 to 1.
    pub score: f32,
    /// Sightings in all.
    pub sightings: usize,
    /// The latest sighting per camera, latest first.
    pub last_seen: Vec<Sighting>,
}

/// Answer of a search.
#[derive(Clone, Debug, Serialize)]
pub struct SearchReport {
    /// The picture.
    pub image: PathBuf,
    /// Identities in the gallery.
    pub known: usize,
    /// Best first.
    pub results: Vec<Hit>,
}

/// Embeds the picture and asks the gallery.
///
/// # Errors
/// No configuration, no such picture, a model that cannot be opened, no gallery yet, or one of another model.
pub fn search(config: &EdgeConfig, image: &Path, top: usize) -> anyhow::Result<SearchReport> {
    if top == 0 {
        bail!("--top = 0: ask for at least 1");
    }
    if config.gallery.path == Path::new(":memory:") {
        bail!(
            "{}: gallery.path = \":memory:\" keeps nothing that could be searched; give it a file",
            config.file.display()
        );
    }
    let file = config.base.join(&config.gallery.path);
    if !file.exists() {
        bail!(
            "no gallery at {} yet: let `reid-edge run` (or `replay --keep-gallery`) see somebody first",
            file.display()
        );
    }
    let picture = decode(image)?;
    let mut appearance = embed::open(&config.embedder)?;
    let gallery = Gallery::open(
        &config.gallery,
        &config.base,
        &appearance.fingerprint(),
        appearance.width(),
    )?;
    let embeddings = appearance.embed(&[(Pixels::from(&picture), None)])?;
    let embedding = embeddings
        .first()
        .with_context(|| format!("{}: the model gave no embedding", image.display()))?;
    let results = gallery
        .search(embedding, top)?
        .into_iter()
        .map(|(identity, score)| hit(&gallery, identity, score))
        .collect::<anyhow::Result<_>>()?;
    Ok(SearchReport {
        image: image.to_path_buf(),
        known: gallery.len(),
        results,
    })
}

fn hit(gallery: &Gallery, identity: IdentityId, score: f32) -> anyhow::Result<Hit> {
    let all = gallery.sightings(identity)?;
    let sightings = all.len();
    let mut last_seen: Vec<Sighting> = Vec::new();
    for sighting in all {
        match last_seen.iter_mut().find(|s| s.camera == sighting.camera) {
            Some(known) if known.end <= sighting.end => *known = sighting,
            Some(_) => {}
            None => last_seen.push(sighting),
        }
    }
    last_seen.sort_by(|a, b| b.end.total_cmp(&a.end));
    Ok(Hit {
        identity,
        label: gallery.profile(identity).and_then(|p| p.label.clone()),
        score,
        sightings,
        last_seen,
    })
}

/// Runs the command and prints its answer.
///
/// # Errors
/// As [`search`].
pub fn run(args: &SearchArgs) -> anyhow::Result<()> {
    let config = EdgeConfig::load(&args.config)?;
    let report = search(&config, &args.image, args.top)?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
        return Ok(());
    }
    if report.results.is_empty() {
        println!("The gallery knows nobody yet.");
    }
    for (rank, hit) in report.results.iter().enumerate() {
        let name = hit.label.as_deref().unwrap_or("");
        println!(
            "{:>2}  {:.3}  {}  {name}",
            rank + 1,
            hit.score,
            hit.identity
        );
        for s in &hit.last_seen {
            println!("      {}: {} to {}", s.camera, when(s.start), when(s.end));
        }
    }
    Ok(())
}

/// Seconds for people: UTC for Unix time, else seconds since the recording's start.
pub(crate) fn when(secs: f64) -> String {
    if secs < 1e8 {
        return format!("{secs:.1} s");
    }
    let whole = secs as i64;
    let (days, rest) = (whole.div_euclid(86_400), whole.rem_euclid(86_400));
    // Civil date from days since 1970-01-01 (proleptic Gregorian; eras of 400 years that start in March).
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}Z",
        rest / 3_600,
        rest / 60 % 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_for_people() {
        assert_eq!(when(12.34), "12.3 s");
        assert_eq!(when(1_709_210_096.0), "2024-02-29 12:34:56Z");
        assert_eq!(when(1_000_000_000.0), "2001-09-09 01:46:40Z");
    }
}
