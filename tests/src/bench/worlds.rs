//! `./reid bench methods` and `./reid bench edge`: accuracy on simulated worlds, by the programs a user calls.

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

/// Rank-1, mAP and the processor time it took.
struct Score {
    rank1: f64,
    map: f64,
    cpu_minutes: f64,
}

impl WorldBench {
    /// Methods on the default benchmark: colour histogram, starting point, ICE, ICE without its hard and without its soft
    /// term (first seed only), supervised.
    ///
    /// # Errors
    /// If a program fails.
    pub fn methods(&self) -> Result<()> {
        println!("| seed | row | rank-1 | mAP | CPU-minutes |\n|---|---|---|---|---|");
        for (number, seed) in self.seeds.iter().enumerate() {
            let data = self.crops(*seed)?;
            let histogram = programs::json("reid-world", &["baseline", "--data", &data])?;
            row(*seed, "colour histogram", &Score::read(&histogram, 0.0)?);
            let ice = self.fit("ice", *seed, &data, "ice", &[])?;
            row(*seed, "start (zoo:mall)", &ice.0);
            row(*seed, "ICE", &ice.1);
            if number == 0 {
                for (name, key) in [
                    ("hard", "loss.hard_weight=0"),
                    ("soft", "loss.soft_weight=0"),
                ] {
                    let without =
                        self.fit("ice", *seed, &data, &format!("ice-no-{name}"), &[key])?;
                    row(*seed, &format!("ICE without the {name} term"), &without.1);
                }
            }
            let supervised = self.fit("supervised", *seed, &data, "supervised", &[])?;
            row(*seed, "supervised", &supervised.1);
            let (start, own, upper) = (ice.0.map, ice.1.map, supervised.1.map);
            println!(
                "| {seed} | share of the distance closed by ICE | | {:.2} | |",
                (own - start) / (upper - start)
            );
        }
        Ok(())
    }

    /// The pipeline over three cameras, with a model and with a colour histogram. Without `model`, each site gets its own:
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
                ("histogram", "kind = \"histogram\"".into()),
            ];
            for (name, embedder) in embedders {
                let config = Path::new(&world).join(format!("{name}.toml"));
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
            self.fit("ice", seed, &data, "ice", &[])?;
            let run = self.path(&format!("ice-{seed}"));
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

    /// Trains with the small preset; the scores before and after.
    fn fit(
        &self,
        method: &str,
        seed: u64,
        data: &str,
        run: &str,
        sets: &[&str],
    ) -> Result<(Score, Score)> {
        let out = self.path(&format!("{run}-{seed}"));
        let (preset, data) = (format!("{method}_small"), format!("market1501:{data}"));
        let seed = format!("seed={seed}");
        let mut arguments = vec![
            "fit", "--method", method, "--preset", &preset, "--data", &data, "--out", &out,
        ];
        for set in sets.iter().chain([&seed.as_str()]) {
            arguments.extend(["--set", set]);
        }
        let before = children_cpu_seconds()?;
        let last = programs::json("reid-train", &arguments)?;
        let minutes = (children_cpu_seconds()? - before) / 60.0;
        let metrics = Path::new(&out).join("metrics.jsonl");
        let text = fs::read_to_string(&metrics).with_context(|| metrics.display().to_string())?;
        let first: Value = serde_json::from_str(text.lines().next().unwrap_or_default())?;
        Ok((Score::read(&first, 0.0)?, Score::read(&last, minutes)?))
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

impl Score {
    fn read(row: &Value, cpu_minutes: f64) -> Result<Self> {
        Ok(Score {
            rank1: number(row, "rank1")?,
            map: number(row, "map")?,
            cpu_minutes,
        })
    }
}

fn row(seed: u64, name: &str, s: &Score) {
    println!(
        "| {seed} | {name} | {:.1} % | {:.1} % | {:.1} |",
        100.0 * s.rank1,
        100.0 * s.map,
        s.cpu_minutes
    );
}

fn number(row: &Value, key: &str) -> Result<f64> {
    row[key]
        .as_f64()
        .with_context(|| format!("no number `{key}` in {row}"))
}

/// Processor time of all finished child processes so far, user and system together.
fn children_cpu_seconds() -> Result<f64> {
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
