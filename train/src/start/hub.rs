//! `hf:OWNER/NAME` and `hf:OWNER/NAME/FILE`: weights from huggingface_hub's cache or, if it has none, from the hub itself.
//!
//! The cache keeps a repository in `models--OWNER--NAME/snapshots/REVISION/`; its place is `HF_HUB_CACHE`, else `hub` under
//! `HF_HOME`, else `~/.cache/huggingface/hub`. What is there is taken without a word to the network. What is missing is
//! downloaded into it, unless `HF_HUB_OFFLINE` is set; what cannot be had is named with the place it belongs.

use std::path::{Component, Path, PathBuf};

use anyhow::{Result, bail};

use super::download::{Download, Failure, Patience};
use crate::config::usage;

/// Files that repositories keep weights in, the best first.
const FILES: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// The file in the cache, downloaded if it was not there.
///
/// # Errors
/// A name that is none; a file that is neither in the cache nor to be had, saying why and where to put it.
pub(super) fn file(name: &str) -> Result<PathBuf> {
    Hub::from_environment().file(name)
}

/// Where weights come from.
struct Hub {
    cache: PathBuf,
    /// No word to the network.
    offline: bool,
    download: Download,
}

impl Hub {
    /// By the variables that huggingface_hub knows.
    fn from_environment() -> Self {
        let text = |name: &str| std::env::var(name).ok().filter(|v| !v.trim().is_empty());
        let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let home = folder("HF_HOME")
            .or_else(|| folder("HOME").map(|home| home.join(".cache/huggingface")))
            .unwrap_or_else(|| PathBuf::from("huggingface"));
        let cache = folder("HF_HUB_CACHE").unwrap_or_else(|| home.join("hub"));
        let token_file = folder("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        let token = text("HF_TOKEN").or_else(|| std::fs::read_to_string(token_file).ok());
        let offline = text("HF_HUB_OFFLINE").is_some_and(|v| {
            ["1", "ON", "YES", "TRUE"].contains(&v.trim().to_uppercase().as_str())
        });
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        Hub {
            offline,
            download: Download {
                cache: cache.clone(),
                endpoint: endpoint.trim().trim_end_matches('/').into(),
                token: token
                    .map(|t| t.trim().into())
                    .filter(|t: &String| !t.is_empty()),
                patience: Patience::default(),
            },
            cache,
        }
    }

    fn file(&self, name: &str) -> Result<PathBuf> {
        let (repository, wanted) = parse(name)?;
        let snapshots = self
            .cache
            .join(format!("models--{}", repository.replace('/', "--")))
            .join("snapshots");
        if let Some(found) = find(&snapshots, &wanted) {
            return Ok(found);
        }
        let cause = if self.offline {
            "HF_HUB_OFFLINE is set".to_string()
        } else {
            match self.fetch(&repository, &wanted) {
                Ok(path) => return Ok(path),
                Err(cause) => cause,
            }
        };
        bail!(
            "--init hf:{name}: not in the cache and not downloaded ({cause}); put {} into {}, or give it as --init FILE",
            wanted.join(" or "),
            snapshots.join("main").display()
        )
    }

    /// The first of `wanted` that the hub has, or why there is none.
    fn fetch(&self, repository: &str, wanted: &[&str]) -> Result<PathBuf, String> {
        for file in wanted {
            tracing::info!("downloading {file} of {repository}");
            match self.download.file(repository, file) {
                Ok(path) => return Ok(path),
                Err(Failure::Absent) => {}
                Err(Failure::Other(cause)) => return Err(cause),
            }
        }
        Err(format!("{repository} has no {}", wanted.join(" and no ")))
    }
}

/// The repository, and the files that would do.
fn parse(name: &str) -> Result<(String, Vec<&str>)> {
    let bad = || {
        usage(format!(
            "--init hf:{name}: expected hf:OWNER/NAME or hf:OWNER/NAME/FILE, such as hf:timm/resnet50.tv_in1k"
        ))
    };
    let mut parts = name.splitn(3, '/');
    let (Some(owner), Some(repo), wanted) = (parts.next(), parts.next(), parts.next()) else {
        return Err(bad());
    };
    let plain = Path::new(name)
        .components()
        .all(|c| matches!(c, Component::Normal(_)));
    // Whatever else a name holds would be read as part of an address.
    let address = |c: char| c.is_control() || c.is_whitespace() || "?#%\\".contains(c);
    if owner.is_empty() || repo.is_empty() || wanted == Some("") || !plain || name.contains(address)
    {
        return Err(bad());
    }
    let wanted = wanted.map_or(FILES.to_vec(), |file| vec![file]);
    Ok((format!("{owner}/{repo}"), wanted))
}

fn find(snapshots: &Path, wanted: &[&str]) -> Option<PathBuf> {
    let mut revisions: Vec<PathBuf> = std::fs::read_dir(snapshots)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .collect();
    revisions.sort();
    wanted
        .iter()
        .flat_map(|file| revisions.iter().map(move |r| r.join(file)))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::download::server::Server;
    use super::*;
    use crate::config::UsageError;

    fn hub(cache: &Path, endpoint: String) -> Hub {
        Hub {
            cache: cache.to_path_buf(),
            offline: false,
            download: Download {
                cache: cache.to_path_buf(),
                endpoint,
                token: None,
                patience: Patience::default(),
            },
        }
    }

    #[test]
    fn the_cache_is_searched_first_and_what_is_missing_is_named() {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::start(&[]);
        let hub = Hub {
            offline: true,
            ..hub(cache.path(), server.endpoint())
        };
        let find = |name: &str| hub.file(name);
        let fail = |name: &str| find(name).unwrap_err();
        let error = fail("timm/resnet50.tv_in1k");
        let message = error.to_string();
        assert!(
            message.contains("HF_HUB_OFFLINE")
                && message.contains("model.safetensors or pytorch_model.bin")
                && message.contains("models--timm--resnet50.tv_in1k/snapshots/main"),
            "{message}"
        );
        assert!(!error.is::<UsageError>(), "no mistake of the user");
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
        for name in [
            "",
            "timm",
            "/x",
            "timm/",
            "timm/x/",
            "timm/../x",
            "../../x",
            "timm/x?y",
            "timm/x y",
        ] {
            let error = fail(name);
            assert!(error.to_string().contains("hf:OWNER/NAME"), "{error}");
            assert!(error.is::<UsageError>());
        }
        assert!(server.requests().is_empty(), "offline is offline");
    }

    #[test]
    fn what_is_missing_is_downloaded_once() {
        let cache = tempfile::tempdir().unwrap();
        let weights = vec![7u8; 300_000];
        let server = Server::start(&[("/timm/net/resolve/main/pytorch_model.bin", &weights)]);
        let hub = hub(cache.path(), server.endpoint());
        let path = hub.file("timm/net").unwrap();
        assert!(path.ends_with("pytorch_model.bin") && path.starts_with(cache.path()));
        assert_eq!(std::fs::read(&path).unwrap(), weights);
        let asked = server.requests();
        assert!(
            asked[0].contains("/timm/net/resolve/main/model.safetensors"),
            "the better file is asked for first: {asked:?}"
        );
        assert_eq!(hub.file("timm/net").unwrap(), path);
        assert_eq!(
            server.requests().len(),
            asked.len(),
            "the cache comes first"
        );
        let message = hub.file("timm/other").unwrap_err().to_string();
        assert!(
            message.contains("timm/other has no model.safetensors and no pytorch_model.bin")
                && message.contains("snapshots/main"),
            "{message}"
        );
    }
}
