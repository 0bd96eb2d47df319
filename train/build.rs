//! Compiles the kernels of `train/cuda` into PTX when the feature `cuda` is on; without it, does nothing.
//!
//! PTX and not machine code: one file serves every GPU from the chosen compute capability on, the driver translates it once
//! and keeps the result. The list of modules is written as Rust source into `OUT_DIR` for `src/nn/gpu/cuda.rs`.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

/// Compute capability when `CUDA_COMPUTE_CAP` says nothing: the oldest whose arithmetic knows bf16.
const DEFAULT_CAPABILITY: &str = "80";

fn main() -> ExitCode {
    // Without any such line cargo would run this again after every change of the package.
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return ExitCode::SUCCESS;
    }
    // A folder stands for all that is in it, headers too.
    println!("cargo::rerun-if-changed=cuda");
    for name in [
        "CUDA_COMPUTE_CAP",
        "CUDA_HOME",
        "CUDA_PATH",
        "NVCC",
        "NVCC_CCBIN",
    ] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    match compile() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!(
                "cargo::error={}",
                message.trim_end().replace('\n', "\ncargo::error=")
            );
            ExitCode::FAILURE
        }
    }
}

fn compile() -> Result<(), String> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR for build scripts")?);
    let nvcc = find_nvcc();
    let release = release(&nvcc)?;
    let capability = env::var("CUDA_COMPUTE_CAP")
        .unwrap_or_default()
        .replace('.', "");
    let capability = match capability.trim() {
        "" => DEFAULT_CAPABILITY,
        given => given,
    };
    // "90a" is one, too: such PTX runs on that one generation only.
    let digits = capability.trim_end_matches(|c: char| c.is_ascii_lowercase());
    let number: u32 = digits.parse().map_err(|_| {
        format!(
            "CUDA_COMPUTE_CAP is {capability:?}: give the compute capability without its dot, such as 80 or 90"
        )
    })?;

    let mut sources: Vec<PathBuf> = fs::read_dir("cuda")
        .map_err(|e| format!("cannot read the folder train/cuda: {e}"))?
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "cu"))
        .collect();
    sources.sort();

    // All at once: there are few, and each takes seconds.
    let mut running = Vec::new();
    for source in &sources {
        let ptx = out.join(name_of(source)?).with_extension("ptx");
        let mut command = Command::new(&nvcc);
        command
            .args(["-ptx", "-O3", "-std=c++17"])
            .arg(format!("--gpu-architecture=compute_{capability}"))
            .arg("-o")
            .arg(&ptx)
            .arg(source);
        if let Some(compiler) = env::var_os("NVCC_CCBIN") {
            command.arg("-ccbin").arg(compiler);
        }
        command
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let child = command
            .spawn()
            .map_err(|e| format!("cannot run {}: {e}", nvcc.display()))?;
        running.push((source, child));
    }
    let mut failures = String::new();
    for (source, child) in running {
        let output = child
            .wait_with_output()
            .map_err(|e| format!("waiting for nvcc: {e}"))?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        if !output.status.success() {
            failures.push_str(&format!(
                "nvcc could not compile train/{}:\n{said}\n",
                source.display()
            ));
        } else {
            for line in said.lines().filter(|line| !line.trim().is_empty()) {
                println!("cargo::warning={line}");
            }
        }
    }
    if !failures.is_empty() {
        return Err(failures);
    }

    let mut list = String::from("/// Name and PTX of every file of `train/cuda`.\n");
    list.push_str("pub const MODULES: &[(&str, &str)] = &[\n");
    for source in &sources {
        let name = name_of(source)?;
        list.push_str(&format!(
            "    ({name:?}, include_str!(concat!(env!(\"OUT_DIR\"), \"/{name}.ptx\"))),\n"
        ));
    }
    list.push_str("];\n/// Compute capability they were compiled for, times ten.\n");
    list.push_str(&format!("pub const CAPABILITY: u32 = {number};\n"));
    list.push_str("/// CUDA toolkit that compiled them: the driver must be at least as new.\n");
    list.push_str(&format!("pub const TOOLKIT: &str = {release:?};\n"));
    fs::write(out.join("modules.rs"), list).map_err(|e| format!("cannot write modules.rs: {e}"))
}

fn name_of(source: &Path) -> Result<&str, String> {
    source
        .file_stem()
        .and_then(|name| name.to_str())
        .ok_or_else(|| format!("{}: a name that is not text", source.display()))
}

/// `$NVCC`, the toolkit of `$CUDA_HOME` or `$CUDA_PATH`, or what PATH finds.
fn find_nvcc() -> PathBuf {
    if let Some(nvcc) = env::var_os("NVCC") {
        return nvcc.into();
    }
    ["CUDA_HOME", "CUDA_PATH"]
        .iter()
        .filter_map(env::var_os)
        .map(|home| PathBuf::from(home).join("bin").join("nvcc"))
        .find(|nvcc| nvcc.exists())
        .unwrap_or_else(|| PathBuf::from("nvcc"))
}

/// "13.0" of "Cuda compilation tools, release 13.0, V13.0.88".
fn release(nvcc: &Path) -> Result<String, String> {
    let output = Command::new(nvcc).arg("--version").output().map_err(|e| {
        format!(
            "the feature `cuda` needs a CUDA toolkit, and {} does not run ({e})\n\
             With a toolkit installed: set CUDA_HOME to its folder, or put its bin/ into PATH.\n\
             Without one: `./reid build-cuda` fetches one into the project and builds with it (docs/CONTRIBUTING.md).",
            nvcc.display()
        )
    })?;
    let said = String::from_utf8_lossy(&output.stdout);
    said.split("release ")
        .nth(1)
        .and_then(|rest| rest.split(',').next())
        .map(|version| version.trim().to_owned())
        .ok_or_else(|| format!("{} --version says no release:\n{said}", nvcc.display()))
}
