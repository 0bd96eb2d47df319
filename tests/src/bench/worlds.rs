//! `./reid bench edge`: who is who across the cameras of simulated worlds, by the programs a user calls.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::programs;

/// One bench at work: where it keeps its data, and what it has printed so far.
pub struct WorldBench {
    /// Folder for data and runs.
    pub folder: PathBuf,
    /// Seeds of the worlds.
    pub seeds: Vec<u64>,
}

impl WorldBench {
    /// The pipeline over three cameras, with a model, with its embeddings of a tracklet in three parts, and with a colour histogram. Without `model`, each site gets its own:
    /// ICE on unlabelled crops of the same cameras, showing other people than the videos.
    ///
    /// # Errors
    /// If a program fails.
    pub fn edge(&self, model: Option<&Path>) -> Result<()> {
        println!(
            "| seed | embedder | IDF1 | MOTA | id switches | frames/s |\n|---|---|---|---|---|---|"
        );
        for seed in &self.seeds {
            let model = match model {
                Some(model) => model.to_path_buf(),
                None => self.adapted(*seed)?,
            };
            let world = self.path(&format!("world-{seed}"));
            if !Path::new(&world).exists() {
                let seed = seed.to_string();
                let size = ["--ids", "12", "--cameras", "3", "--seconds", "60"];
                let mut arguments = vec!["videos", "--out", &world, "--seed", &seed];
                arguments.extend(size);
                programs::json("reid-world", &arguments)?;
            }
            let file = Path::new(&world).join("edge.toml");
            let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            let cameras = text.split("[embedder]").next().unwrap_or_default();
            let model = fs::canonicalize(&model).with_context(|| model.display().to_string())?;
            let embedders = [
                ("model", format!("model = {model:?}")),
                (
                    "model, 3 temporal parts",
                    format!("model = {model:?}\n[associate]\ntemporal_parts = 3"),
                ),
                ("histogram", "kind = \"histogram\"".into()),
            ];
            for (name, embedder) in embedders {
                let file = format!("{}.toml", name.replace([',', ' '], "-"));
                let config = Path::new(&world).join(file);
                fs::write(&config, format!("{cameras}[embedder]\n{embedder}\n"))?;
                let (config, gt) = (config.display().to_string(), format!("{world}/gt"));
                let r = programs::json("reid-edge", &["replay", "--config", &config, "--gt", &gt])?;
                let switches = number(&r, "id_switches")?;
                println!(
                    "| {seed} | {name} | {:.3} | {:.3} | {switches:.0} | {:.0} |",
                    number(&r, "idf1")?,
                    number(&r, "mota")?,
                    number(&r, "fps")?
                );
            }
        }
        Ok(())
    }

    /// The model of a site, trained without labels on crops from its cameras.
    fn adapted(&self, seed: u64) -> Result<PathBuf> {
        let out = self.path(&format!("site-{seed}.onnx"));
        if !Path::new(&out).exists() {
            let data = self.crops(seed)?;
            let run = self.path(&format!("ice-{seed}"));
            let (data, seed) = (format!("market1501:{data}"), format!("seed={seed}"));
            let arguments = [
                "fit",
                "--method",
                "ice",
                "--preset",
                "ice_small",
                "--data",
                &data,
                "--out",
                &run,
                "--set",
                &seed,
            ];
            programs::json("reid-train", &arguments)?;
            programs::json("reid-export", &["onnx", "--run", &run, "--out", &out])?;
        }
        Ok(out.into())
    }

    /// The default benchmark of a seed.
    fn crops(&self, seed: u64) -> Result<String> {
        let data = self.path(&format!("bench-{seed}"));
        if !Path::new(&data).exists() {
            let seed = seed.to_string();
            programs::json(
                "reid-world",
                &[
                    "crops", "--out", &data, "--preset", "bench", "--seed", &seed,
                ],
            )?;
        }
        Ok(data)
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

/// A number of an answer.
///
/// # Errors
/// If it has none of that name.
pub(super) fn number(row: &Value, key: &str) -> Result<f64> {
    row[key]
        .as_f64()
        .with_context(|| format!("no number `{key}` in {row}"))
}

/// Processor time of all finished child processes so far, user and system together.
pub(super) fn children_cpu_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat").context("/proc/self/stat")?;
    // After the name in brackets: cutime and cstime are fields 16 and 17 of the whole line, in ticks of 1/100 s.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok());
    match (ticks(13), ticks(14)) {
        (Some(user), Some(system)) => Ok((user + system) / 100.0),
        _ => bail!("/proc/self/stat has no times of child processes"),
    }
}
