//! The Python packages that the edge is measured against, in a folder of the bench's own, and the program that uses them.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::child;

/// The program every measurement of a peer goes through.
const PROGRAM: &str = include_str!("../../../bench/edge_peers.py");
/// Packages it needs.
const PACKAGES: &str = include_str!("../../../bench/edge-requirements.txt");
/// No work of a peer takes longer.
const LIMIT: Duration = Duration::from_secs(1800);

/// An interpreter with the packages.
pub struct Peers {
    python: PathBuf,
    /// Where packages lie that the interpreter doesn't have itself.
    packages: Option<PathBuf>,
    program: PathBuf,
    /// Versions of the packages.
    pub versions: Value,
}

impl Peers {
    /// Fetches what is missing into `folder`. `REID_PYTHON` may name an interpreter that has the packages already.
    ///
    /// # Errors
    /// If pip can't fetch, or a package can't be imported.
    pub fn prepare(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let folder = fs::canonicalize(folder).with_context(|| folder.display().to_string())?;
        let program = folder.join("edge_peers.py");
        fs::write(&program, PROGRAM).with_context(|| program.display().to_string())?;
        let own = std::env::var_os("REID_PYTHON").map(PathBuf::from);
        let packages = own.is_none().then(|| folder.join("packages"));
        let mut peers = Peers {
            python: own.unwrap_or_else(|| "python3".into()),
            packages,
            program,
            versions: Value::Null,
        };
        if let Some(packages) = &peers.packages {
            let list = folder.join("requirements.txt");
            if fs::read_to_string(&list).ok().as_deref() != Some(PACKAGES) || !packages.is_dir() {
                eprintln!(
                    "fetching BoxMOT, OpenCV, PyTorch, onnxruntime, motmetrics and TrackEval into {} (several gigabytes, once)",
                    packages.display()
                );
                let wanted = folder.join("wanted.txt");
                fs::write(&wanted, PACKAGES).with_context(|| wanted.display().to_string())?;
                let mut pip = Command::new(&peers.python);
                pip.args(["-m", "pip", "install", "-q", "--disable-pip-version-check"])
                    .args(["--no-compile", "--upgrade", "--target"])
                    .args([packages, Path::new("-r"), &wanted]);
                child::run(&mut pip, LIMIT).context("pip install")?;
                // Only now is the folder whole.
                fs::rename(&wanted, &list).with_context(|| list.display().to_string())?;
            }
        }
        peers.versions = peers.run(&["versions"])?;
        Ok(peers)
    }

    /// Lets the peer do a work (see tests/bench/edge_peers.py) and reads what it measured.
    ///
    /// # Errors
    /// If it fails, with what it said.
    pub fn run(&self, arguments: &[impl AsRef<OsStr>]) -> Result<Value> {
        let mut command = Command::new(&self.python);
        if let Some(packages) = &self.packages {
            command.env("PYTHONPATH", packages);
        }
        command.arg(&self.program).args(arguments);
        let work = arguments
            .first()
            .map_or_else(String::new, |a| a.as_ref().display().to_string());
        let done = child::run(&mut command, LIMIT).with_context(|| format!("the peer's {work}"))?;
        done.json()
    }

    /// Folder with the peer's ONNX Runtime library: ours runs the same file.
    ///
    /// # Errors
    /// If the peer doesn't say.
    pub fn library(&self) -> Result<&str> {
        let library = self.versions["library"].as_str();
        library.context("the peer does not say where its ONNX Runtime is")
    }

    /// The packages in one line.
    pub fn description(&self) -> String {
        let version = |name: &str| self.versions[name].as_str().unwrap_or("?").to_owned();
        format!(
            "OpenCV {}, onnxruntime {}, BoxMOT {} (with PyTorch {})",
            version("opencv-python"),
            version("onnxruntime"),
            version("boxmot"),
            version("torch")
        )
    }
}
