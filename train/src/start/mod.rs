//! Starting weights: what `--init` names.

mod download;
mod hub;
mod pth;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use reid_models::Graph;
use reid_models::weights::{LoadReport, Weights};

use crate::config::usage;

/// Names printed of those missing or left over.
const SHOWN: usize = 8;

/// Reads what `--init` names; `None` for "random".
///
/// # Errors
/// If it names nothing that is there, or a file that can't be used.
pub(crate) fn starting_weights(init: &str) -> Result<Option<Weights>> {
    let path = match init {
        "random" => return Ok(None),
        "imagenet" => {
            return Err(usage(
                "this preset starts from ImageNet weights, which are not shipped: give torchvision's or timm's file with \
                 --init FILE (for ResNet-50, timm's resnet50.tv_in1k), or start from nothing with --init random",
            ));
        }
        _ => match (init.strip_prefix("zoo:"), init.strip_prefix("hf:")) {
            (Some(name), _) => zoo_file(name)?,
            (_, Some(name)) => hub::file(name)?,
            _ => PathBuf::from(init),
        },
    };
    if !path.exists() {
        return Err(usage(format!(
            "--init {init}: no such file (known besides files: random, zoo:NAME, hf:REPO, hf:REPO/FILE)"
        )));
    }
    read(&path).map(Some)
}

/// Reads a safetensors file or a PyTorch checkpoint, told apart by their first bytes.
fn read(path: &Path) -> Result<Weights> {
    let mut head = [0; 16];
    let length = {
        use std::io::Read;
        let mut file =
            std::fs::File::open(path).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?;
        file.read(&mut head)
            .map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?
    };
    let head = &head[..length];
    if head.starts_with(pth::LEGACY) {
        bail!(
            "{}: written by PyTorch before 1.6; in a newer one: torch.save(torch.load(FILE, weights_only=True), NEW_FILE)",
            path.display()
        );
    }
    if head.starts_with(pth::MAGIC) {
        let (weights, keys) = pth::read(path)?;
        if !keys.is_empty() {
            tracing::info!(
                "{}: taken from its key {keys}",
                name_of(&path.to_string_lossy())
            );
        }
        return Ok(weights);
    }
    Ok(Weights::read(path)?)
}

/// `models/zoo/NAME.safetensors` under the folder in `REID_ZOO`, or above the working folder or the program.
fn zoo_file(name: &str) -> Result<PathBuf> {
    let mut folders = Vec::new();
    if let Some(folder) = std::env::var_os("REID_ZOO") {
        folders.push(PathBuf::from(folder));
    }
    for start in [std::env::current_dir().ok(), std::env::current_exe().ok()]
        .into_iter()
        .flatten()
    {
        folders.extend(start.ancestors().map(|a| a.join("models/zoo")));
    }
    let file = format!("{name}.safetensors");
    if let Some(found) = folders.iter().map(|f| f.join(&file)).find(|p| p.exists()) {
        return Ok(found);
    }
    let mut known: Vec<String> = folders
        .iter()
        .filter_map(|f| std::fs::read_dir(f).ok())
        .flatten()
        .flatten()
        .filter_map(|e| {
            e.file_name()
                .to_str()?
                .strip_suffix(".safetensors")
                .map(String::from)
        })
        .collect();
    known.sort();
    known.dedup();
    let known = if known.is_empty() {
        "none found".into()
    } else {
        known.join(", ")
    };
    Err(usage(format!(
        "--init zoo:{name}: unknown starting point (known: {known}); set REID_ZOO to the folder models/zoo"
    )))
}

/// What is written down about the start: a name, never a path.
pub(crate) fn name_of(init: &str) -> String {
    if init.starts_with("zoo:") || init.starts_with("hf:") {
        return init.into();
    }
    Path::new(init)
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Reports what was loaded, and refuses weights of another network.
pub(crate) fn check_loaded(init: &str, graph: &Graph, report: &LoadReport) -> Result<()> {
    tracing::info!(
        "{init}: {} tensors loaded, {} missing, {} unused",
        report.loaded.len(),
        report.missing.len(),
        report.unused.len()
    );
    for (what, names) in [("missing", &report.missing), ("unused", &report.unused)] {
        for name in names.iter().take(SHOWN) {
            tracing::info!("{init}: {what}: {name}");
        }
        if names.len() > SHOWN {
            tracing::info!("{init}: {what}: and {} more", names.len() - SHOWN);
        }
    }
    if let Some(refused) = report.reshaped_refused.first() {
        return Err(usage(format!(
            "--init {init}: the weights are of another network than {}: {refused} ({} tensors differ); set model.backbone \
             and model.width to match",
            graph.name,
            report.reshaped_refused.len()
        )));
    }
    if report.loaded.is_empty() {
        return Err(usage(format!(
            "--init {init}: no tensor of the file has a name of {}: expected the names of torchvision, timm, torchreid or fast-reid, such as {}",
            graph.name,
            graph.params.first().map_or("conv1.weight", |p| &p.name)
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn files_are_told_apart_by_what_is_in_them() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden_data/checkpoints");
        let expected = read(&golden.join("expected.safetensors")).unwrap();
        assert_eq!(read(&golden.join("plain.pth")).unwrap(), expected);
        let error = read(&golden.join("legacy.pth")).unwrap_err().to_string();
        assert!(
            error.contains("legacy.pth") && error.contains("before 1.6"),
            "{error}"
        );
        for (init, part) in [
            ("/no/such/file.pth", "no such file"),
            ("hf:only-a-name", "hf:OWNER/NAME"),
            ("imagenet", "not shipped"),
        ] {
            let error = starting_weights(init).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        assert!(starting_weights("random").unwrap().is_none());
    }

    #[test]
    fn names_are_no_paths() {
        for (init, name) in [
            ("a/b/c.pth", "c.pth"),
            ("zoo:mall", "zoo:mall"),
            ("hf:timm/resnet50.tv_in1k", "hf:timm/resnet50.tv_in1k"),
        ] {
            assert_eq!(name_of(init), name);
        }
    }
}
