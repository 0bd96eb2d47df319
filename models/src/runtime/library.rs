//! Where ONNX Runtime's shared library is.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::RuntimeError;

/// Environment variables that name the library, a file or a folder that holds it; the first one that is set counts.
pub const VARIABLES: [&str; 2] = ["REID_ONNXRUNTIME", "ORT_DYLIB_PATH"];

/// How deep a folder is searched: `.deps/onnxruntime/onnxruntime/capi/` is three levels down.
const DEPTH: usize = 4;

/// Finds the library: `explicit` (a file or folder from a configuration), else [`VARIABLES`], else a `.deps` folder in
/// the current folder, beside the executable, or in a folder above either, else beside the executable itself. Folders
/// that anyone can write to are passed over.
///
/// # Errors
/// [`RuntimeError::Library`] if a place that was named, by configuration or variable, holds no library: a wrong path is
/// never passed over in silence.
pub fn find(explicit: Option<&Path>) -> Result<Option<PathBuf>, RuntimeError> {
    if let Some(place) = explicit {
        return named("runtime.library", place).map(Some);
    }
    for variable in VARIABLES {
        match env::var_os(variable) {
            Some(value) if !value.is_empty() => {
                return named(variable, Path::new(&value)).map(Some);
            }
            _ => {}
        }
    }
    let here = env::current_dir().ok();
    let beside = env::current_exe()
        .ok()
        .and_then(|exe| exe.parent().map(Path::to_path_buf));
    for start in [&here, &beside].into_iter().flatten() {
        for folder in start.ancestors().filter(|f| !anyone_can_write(f)) {
            if let Some(found) = search(&folder.join(".deps"), DEPTH) {
                return Ok(Some(found));
            }
        }
    }
    Ok(beside.and_then(|folder| search(&folder, 0)))
}

/// A folder such as `/tmp`, where a stranger could have put a library for us to run: its `.deps` is passed over.
fn anyone_can_write(folder: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(folder).is_ok_and(|m| m.mode() & 0o002 != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        false
    }
}

fn named(origin: &str, place: &Path) -> Result<PathBuf, RuntimeError> {
    // A bare name ("libonnxruntime.so") is for the system's loader to find.
    let bare = place.components().count() == 1 && is_library(&place.as_os_str().to_owned());
    if place.is_file() || (bare && !place.exists()) {
        return Ok(place.to_path_buf());
    }
    search(place, DEPTH).ok_or_else(|| RuntimeError::Library {
        reason: format!(
            "{origin} is {}, which is no file and no folder that holds libonnxruntime.so*",
            place.display()
        ),
    })
}

/// The newest library (by name) in a folder or below it. Folders are read in sorted order, links are not followed down.
fn search(folder: &Path, depth: usize) -> Option<PathBuf> {
    let mut entries: Vec<fs::DirEntry> = fs::read_dir(folder).ok()?.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    let library = entries
        .iter()
        .rev()
        .find(|e| is_library(&e.file_name()) && e.path().is_file());
    if let Some(entry) = library {
        return Some(entry.path());
    }
    if depth == 0 {
        return None;
    }
    entries
        .iter()
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .find_map(|e| search(&e.path(), depth - 1))
}

/// `libonnxruntime.so`, `libonnxruntime.so.1.20.1`, `libonnxruntime.1.20.1.dylib`, `onnxruntime.dll`; not
/// `libonnxruntime_providers_shared.so`.
fn is_library(name: &OsString) -> bool {
    let Some(name) = name.to_str() else {
        return false;
    };
    name == "onnxruntime.dll"
        || name == "libonnxruntime.so"
        || name.starts_with("libonnxruntime.so.")
        || (name.starts_with("libonnxruntime.") && name.ends_with(".dylib"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_folder_is_searched_and_other_libraries_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let capi = dir.path().join("onnxruntime/onnxruntime/capi");
        fs::create_dir_all(&capi).unwrap();
        fs::write(capi.join("libonnxruntime_providers_shared.so"), b"").unwrap();
        let err = find(Some(dir.path())).unwrap_err().to_string();
        assert!(
            err.contains("runtime.library") && err.contains("libonnxruntime.so"),
            "{err}"
        );
        fs::write(capi.join("libonnxruntime.so.1.9.0"), b"").unwrap();
        assert_eq!(
            find(Some(dir.path())).unwrap().unwrap(),
            capi.join("libonnxruntime.so.1.9.0")
        );
    }

    #[test]
    fn a_named_file_that_is_missing_is_an_error() {
        let err = find(Some(Path::new("/nowhere/libonnxruntime.so"))).unwrap_err();
        assert!(
            err.to_string().contains("/nowhere/libonnxruntime.so"),
            "{err}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_anyone_can_write_to_is_not_trusted() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        assert!(!anyone_can_write(dir.path()));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(anyone_can_write(dir.path()));
    }

    #[test]
    fn a_bare_name_is_left_to_the_loader() {
        let name = Path::new("libonnxruntime.so.77");
        assert_eq!(find(Some(name)).unwrap().unwrap(), name);
    }
}
