//! MATLAB's `.mat` files of level 5 ("MAT-File Format", MathWorks, chapter 1): numbers, text and cells; enough for the
//! protocol files of CUHK03 and MARS. No crate reads cells.
//!
//! Level 7.3 is another format (HDF5) under the same name; it is recognised and refused.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use flate2::read::ZlibDecoder;

use super::DataError;

/// A variable.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// Real numbers of any numeric class, column by column.
    Numbers {
        /// Rows, columns, ...
        dims: Vec<usize>,
        /// Elements, first index fastest.
        data: Vec<f64>,
    },
    /// A row of characters.
    Text(String),
    /// A cell array, first index fastest.
    Cells(Vec<Value>),
    /// A class that nothing here needs (struct, object, sparse).
    Other,
}

/// Protocol files are small; a compressed variable that grows beyond this is broken or hostile.
const LARGEST: u64 = 256 << 20;
/// Cells within cells.
const DEEPEST: usize = 16;

const COMPRESSED: u32 = 15;
const MATRIX: u32 = 14;

/// Variables by name.
///
/// # Errors
/// A file that can't be read, is not of level 5, or is cut short.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, Value>, DataError> {
    let bytes = std::fs::read(path).map_err(|source| DataError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    parse(&bytes).map_err(|reason| DataError::Malformed {
        path: path.to_path_buf(),
        reason,
    })
}

fn parse(bytes: &[u8]) -> Result<BTreeMap<String, Value>, String> {
    if bytes.starts_with(b"MATLAB 7.3 MAT-file") || bytes.starts_with(b"\x89HDF") {
        return Err("a MATLAB file of level 7.3; level 5 is expected (in MATLAB: save -v7)".into());
    }
    if bytes.len() < 128 || &bytes[126..128] != b"IM" {
        return Err("not a MATLAB file of level 5 (little-endian)".into());
    }
    let mut variables = BTreeMap::new();
    let mut rest = Cursor(&bytes[128..]);
    while !rest.0.is_empty() {
        let (kind, data) = rest.element()?;
        let inflated;
        let data = match kind {
            COMPRESSED => {
                inflated = inflate(data)?;
                let (kind, data) = Cursor(&inflated).element()?;
                if kind != MATRIX {
                    continue;
                }
                data
            }
            MATRIX => data,
            _ => continue,
        };
        let (name, value) = matrix(data, 0)?;
        variables.insert(name, value);
    }
    Ok(variables)
}

fn inflate(data: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let size = ZlibDecoder::new(data)
        .take(LARGEST + 1)
        .read_to_end(&mut out)
        .map_err(|e| format!("a compressed variable is broken: {e}"))?;
    if size as u64 > LARGEST {
        return Err(format!(
            "a compressed variable is larger than {} MiB",
            LARGEST >> 20
        ));
    }
    Ok(out)
}

/// What is left of a file or of a variable.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (head, tail) = self
            .0
            .split_at_checked(count)
            .ok_or("the file is cut short")?;
        self.0 = tail;
        Ok(head)
    }

    fn u32(&mut self) -> Result<u32, String> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// Data type and data of the next element.
    fn element(&mut self) -> Result<(u32, &'a [u8]), String> {
        let tag = self.u32()?;
        // Up to four bytes may stand in the tag itself, their number in its upper half.
        let small = (tag >> 16) as usize;
        if small > 0 {
            let data = self.take(4)?;
            let data = data.get(..small).ok_or("an element has a wrong size")?;
            return Ok((tag & 0xffff, data));
        }
        let size = self.u32()? as usize;
        let data = self.take(size)?;
        if tag != COMPRESSED {
            // The last element of a file may lack its padding.
            let padding = size.next_multiple_of(8) - size;
            self.take(padding.min(self.0.len()))?;
        }
        Ok((tag, data))
    }
}

/// Name and value of a matrix element.
fn matrix(data: &[u8], depth: usize) -> Result<(String, Value), String> {
    // An empty cell may be a matrix without anything in it.
    if data.is_empty() {
        let nothing = Value::Numbers {
            dims: vec![0, 0],
            data: Vec::new(),
        };
        return Ok((String::new(), nothing));
    }
    if depth > DEEPEST {
        return Err(format!("cells nested more than {DEEPEST} deep"));
    }
    let mut rest = Cursor(data);
    let (_, flags) = rest.element()?;
    let class = *flags.first().ok_or("a variable has no class")?;
    let (_, sizes) = rest.element()?;
    let dims: Vec<usize> = sizes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| usize::try_from(i32::from_le_bytes(*b)))
        .collect::<Result<_, _>>()
        .map_err(|_| "a variable has a negative size")?;
    let count = dims
        .iter()
        .try_fold(1usize, |n, &d| n.checked_mul(d))
        .ok_or("a variable's size is out of range")?;
    let (_, name) = rest.element()?;
    let name = String::from_utf8_lossy(name).into_owned();
    let expect = |found: usize| {
        if found == count {
            Ok(())
        } else {
            Err(format!(
                "variable {name:?} has {found} elements where its size is {dims:?}"
            ))
        }
    };
    let value = match class {
        1 => {
            let mut cells = Vec::new();
            while !rest.0.is_empty() {
                let (kind, data) = rest.element()?;
                if kind != MATRIX {
                    return Err(format!("cell array {name:?} holds something else"));
                }
                cells.push(matrix(data, depth + 1)?.1);
            }
            expect(cells.len())?;
            Value::Cells(cells)
        }
        4 => {
            let (kind, data) = if count == 0 && rest.0.is_empty() {
                (16, &[][..])
            } else {
                rest.element()?
            };
            Value::Text(text(kind, data)?)
        }
        6..=15 => {
            let data = if count == 0 && rest.0.is_empty() {
                Vec::new()
            } else {
                let (kind, data) = rest.element()?;
                numbers(kind, data)?
            };
            expect(data.len())?;
            Value::Numbers { dims, data }
        }
        _ => Value::Other,
    };
    Ok((name, value))
}

