//! What is run, and what the texts claim of it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// The plan itself.
const TEXT: &str = include_str!("../../../bench/methods.toml");

/// Parts of the plan, as `--parts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Every method on the default benchmark.
    Methods,
    /// Rows that a text leaves out or changes.
    Ablations,
    /// Every method on a larger world of 8 cameras, one seed.
    Large,
}

/// All of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Tables, in the order in which they are printed.
    pub table: Vec<Table>,
    /// What the texts say of rows.
    #[serde(default)]
    pub claim: Vec<Claim>,
    #[serde(skip)]
    seeds: Vec<u64>,
}

/// A table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Heading.
    pub title: String,
    /// When it is run.
    pub part: Part,
    /// World preset of `reid-world crops`.
    #[serde(default = "bench")]
    pub world: String,
    /// Its cameras, if not the preset's.
    #[serde(default)]
    pub cameras: Option<usize>,
    /// Whether every row is trained on all seeds, or on the first alone.
    #[serde(default)]
    pub all_seeds: bool,
    /// Whether models are exported, verified and evaluated as ONNX.
    #[serde(default)]
    pub export: bool,
    /// Rows.
    pub row: Vec<Row>,
}

/// A training.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// What claims call it.
    pub id: String,
    /// What people read.
    pub name: String,
    /// Method.
    pub method: String,
    /// Preset.
    pub preset: String,
    /// Changes.
    #[serde(default)]
    pub set: Vec<String>,
    /// Start other than the preset's: `zoo:NAME`, `random`, or the id of a row whose model is taken.
    #[serde(default)]
    pub init: Option<String>,
    /// Seed of the training itself.
    #[serde(default = "one")]
    pub train_seed: u64,
}

/// `better` is claimed to be above `worse`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// Where it is claimed, and by how many points of mAP.
    pub says: String,
    /// Id of a row.
    pub better: String,
    /// Id of a row.
    pub worse: String,
}

fn bench() -> String {
    "bench".into()
}

fn one() -> u64 {
    1
}

/// One training of a row.
#[derive(Clone, Debug)]
pub struct Job {
    /// World preset.
    pub world: String,
    /// Cameras of it, if not the preset's.
    pub cameras: Option<usize>,
    /// World seed.
    pub seed: u64,
    /// What.
    pub row: Row,
    /// Whether the model is exported and evaluated as ONNX.
    pub export: bool,
    /// The training that starts it, if one does.
    pub init: Option<Box<Job>>,
}

impl Job {
    /// For people.
    pub fn title(&self) -> String {
        format!(
            "{} (world {}, seed {})",
            self.row.name, self.world, self.seed
        )
    }
}

impl Plan {
    /// The plan for these seeds, of these parts.
    ///
    /// # Errors
    /// If it names a row that isn't there, or one twice.
    pub fn read(seeds: &[u64], parts: &[Part]) -> Result<Self> {
        ensure!(!seeds.is_empty(), "--seeds: at least one is needed");
        let mut plan: Plan = toml::from_str(TEXT).context("tests/bench/methods.toml")?;
        plan.seeds = seeds.to_vec();
        let mut known = BTreeMap::<&str, usize>::new();
        for row in plan.table.iter().flat_map(|t| &t.row) {
            *known.entry(&row.id).or_default() += 1;
        }
        if let Some((id, _)) = known.iter().find(|(_, n)| **n > 1) {
            bail!("tests/bench/methods.toml: two rows are called {id}");
        }
        for claim in &plan.claim {
            for id in [&claim.better, &claim.worse] {
                ensure!(
                    known.contains_key(id.as_str()),
                    "a claim names `{id}`, no row"
                );
            }
        }
        plan.table.retain(|t| parts.contains(&t.part));
        Ok(plan)
    }

    /// Every training, in the order of the tables.
    pub fn jobs(&self) -> impl Iterator<Item = Job> + '_ {
        let tables = self.table.iter();
        tables.flat_map(move |table| {
            let rows = table.row.iter();
            rows.flat_map(move |row| self.jobs_of(table, row))
        })
    }

    /// The trainings of a row, one for each of its seeds.
    pub fn jobs_of(&self, table: &Table, row: &Row) -> Vec<Job> {
        let count = if table.all_seeds { self.seeds.len() } else { 1 };
        let seeds = self.seeds[..count].iter();
        seeds.map(|seed| self.job(table, row, *seed)).collect()
    }

    fn job(&self, table: &Table, row: &Row, seed: u64) -> Job {
        let rows = self.table.iter().flat_map(|t| &t.row);
        let init = row.init.as_deref();
        let start = init.and_then(|id| rows.clone().find(|r| r.id == id));
        Job {
            world: table.world.clone(),
            cameras: table.cameras,
            seed,
            export: table.export && Some(&seed) == self.seeds.first(),
            init: start.map(|start| Box::new(self.job(table, start, seed))),
            row: row.clone(),
        }
    }

    /// The row of that name and its table.
    pub fn find(&self, id: &str) -> Option<(&Table, &Row)> {
        let tables = self.table.iter();
        let mut all = tables.flat_map(|t| t.row.iter().map(move |r| (t, r)));
        all.find(|(_, r)| r.id == id)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_plan_can_be_read_and_every_row_can_be_trained() {
        let all = [Part::Methods, Part::Ablations, Part::Large];
        let plan = Plan::read(&[1, 2, 3], &all).unwrap();
        for job in plan.jobs() {
            let row = &job.row;
            let config = reid_train::config::load(&row.method, Some(&row.preset), None, &row.set);
            let config = config.unwrap_or_else(|e| panic!("{}: {e:#}", row.id));
            config.model.graph().unwrap();
        }
        assert!(Plan::read(&[], &all).is_err());
    }
}
