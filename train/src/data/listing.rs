//! What lies in a data set's folder.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::DataError;

/// Subfolders deeper than this are a loop of links, not a data set.
pub(super) const DEEPEST: usize = 32;

/// Pictures of a folder by name, without its subfolders.
pub(super) fn pictures(dir: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut found: Vec<PathBuf> = entries(dir)?
        .into_iter()
        .filter(|path| is_picture(path) && path.is_file())
        .collect();
    found.sort();
    Ok(found)
}

/// Everything in a folder, sorted.
pub(super) fn entries(dir: &Path) -> Result<Vec<PathBuf>, DataError> {
    let fail = |source| DataError::Read {
        path: dir.to_path_buf(),
        source,
    };
    let mut paths = fs::read_dir(dir)
        .map_err(fail)?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(fail)?;
    paths.sort();
    Ok(paths)
}

/// By extension; other files (notes, `Thumbs.db`, keypoints) are none of our business. Hidden files are half-written ones.
pub(super) fn is_picture(path: &Path) -> bool {
    let hidden = path
        .file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let extension = path
        .extension()
        .map(|e| e.to_string_lossy().to_ascii_lowercase());
    !hidden && matches!(extension.as_deref(), Some("jpg" | "jpeg" | "png"))
}

/// The pictures of a folder and its subfolders, to be asked for. Reading folders is many times faster than asking for a
/// million files one by one.
pub(super) struct Listing(HashSet<PathBuf>);

impl Listing {
    pub(super) fn of(dir: &Path) -> Result<Self, DataError> {
        let mut files = Vec::new();
        walk(dir, 0, &mut files)?;
        Ok(Listing(files.into_iter().collect()))
    }

    pub(super) fn has(&self, path: &Path) -> bool {
        self.0.contains(path)
    }
}

/// Appends the pictures of a folder and its subfolders, in order.
pub(super) fn walk(dir: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    if depth > DEEPEST {
        return Err(DataError::Malformed {
            path: dir.to_path_buf(),
            reason: format!("more than {DEEPEST} folders deep; is there a link to a folder above?"),
        });
    }
    for path in entries(dir)? {
        // A folder may be called x.jpg.
        if path.is_dir() {
            walk(&path, depth + 1, files)?;
        } else if is_picture(&path) {
            files.push(path);
        }
    }
    Ok(())
}

/// A text file of a data set; `layout` says what the folder should hold if it isn't there.
pub(super) fn read_text(path: &Path, layout: &'static str) -> Result<String, DataError> {
    if !path.is_file() {
        return Err(DataError::NoFile {
            path: path.to_path_buf(),
            expected: layout.into(),
        });
    }
    let bytes = fs::read(path).map_err(|source| DataError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    String::from_utf8(bytes).map_err(|_| DataError::Malformed {
        path: path.to_path_buf(),
        reason: "not a text file".into(),
    })
}

/// An empty file, and its folders.
#[cfg(test)]
pub(super) fn touch(dir: &Path, name: &str) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().expect("a file in a folder")).expect("a folder can be made");
    fs::write(path, b"").expect("a file can be written");
}