fn numbers(kind: u32, data: &[u8]) -> Result<Vec<f64>, String> {
    fn each<const N: usize>(data: &[u8], f: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        data.as_chunks::<N>().0.iter().map(|&b| f(b)).collect()
    }
    Ok(match kind {
        1 => each(data, |b| i8::from_le_bytes(b).into()),
        2 => each(data, |b| u8::from_le_bytes(b).into()),
        3 => each(data, |b| i16::from_le_bytes(b).into()),
        4 => each(data, |b| u16::from_le_bytes(b).into()),
        5 => each(data, |b| i32::from_le_bytes(b).into()),
        6 => each(data, |b| u32::from_le_bytes(b).into()),
        7 => each(data, |b| f32::from_le_bytes(b).into()),
        9 => each(data, f64::from_le_bytes),
        12 => each(data, |b| i64::from_le_bytes(b) as f64),
        13 => each(data, |b| u64::from_le_bytes(b) as f64),
        other => return Err(format!("numbers of unknown data type {other}")),
    })
}

fn text(kind: u32, data: &[u8]) -> Result<String, String> {
    Ok(match kind {
        // int8, uint8, UTF-8
        1 | 2 | 16 => String::from_utf8_lossy(data).into_owned(),
        // uint16, UTF-16
        4 | 17 => {
            let units: Vec<u16> = data
                .as_chunks::<2>()
                .0
                .iter()
                .map(|&b| u16::from_le_bytes(b))
                .collect();
            String::from_utf16_lossy(&units)
        }
        other => return Err(format!("text of unknown data type {other}")),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Made with SciPy by `tests/golden_data/protocols.py`.
    fn golden(name: &str) -> Vec<u8> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden_data/protocols");
        std::fs::read(path.join(name)).unwrap()
    }

    #[test]
    fn scipys_files_are_read_compressed_or_not() {
        let plain = parse(&golden("mat5_plain.mat")).unwrap();
        assert_eq!(parse(&golden("mat5_compressed.mat")).unwrap(), plain);
        let numbers = |dims: &[usize], data: &[f64]| Value::Numbers {
            dims: dims.into(),
            data: data.into(),
        };
        assert_eq!(
            plain["doubles"],
            numbers(&[2, 3], &[1.0, 4.0, 2.0, 5.0, 3.0, -6.5])
        );
        assert_eq!(plain["bytes"], numbers(&[1, 3], &[0.0, 7.0, 255.0]));
        assert_eq!(plain["words"], numbers(&[1, 2], &[-3.0, 40_000.0]));
        assert_eq!(plain["nothing"], numbers(&[0, 0], &[]));
        assert_eq!(plain["text"], Value::Text("1_001_1_01.png".into()));
        assert_eq!(
            plain["cells"],
            Value::Cells(vec![
                Value::Text("a.png".into()),
                numbers(&[1, 1], &[3.0]),
                Value::Cells(vec![Value::Text("deep.png".into())]),
            ])
        );
        assert_eq!(plain["structure"], Value::Other);
    }

    #[test]
    fn broken_files_are_refused_and_never_panic() {
        for name in ["mat5_plain.mat", "mat5_compressed.mat"] {
            let whole = golden(name);
            for end in 0..whole.len() {
                let _ = parse(&whole[..end]);
            }
            for at in 0..whole.len() {
                let mut bent = whole.clone();
                bent[at] ^= 0xff;
                let _ = parse(&bent);
            }
        }
        let plain = golden("mat5_plain.mat");
        let error = parse(&plain[..plain.len() / 2]).unwrap_err();
        assert!(error.contains("cut short"), "{error}");
        let error = parse(b"MATLAB 7.3 MAT-file, Platform: GLNXA64").unwrap_err();
        assert!(error.contains("7.3") && error.contains("-v7"), "{error}");
        assert!(parse(b"").unwrap_err().contains("level 5"));
    }
}
