//! From the start of the process to the first event, everything cached: what a restart costs a site.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Bench;
use super::child::{end, words};
use super::report::{Reach, Row, Spread};
use super::server::unix_now;
use super::site::BUDGET;

/// No service (its port may be taken) and no gallery on disk.
const ALONE: &str = "[serve]\nenabled = false\n[gallery]\npath = \":memory:\"\n";

impl Bench {
    /// Ours: `run` on a file at recorded speed, to the first person told of. The peer: imports, models and the first
    /// confirmed person with an embedding, as fast as it can read the file.
    pub fn start(&mut self) -> Result<()> {
        let setting = self.any_setting()?;
        let camera = (
            "plaza".to_owned(),
            format!("source = {:?}", self.site.plaza()),
        );
        let config =
            self.site
                .config("start.toml", &[camera], &self.site.yolox(), BUDGET, ALONE)?;
        let ours = || self.first_event(&config);
        let peer = || self.peer_start(setting);
        // Caches are warm from here on.
        ours()?;
        peer()?;
        let rounds = self.rounds(ours, peer)?;
        let (person, line) = (
            Spread::of(&rounds.ours, "person_secs")?,
            Spread::of(&rounds.ours, "line_secs")?,
        );
        let theirs = Spread::of(&rounds.peer, "event_secs")?;
        let loaded = Spread::of(&rounds.peer, "loaded_secs")?;
        self.table.push(Row {
            work: "start to the first event about a person, warm cache, s".into(),
            ours: person.text(2),
            peer: theirs.text(2),
            ratio: person.over(&theirs).text(2),
            reach: Reach::holds("< 2", person.median() < 2.0),
            limit: format!(
                "ours reads a file at recorded speed (10 frames/s) and tells of a camera after {} s; the peer reads as fast as it can after {} s of imports and models",
                line.text(2),
                loaded.text(2)
            ),
            numbers: json!({"person": person.values(), "line": line.values(), "peer": theirs.values(),
                "peer_loaded": loaded.values()}),
        });
        Ok(())
    }

    fn first_event(&self, config: &std::path::Path) -> Result<Value> {
        let mut command = self.site.command("reid-edge")?;
        command.args(words(&[&"run", &"--config", &config, &"--seconds", &"30"]));
        let began = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start reid-edge")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let (mut first, mut person) = (None, None);
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            let now = began.elapsed().as_secs_f64();
            first.get_or_insert(now);
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            if event["type"] == "identity" {
                person = Some(now);
                break;
            }
        }
        end(&mut child);
        ensure!(
            person.is_some(),
            "reid-edge run told of nobody within 30 s ({})",
            config.display()
        );
        Ok(json!({"line_secs": first, "person_secs": person}))
    }

    fn peer_start(&self, setting: super::Setting) -> Result<Value> {
        let [threads, spin] = setting.arguments();
        let began = unix_now();
        let done = self.peers.run(&words(&[
            &"start",
            &self.site.plaza(),
            &self.site.detector(),
            &self.site.embedder(),
            &threads,
            &spin,
        ]))?;
        let since = |key: &str| done[key].as_f64().map(|t| t - began);
        Ok(json!({"event_secs": since("event_unix"), "loaded_secs": since("loaded_unix")}))
    }
}
