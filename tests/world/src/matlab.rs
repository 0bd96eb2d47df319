//! A matrix as a MATLAB file of level 5 ("MAT-File Format", MathWorks, chapter 1), uncompressed, little-endian.

/// A named matrix of numbers.
pub struct Matrix {
    name: String,
    rows: usize,
    columns: usize,
    /// Column by column.
    data: Vec<f64>,
}

impl Matrix {
    /// From rows of equal length.
    pub fn of_rows<const N: usize>(name: String, rows: &[[f64; N]]) -> Self {
        let data = (0..N).flat_map(|c| rows.iter().map(move |row| row[c]));
        Self {
            name,
            rows: rows.len(),
            columns: N,
            data: data.collect(),
        }
    }
}

const INT8: u32 = 1;
const INT32: u32 = 5;
const UINT32: u32 = 6;
const DOUBLE: u32 = 9;
const MATRIX: u32 = 14;
/// The class of arrays of doubles.
const DOUBLES: u32 = 6;

/// The bytes of a file that holds one matrix.
pub fn file(matrix: &Matrix) -> Vec<u8> {
    let mut body = Vec::new();
    let words =
        |values: &[u32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
    element(&mut body, UINT32, &words(&[DOUBLES, 0]));
    let dims = [matrix.rows as u32, matrix.columns as u32];
    element(&mut body, INT32, &words(&dims));
    element(&mut body, INT8, matrix.name.as_bytes());
    let values: Vec<u8> = matrix.data.iter().flat_map(|v| v.to_le_bytes()).collect();
    element(&mut body, DOUBLE, &values);
    let mut bytes = b"MATLAB 5.0 MAT-file, made by reid-world".to_vec();
    bytes.resize(124, b' ');
    // Version 1.0, then the mark of little-endian files.
    bytes.extend([0x00, 0x01, b'I', b'M']);
    element(&mut bytes, MATRIX, &body);
    bytes
}

/// Tag and data, filled up to eight bytes.
fn element(bytes: &mut Vec<u8>, kind: u32, data: &[u8]) {
    bytes.extend(kind.to_le_bytes());
    bytes.extend((data.len() as u32).to_le_bytes());
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
}
