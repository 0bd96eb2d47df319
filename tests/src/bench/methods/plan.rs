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

/// A simulated world.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct World {
    /// What tables call it.
    pub name: String,
    /// Subcommand of `reid-world`, and what data it makes.
    pub kind: WorldKind,
    /// Its options but `--out` and `--seed`.
    pub options: Vec<String>,
    /// Its seed, if it is always the same one.
    #[serde(default)]
    pub seed: Option<u64>,
}

/// What a world consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorldKind {
    /// Pictures in Market-1501's layout.
    Crops,
    /// Tracklets in the layout of MARS.
    Tracklets,
}

impl WorldKind {
    /// Subcommand of `reid-world`.
    pub fn command(self) -> &'static str {
        match self {
            WorldKind::Crops => "crops",
            WorldKind::Tracklets => "tracklets",
        }
    }

    /// Kind in `--data`.
    pub fn data(self) -> &'static str {
        match self {
            WorldKind::Crops => "market1501",
            WorldKind::Tracklets => "mars",
        }
    }
}

/// All of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Worlds.
    pub world: Vec<World>,
    /// Tables, in the order in which they are printed.
    pub table: Vec<Table>,
    /// What the texts say of rows.
    #[serde(default)]
    pub claim: Vec<Claim>,
    #[serde(skip)]
    seeds: Vec<u64>,
    #[serde(skip)]
    parts: Vec<Part>,
}

/// A table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Heading.
    pub title: String,
    /// When it is run.
    pub part: Part,
    /// Where rows are evaluated, and trained unless `source` says otherwise: the name of a [`World`].
    #[serde(default = "bench")]
    pub world: String,
    /// Where rows are trained, if it is another world; the table's own one has the usual seeds.
    #[serde(default)]
    pub source: Option<String>,
    /// Whether every row is trained on all seeds, or on the first alone.
    #[serde(default)]
    pub all_seeds: bool,
    /// Whether models are exported, verified and evaluated as ONNX.
    #[serde(default)]
    pub export: bool,
    /// Whether the table tells what pseudo labels and cameras have to do with each other (text d's diagnostics).
    #[serde(default)]
    pub diagnostics: bool,
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
    /// Id of the row that this one repeats with another `train_seed`: how far repeated trainings lie apart is the noise of its
    /// method.
    #[serde(default)]
    pub repeats: Option<String>,
    /// How the finished model is evaluated, as options of `reid-train eval`, if otherwise than by the training itself. Rows that
    /// differ in this alone share a training.
    #[serde(default)]
    pub eval: Vec<String>,
}

impl Row {
    /// What two trainings of one row have in common.
    fn training_but_seed(&self) -> (&str, &str, &[String], Option<&str>) {
        (&self.method, &self.preset, &self.set, self.init.as_deref())
    }
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
    /// Where it does not hold: whether the method is wrong or the world lacks what it corrects, and how that was found.
    #[serde(default)]
    pub why: String,
}

fn bench() -> String {
    "bench".into()
}

fn one() -> u64 {
    1
}

/// A world with its seed.
#[derive(Clone, Debug)]
pub struct Seeded {
    /// Which.
    pub world: World,
    /// Seed.
    pub seed: u64,
}

impl Seeded {
    /// What tells worlds apart.
    pub fn name(&self) -> String {
        format!("{}-{}", self.world.name, self.seed)
    }
}

/// One training of a row, or one evaluation of a training.
#[derive(Clone, Debug)]
pub struct Job {
    /// Where it is trained and, while it is, evaluated.
    pub trained_on: Seeded,
    /// Where and how the finished model is evaluated, if otherwise.
    pub then: Option<(Seeded, Vec<String>)>,
    /// What.
    pub row: Row,
    /// Whether the model is exported and evaluated as ONNX.
    pub export: bool,
    /// The training that starts it, if one does.
    pub init: Option<Box<Job>>,
}

impl Job {
    /// Where the finished model is evaluated.
    pub fn world(&self) -> &Seeded {
        self.then.as_ref().map_or(&self.trained_on, |t| &t.0)
    }

