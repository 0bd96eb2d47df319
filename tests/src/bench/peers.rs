//! Python packages that the benches measure against, in a folder of the bench's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The program every measurement of a peer goes through.
const PROGRAM: &str = include_str!("../../bench/peers.py");
/// Packages it needs.
const PACKAGES: &str = include_str!("../../bench/requirements.txt");
/// Whose wheel carries torchreid's Cython ranking as source; torchreid's own package on PyPI has none.
const CYTHON_CARRIER: &str = "fastreid==1.4.0";

/// An interpreter with the packages.
pub struct Peers {
    python: PathBuf,
    /// Where packages lie that the interpreter doesn't have itself.
    packages: Option<PathBuf>,
    program: PathBuf,
    cython: PathBuf,
}

impl Peers {
    /// Fetches what is missing into `folder`. `REID_PYTHON` may name an interpreter that has the packages already.
    ///
    /// # Errors
    /// If pip can't fetch, or the Cython code doesn't build.
    pub fn prepare(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let folder = fs::canonicalize(folder).with_context(|| folder.display().to_string())?;
        let program = folder.join("peers.py");
        fs::write(&program, PROGRAM).with_context(|| program.display().to_string())?;
        let own = std::env::var_os("REID_PYTHON").map(PathBuf::from);
        let packages = own.is_none().then(|| folder.join("packages"));
        let peers = Peers {
            python: own.unwrap_or_else(|| "python3".into()),
            packages,
            program,
            cython: folder.join("cython"),
        };
        if let Some(packages) = &peers.packages {
            let list = folder.join("requirements.txt");
            if fs::read_to_string(&list).ok().as_deref() != Some(PACKAGES) || !packages.is_dir() {
                eprintln!(
                    "fetching PyTorch, faiss and scikit-learn into {} (several gigabytes, once)",
                    packages.display()
                );
                let wanted = folder.join("wanted.txt");
                fs::write(&wanted, PACKAGES).with_context(|| wanted.display().to_string())?;
                let (target, from) = (packages.as_os_str(), wanted.as_os_str());
                let fixed =
                    ["-q", "--no-compile", "--upgrade", "--target"].map(std::ffi::OsStr::new);
                let tail = [target, std::ffi::OsStr::new("-r"), from];
                peers.pip("install", &[&fixed[..], &tail[..]].concat())?;
                // Only now is the folder whole.
                fs::rename(&wanted, &list).with_context(|| list.display().to_string())?;
            }
        }
        let built = fs::read_dir(&peers.cython).is_ok_and(|mut files| {
            files.any(|f| f.is_ok_and(|f| f.path().extension().is_some_and(|e| e == "so")))
        });
        if !built {
            let wheel = folder.join("wheel");
            let target = wheel.as_os_str();
            let fixed = ["-q", "--no-deps", CYTHON_CARRIER, "-d"].map(std::ffi::OsStr::new);
            peers.pip("download", &[&fixed[..], &[target]].concat())?;
            let file = fs::read_dir(&wheel)
                .with_context(|| wheel.display().to_string())?
                .filter_map(Result::ok)
                .map(|entry| entry.path())
                .find(|path| path.extension().is_some_and(|e| e == "whl"))
                .context("pip brought no wheel of fastreid")?;
            let (file, cython) = (file.display().to_string(), peers.cython_folder());
            peers.run(&["build-cython", &file, &cython])?;
        }
        Ok(peers)
    }

    /// Where the compiled ranking lies.
    pub fn cython_folder(&self) -> String {
        self.cython.display().to_string()
    }

    /// Lets the peer do a work (see tests/bench/peers.py) and reads what it measured.
    ///
    /// # Errors
    /// If it fails, with what it said.
    pub fn run(&self, arguments: &[&str]) -> Result<Value> {
        let output = self
            .command()
            .arg(&self.program)
            .args(arguments)
            .output()
            .with_context(|| format!("cannot start {}", self.python.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            bail!("peers.py {} failed: {}", arguments.join(" "), said.trim());
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let last = text.lines().last().unwrap_or_default();
        serde_json::from_str(last).with_context(|| format!("peers.py answered {last:?}"))
    }

    fn pip(&self, verb: &str, arguments: &[&std::ffi::OsStr]) -> Result<()> {
        let output = self
            .command()
            .args(["-m", "pip", verb, "--disable-pip-version-check"])
            .args(arguments)
            .output()
            .with_context(|| format!("cannot start {}", self.python.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("pip {verb} failed: {}", said.trim());
        }
        Ok(())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.python);
        if let Some(packages) = &self.packages {
            command.env("PYTHONPATH", packages);
        }
        command
    }
}
