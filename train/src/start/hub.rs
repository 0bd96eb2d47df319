//! `hf:OWNER/NAME` and `hf:OWNER/NAME/FILE`: weights that huggingface_hub's cache holds.
//!
//! The cache keeps a repository in `models--OWNER--NAME/snapshots/REVISION/`; its place is `HF_HUB_CACHE`, else `hub` under
//! `HF_HOME`, else `~/.cache/huggingface/hub`. Nothing is downloaded: what is missing is named with the place it belongs.

use std::path::{Component, Path, PathBuf};

use anyhow::Result;

use crate::config::usage;

/// Files that repositories keep weights in, the best first.
const FILES: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// The file in the cache.
///
/// # Errors
/// A name that is none, or a file that isn't in the cache.
pub(super) fn file(name: &str) -> Result<PathBuf> {
    find(name, &cache())
}

fn cache() -> PathBuf {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
    folder("HF_HUB_CACHE")
        .or_else(|| folder("HF_HOME").map(|home| home.join("hub")))
        .or_else(|| folder("HOME").map(|home| home.join(".cache/huggingface/hub")))
        .unwrap_or_else(|| PathBuf::from("huggingface/hub"))
}

fn find(name: &str, cache: &Path) -> Result<PathBuf> {
    let mut parts = name.splitn(3, '/');
    let (Some(owner), Some(repo), wanted) = (parts.next(), parts.next(), parts.next()) else {
        return Err(bad(name));
    };
    let plain = Path::new(name)
        .components()
        .all(|c| matches!(c, Component::Normal(_)));
    if owner.is_empty() || repo.is_empty() || wanted == Some("") || !plain {
        return Err(bad(name));
    }
    let snapshots = cache
        .join(format!("models--{owner}--{repo}"))
        .join("snapshots");
    let mut revisions: Vec<PathBuf> = std::fs::read_dir(&snapshots)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .collect();
    revisions.sort();
    let wanted: Vec<&str> = wanted.map_or(FILES.to_vec(), |file| vec![file]);
    wanted
        .iter()
        .flat_map(|file| revisions.iter().map(move |r| r.join(file)))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            usage(format!(
                "--init hf:{name}: not in the cache; put {} into {}, or give it as --init FILE",
                wanted.join(" or "),
                snapshots.join("main").display()
            ))
        })
}

fn bad(name: &str) -> anyhow::Error {
    usage(format!(
        "--init hf:{name}: expected hf:OWNER/NAME or hf:OWNER/NAME/FILE, such as hf:timm/resnet50.tv_in1k"
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_cache_is_searched_and_what_is_missing_is_named() {
        let cache = tempfile::tempdir().unwrap();
        let find = |name: &str| find(name, cache.path());
        let fail = |name: &str| find(name).unwrap_err().to_string();
        let message = fail("timm/resnet50.tv_in1k");
        assert!(
            message.contains("model.safetensors or pytorch_model.bin")
                && message.contains("models--timm--resnet50.tv_in1k/snapshots/main"),
            "{message}"
        );
        let snapshot = cache
            .path()
            .join("models--timm--resnet50.tv_in1k/snapshots/abc");
        std::fs::create_dir_all(snapshot.join("deep")).unwrap();
        std::fs::write(snapshot.join("pytorch_model.bin"), b"").unwrap();
        std::fs::write(snapshot.join("deep/x.pth"), b"").unwrap();
        assert_eq!(
            find("timm/resnet50.tv_in1k").unwrap(),
            snapshot.join("pytorch_model.bin")
        );
        assert_eq!(
            find("timm/resnet50.tv_in1k/deep/x.pth").unwrap(),
            snapshot.join("deep/x.pth")
        );
        for name in ["", "timm", "/x", "timm/", "timm/x/", "timm/../x", "../../x"] {
            assert!(fail(name).contains("hf:OWNER/NAME"), "{}", fail(name));
        }
    }
}