    /// For people.
    pub fn title(&self) -> String {
        let Seeded { world, seed } = self.world();
        format!("{} (world {}, seed {seed})", self.row.name, world.name)
    }

    /// The training without what follows it.
    pub fn training(&self) -> Job {
        Job {
            then: None,
            export: false,
            ..self.clone()
        }
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
        for (_, row) in plan.rows() {
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
        let mut repeated = BTreeMap::<&str, &str>::new();
        for (_, row) in plan.rows() {
            let Some(id) = &row.repeats else { continue };
            let first = plan.find(id).map(|(_, r)| r);
            ensure!(
                first.is_some_and(|r| r.training_but_seed() == row.training_but_seed()),
                "tests/bench/methods.toml: {} repeats `{id}`, which is no row, or another training",
                row.id
            );
            let other = *repeated.entry(&row.method).or_insert(id);
            ensure!(
                other == id,
                "tests/bench/methods.toml: `{other}` and `{id}` are both repeated: whose noise is that of {}?",
                row.method
            );
        }
        let worlds = plan.world.iter().map(|w| w.name.as_str());
        let worlds: Vec<&str> = worlds.collect();
        for table in &plan.table {
            for name in std::iter::once(&table.world).chain(&table.source) {
                ensure!(
                    worlds.contains(&name.as_str()),
                    "tests/bench/methods.toml: no world is called {name}"
                );
            }
        }
        plan.parts = parts.to_vec();
        Ok(plan)
    }

    /// Tables of the parts that are asked for.
    pub fn tables(&self) -> impl Iterator<Item = &Table> {
        self.table.iter().filter(|t| self.parts.contains(&t.part))
    }

    /// Claims about rows of the parts that are asked for.
    pub fn claims(&self) -> impl Iterator<Item = &Claim> {
        let asked = |id: &str| {
            let mut rows = self.tables().flat_map(|t| &t.row);
            rows.any(|row| row.id == id)
        };
        let claims = self.claim.iter();
        claims.filter(move |c| asked(&c.better) && asked(&c.worse))
    }

    /// Every training, in the order of the tables.
    pub fn jobs(&self) -> impl Iterator<Item = Job> + '_ {
        self.tables().flat_map(move |table| {
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
        let seeded = |name: &str| {
            let world = self.world.iter().find(|w| w.name == name);
            let world = world.expect("read has looked for all names").clone();
            Seeded {
                seed: world.seed.unwrap_or(seed),
                world,
            }
        };
        let own = seeded(&table.world);
        let (trained_on, then) = match &table.source {
            Some(source) => (seeded(source), Some((own, row.eval.clone()))),
            None if row.eval.is_empty() => (own, None),
            None => (own.clone(), Some((own, row.eval.clone()))),
        };
        let start = row.init.as_deref().and_then(|id| self.find(id));
        Job {
            trained_on,
            // What is evaluated otherwise is not exported.
            export: table.export && then.is_none() && Some(&seed) == self.seeds.first(),
            then,
            init: start.map(|(table, start)| Box::new(self.job(table, start, seed).training())),
            row: row.clone(),
        }
    }

    /// Every row with its table, of all parts.
    pub fn rows(&self) -> impl Iterator<Item = (&Table, &Row)> {
        let tables = self.table.iter();
        tables.flat_map(|t| t.row.iter().map(move |r| (t, r)))
    }

    /// The row of that name and its table.
    pub fn find(&self, id: &str) -> Option<(&Table, &Row)> {
        self.rows().find(|(_, r)| r.id == id)
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
        let mut ids = std::collections::BTreeSet::new();
        for job in plan.jobs() {
            let row = &job.row;
            ids.insert(row.id.clone());
            let config = reid_train::config::load(&row.method, Some(&row.preset), None, &row.set);
            let config = config.unwrap_or_else(|e| panic!("{}: {e:#}", row.id));
            config.model.graph().unwrap();
        }
        assert!(plan.rows().all(|(_, r)| ids.contains(&r.id)));
        assert!(Plan::read(&[], &all).is_err());
    }
}
