//! Compiles the CUDA kernels, as they are, for the processor, with a table of them.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// How a kernel begins once macros are expanded; its name follows, then its parameters.
const KERNEL: &str = "extern \"C\" __global__ void __launch_bounds__(";

fn main() -> Result<(), Box<dyn Error>> {
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let (sources, emulator) = (here.join("../../train/cuda"), here.join("emulator"));
    println!("cargo::rerun-if-changed={}", sources.display());
    println!("cargo::rerun-if-changed={}", emulator.display());

    let mut files: Vec<PathBuf> = fs::read_dir(&sources)?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|f| f.extension().is_some_and(|e| e == "cu"));
    files.push(emulator.join("faults.cu"));
    files.sort();

    let mut build = compiler();
    build
        .include(&emulator)
        .include(&sources)
        .file(emulator.join("run.cpp"));
    let (mut declarations, mut names) = (String::new(), String::new());
    for file in &files {
        let module = file
            .file_stem()
            .and_then(|s| s.to_str())
            .ok_or("a kernel file without a name")?;
        let kernels = kernels_of(file, &sources, &out)?;
        let mut text = String::new();
        writeln!(text, "#include \"shim.h\"\n#include \"table.h\"")?;
        writeln!(text, "#include {:?}", file.display().to_string())?;
        writeln!(
            text,
            "extern const ReidKernel reid_{module}[];\nconst ReidKernel reid_{module}[] = {{"
        )?;
        for kernel in &kernels {
            writeln!(text, "    REID_KERNEL(\"{module}\", {kernel}),")?;
        }
        writeln!(text, "    {{nullptr, nullptr, nullptr, nullptr}}}};")?;
        let path = out.join(format!("{module}.cpp"));
        fs::write(&path, text)?;
        build.file(path);
        writeln!(declarations, "extern const ReidKernel reid_{module}[];")?;
        write!(names, "reid_{module}, ")?;
    }
    let modules = out.join("modules.cpp");
    fs::write(
        &modules,
        format!(
            "#include \"table.h\"\n{declarations}\
             extern const ReidKernel* const reid_modules[];\n\
             const ReidKernel* const reid_modules[] = {{{names}nullptr}};\n"
        ),
    )?;
    build.file(modules).try_compile("reid_gpu_kernels")?;
    Ok(())
}

/// C++ with what CUDA takes for granted; the emulator turns failed checks into errors that name the kernel.
fn compiler() -> cc::Build {
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .debug(false)
        .warnings(false)
        .flag("-fno-strict-aliasing")
        .flag("-ftls-model=initial-exec")
        .flag("-fvisibility=hidden")
        .flag("-fno-exceptions")
        .flag("-fsanitize=alignment,null,bounds")
        .flag_if_supported("-Wno-unknown-pragmas");
    build
}

/// Names of a file's kernels, also of those that macros make.
fn kernels_of(file: &Path, sources: &Path, out: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    // A copy by another name, because compilers know `.cu`; it includes what is beside the original.
    let copy = out.join("scan.cpp");
    fs::copy(file, &copy)?;
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .warnings(false)
        .include(sources);
    let text = String::from_utf8(build.file(&copy).try_expand()?)?;
    let names: Vec<String> = text
        .split(KERNEL)
        .skip(1)
        .filter_map(|rest| {
            let (_, rest) = rest.split_once(')')?;
            let (name, _) = rest.split_once('(')?;
            Some(name.trim().to_owned())
        })
        .collect();
    if names.is_empty() {
        return Err(format!("no kernels in {}", file.display()).into());
    }
    Ok(names)
}
