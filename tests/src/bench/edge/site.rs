//! What the rows share: the folder, the real recording and its models, worlds, configurations, and our own programs.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::child::{self, Finished, words};
use crate::programs;

/// No work of ours takes longer.
const LIMIT: Duration = Duration::from_secs(1800);

/// `[crops]` that leave no crop out: no gate, no budget.
pub const EVERY_CROP: &str = "[crops]\ncut_off = false\nmin_height = 8.0\nmax_overlap = 1.0\nmin_sharpness = 0.0\nburst_per_sec = 240.0\nevery_secs = 0.0\nmax_per_tracklet = 1000000\n";
/// Options by which YOLOX is adopted.
const YOLOX: [&str; 4] = ["--task", "detect", "--decode", "yolox"];
/// The budget as it is shipped.
pub const BUDGET: &str = "";

/// Where the bench works and what with.
pub struct Site {
    folder: PathBuf,
    media: PathBuf,
    /// ONNX Runtime's library, or a folder with it.
    library: PathBuf,
}

impl Site {
    /// Makes the folder and the models' cards.
    ///
    /// # Errors
    /// If `REID_MEDIA` names no folder with the recording and the models.
    pub fn prepare(folder: &Path, library: &str) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let folder = fs::canonicalize(folder).with_context(|| folder.display().to_string())?;
        let media = std::env::var_os("REID_MEDIA").map(PathBuf::from).context(
            "REID_MEDIA is not set: name the folder with plaza.mp4, yolox_nano_416.onnx and reid-retail-0248.onnx",
        )?;
        let site = Site {
            folder,
            media,
            library: library.into(),
        };
        site.adopt("yolox_nano_416.onnx", &site.detector(), &YOLOX)?;
        let embed = [
            ["--task", "embed"],
            ["--layout", "nhwc"],
            ["--channels", "bgr"],
            ["--range", "0..255"],
            ["--mean", "0,0,0"],
            ["--std", "1,1,1"],
        ];
        site.adopt(
            "reid-retail-0248.onnx",
            &site.embedder(),
            embed.as_flattened(),
        )?;
        ensure!(
            site.plaza().is_file(),
            "{}: no such file (REID_MEDIA)",
            site.plaza().display()
        );
        Ok(site)
    }

    /// A model made by somebody else, described as an integrator would.
    fn adopt(&self, from: &str, to: &Path, options: &[&str]) -> Result<()> {
        // The card is written last.
        if to.with_extension("onnx.card.json").is_file() {
            return Ok(());
        }
        let from = self.media.join(from);
        fs::copy(&from, to).with_context(|| format!("{} (REID_MEDIA)", from.display()))?;
        programs::adopt(to, options)
    }

    /// A path in the bench's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The recording: 768 x 576, 10 frames a second, 795 frames.
    pub fn plaza(&self) -> PathBuf {
        self.media.join("plaza.mp4")
    }

    /// YOLOX-nano with its card.
    pub fn detector(&self) -> PathBuf {
        self.path("yolox.onnx")
    }

    /// reid-retail-0248 with its card.
    pub fn embedder(&self) -> PathBuf {
        self.path("retail.onnx")
    }

    /// YOLOX-nano for 16:9 pictures, with its card: 416 x 256 in place of 416 x 416, of which 182 rows would be padding.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn wide_detector(&self) -> Result<PathBuf> {
        let made = self.path("yolox-416x256.onnx");
        if !made.with_extension("onnx.card.json").is_file() {
            let resize = ["--resize", "416x256"];
            programs::adopt(&self.detector(), &[&YOLOX[..], &resize].concat())?;
        }
        Ok(made)
    }

    /// `[detector]` with YOLOX-nano.
    pub fn yolox(&self) -> String {
        yolox(&self.detector())
    }

    /// As [`Site::config_with`], with reid-retail-0248.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn config(
        &self,
        name: &str,
        cameras: &[(String, String)],
        detector: &str,
        crops: &str,
        more: &str,
    ) -> Result<PathBuf> {
        let embedder = self.retail();
        self.config_with(name, cameras, detector, &embedder, crops, more)
    }

    /// `[embedder]` with reid-retail-0248.
    pub fn retail(&self) -> String {
        format!("[embedder]\nmodel = {:?}\n", self.embedder())
    }

    /// Writes a configuration with these cameras (name and the rest of `[[camera]]`), `[detector]`, `[embedder]` and
    /// `[crops]`. Sections in `more` are added as they are.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn config_with(
        &self,
        name: &str,
        cameras: &[(String, String)],
        detector: &str,
        embedder: &str,
        crops: &str,
        more: &str,
    ) -> Result<PathBuf> {
        let mut text = String::new();
        for (camera, body) in cameras {
            text.push_str(&format!("[[camera]]\nname = {camera:?}\n{body}\n"));
        }
        text.push_str(&format!("{detector}{crops}{embedder}{more}"));
        let file = self.path(name);
        fs::write(&file, text).with_context(|| file.display().to_string())?;
        Ok(file)
    }

    /// A configuration that replays the recording with YOLOX-nano.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn plaza_config(&self, name: &str, crops: &str) -> Result<PathBuf> {
        let camera = ("plaza".to_owned(), format!("source = {:?}", self.plaza()));
        self.config(name, &[camera], &self.yolox(), crops, "")
    }

    /// A simulated world of videos; made once.
    ///
    /// # Errors
    /// If reid-world fails.
    pub fn world(&self, preset: &str, seed: u64) -> Result<World> {
        let folder = self.path(&format!("world-{preset}-{seed}"));
        if !folder.join("edge.toml").is_file() {
            let seed = seed.to_string();
            let out = folder.display().to_string();
            let arguments = [
                "videos", "--preset", preset, "--seed", &seed, "--out", &out, "--json",
            ];
            self.ours("reid-world", &arguments)?;
        }
        let truth = folder.join("gt");
        let mut cameras: Vec<String> = fs::read_dir(&truth)
            .with_context(|| truth.display().to_string())?
            .filter_map(|entry| {
                Some(
                    entry
                        .ok()?
                        .path()
                        .file_stem()?
                        .to_string_lossy()
                        .into_owned(),
                )
            })
            .collect();
        cameras.sort();
        ensure!(!cameras.is_empty(), "{}: no truth", truth.display());
        Ok(World { folder, cameras })
    }

    /// Runs a program of ours, with the peers' ONNX Runtime.
    ///
    /// # Errors
    /// If it fails, with what it said.
    pub fn ours(&self, program: &str, arguments: &[impl AsRef<OsStr>]) -> Result<Finished> {
        let what = arguments
            .first()
            .map_or_else(String::new, |a| a.as_ref().display().to_string());
        let mut command = self.command(program)?;
        child::run(command.args(arguments), LIMIT).with_context(|| format!("{program} {what}"))
    }

    /// A program of ours, with the peers' ONNX Runtime.
    ///
    /// # Errors
    /// If it is not built.
    pub fn command(&self, program: &str) -> Result<Command> {
        let mut command = Command::new(programs::program(program)?);
        command
            .env("REID_ONNXRUNTIME", &self.library)
            .env("RUST_LOG", "warn");
        Ok(command)
    }

    /// `reid-edge replay` of a configuration, with processor time and memory.
    ///
    /// # Errors
    /// If it fails.
    pub fn replay(&self, config: &Path, more: &[&dyn AsRef<OsStr>]) -> Result<Value> {
        let mut arguments = words(&[&"replay", &"--config", &config]);
        arguments.extend(words(more));
        arguments.push("--json".into());
        self.ours("reid-edge", &arguments)?.json()
    }

    /// A measurement in a process of its own (see [`super::work`]).
    ///
    /// # Errors
    /// If it fails.
    pub fn measure(&self, arguments: &[impl AsRef<OsStr>]) -> Result<Value> {
        let mut all: Vec<&OsStr> = vec![OsStr::new("measure-edge")];
        all.extend(arguments.iter().map(AsRef::as_ref));
        self.ours("reid-bench", &all)?.json()
    }
}

/// A simulated world of videos.
pub struct World {
    folder: PathBuf,
    /// Names of the cameras.
    pub cameras: Vec<String>,
}

impl World {
    /// Folder with the truth, CAMERA.txt.
    pub fn truth(&self) -> PathBuf {
        self.folder.join("gt")
    }

    /// A camera's video.
    pub fn video(&self, camera: &str) -> PathBuf {
        self.folder.join("cameras").join(format!("{camera}.mp4"))
    }

    /// A file of the bench's own beside the world.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// `[[camera]]` of every camera.
    pub fn sections(&self) -> Vec<(String, String)> {
        self.cameras
            .iter()
            .map(|c| (c.clone(), format!("source = {:?}", self.video(c))))
            .collect()
    }
}

/// `[detector]` with this file.
pub fn yolox(model: &Path) -> String {
    format!("[detector]\nkind = \"onnx\"\nmodel = {model:?}\n")
}
