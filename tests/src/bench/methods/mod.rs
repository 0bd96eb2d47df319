//! `./reid bench methods`: every method on simulated worlds, the ablations of the texts, and whether what the texts claim holds.
//!
//! [`plan`] reads what is to be run and what is claimed from `tests/bench/methods.toml`; [`cache`] runs it, each training once,
//! whatever else is asked for, and goes on where it was interrupted; [`tables`] prints it.

mod cache;
mod plan;
mod tables;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;

use cache::Cache;
pub use plan::Part;
use plan::{Job, Plan};
pub use tables::MARK;

/// One bench at work.
pub struct MethodBench {
    /// Folder for worlds and runs.
    pub folder: PathBuf,
    /// Folder for results: what is there is not done again.
    pub results: PathBuf,
    /// Seeds of the worlds; the first is the one of rows with a single seed.
    pub seeds: Vec<u64>,
    /// What to run.
    pub parts: Vec<Part>,
    /// Only print what is known already.
    pub known: bool,
    /// Begin no training after so many minutes.
    pub minutes: Option<f64>,
    /// Document whose tables are replaced; otherwise they are printed.
    pub write: Option<PathBuf>,
}

impl MethodBench {
    /// Runs what is missing, then prints all tables or writes them into a document.
    ///
    /// # Errors
    /// If a program fails.
    pub fn run(&self) -> Result<()> {
        let plan = Plan::read(&self.seeds, &self.parts)?;
        let mut cache = Cache::open(&self.folder, &self.results)?;
        let mut jobs: Vec<_> = plan.jobs().collect();
        // All rows of the first seed come first: every table can be read early.
        jobs.sort_by_key(|j| self.seeds.iter().position(|s| *s == j.world().seed));
        let missing = jobs.iter().filter(|j| !cache.knows(j)).count();
        eprintln!("{} trainings, {missing} of them to be done", jobs.len());
        if !self.known {
            // What is left at the end, other benches in the same folder are at.
            let began = Instant::now();
            while self.pass(&jobs, &mut cache, began)? {}
        }
        let text = tables::all(&plan, &cache)?;
        match &self.write {
            Some(document) => tables::write(document, &text),
            None => {
                print!("{text}");
                Ok(())
            }
        }
    }

    /// Does what is missing and can be taken; whether that was anything.
    fn pass(&self, jobs: &[Job], cache: &mut Cache, began: Instant) -> Result<bool> {
        let limit = self.minutes.unwrap_or(f64::INFINITY);
        let mut ran = false;
        for (i, job) in jobs.iter().enumerate() {
            if cache.knows(job) || began.elapsed().as_secs_f64() > 60.0 * limit {
                continue;
            }
            let Some(_taken) = cache.take(job)? else {
                continue;
            };
            // Another may have ended it just before it was taken.
            if cache.knows(job) {
                continue;
            }
            eprintln!("{}/{}: {}", i + 1, jobs.len(), job.title());
            cache.run(job)?;
            ran = true;
        }
        Ok(ran)
    }
}
