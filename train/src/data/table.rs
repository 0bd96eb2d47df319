//! Tables of numbers that protocols come in: MATLAB files or text.

use std::path::{Path, PathBuf};

use super::DataError;
use super::listing::read_text;
use super::mat5::{self, Value};

/// A whole number that an i64 holds.
pub(super) fn integer(x: f64) -> Option<i64> {
    (x.fract() == 0.0 && x.abs() < 1e15).then_some(x as i64)
}

/// Rows of a table of `columns` numbers: `STEM.mat` in `info` (the variable `name`), or `STEM.txt` or `.csv` with numbers
/// between blanks or commas; and the file it came from. `layout` says what should be there.
///
/// # Errors
/// No such file, no such variable, or another shape.
pub(super) fn table(
    info: &Path,
    stem: &str,
    name: &str,
    columns: usize,
    layout: &'static str,
) -> Result<(PathBuf, Vec<Vec<f64>>), DataError> {
    let mat = info.join(format!("{stem}.mat"));
    for text in ["txt", "csv"].map(|e| info.join(format!("{stem}.{e}"))) {
        if !mat.is_file() && text.is_file() {
            let rows = text_table(&text, columns, layout)?;
            return Ok((text, rows));
        }
    }
    if !mat.is_file() {
        return Err(DataError::NoFile {
            path: mat,
            expected: layout.into(),
        });
    }
    let mut variables = mat5::read(&mat)?;
    let Some(Value::Numbers { dims, data }) = variables.remove(name) else {
        let found: Vec<&str> = variables.keys().map(String::as_str).collect();
        return Err(DataError::Malformed {
            path: mat,
            reason: format!("no numbers named {name} (it holds {})", found.join(", ")),
        });
    };
    // A list is a row or a column.
    let rows = if columns == 1 { data.len() } else { dims[0] };
    if data.len() != rows * columns {
        return Err(DataError::Malformed {
            path: mat,
            reason: format!("{name} is {dims:?}, expected {columns} columns"),
        });
    }
    let rows = (0..rows)
        .map(|r| (0..columns).map(|c| data[c * rows + r]).collect())
        .collect();
    Ok((mat, rows))
}

fn text_table(
    path: &Path,
    columns: usize,
    layout: &'static str,
) -> Result<Vec<Vec<f64>>, DataError> {
    let text = read_text(path, layout)?;
    let mut rows = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let cells = || {
            line.split([',', ' ', '\t', ';'])
                .filter(|cell| !cell.is_empty())
        };
        let row: Option<Vec<f64>> = cells().map(|cell| cell.trim().parse().ok()).collect();
        match row {
            Some(row) if row.is_empty() => {}
            // A list may be written in one line.
            Some(row) if columns == 1 => rows.extend(row.into_iter().map(|x| vec![x])),
            Some(row) if row.len() == columns => rows.push(row),
            _ => {
                return Err(DataError::Malformed {
                    path: path.to_path_buf(),
                    reason: format!("line {}: {line:?} is not {columns} numbers", n + 1),
                });
            }
        }
    }
    Ok(rows)
}
