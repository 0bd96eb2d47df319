//! A contact sheet of ranked lists, for looking: one row per query, its best answers to the right.

use std::path::{Path, PathBuf};

use image::imageops::{self, FilterType};
use image::{ImageFormat, Rgb, RgbImage};
use reid_models::{files, preprocess};

use super::rank::EvalError;

/// Width of a picture on the sheet, in pixels.
const WIDTH: u32 = 64;
/// Height of a picture on the sheet, in pixels.
const HEIGHT: u32 = 128;
/// Border that tells right from wrong, in pixels.
const BORDER: u32 = 4;
/// Space between pictures, in pixels.
const GAP: u32 = 4;

const PAPER: Rgb<u8> = Rgb([255, 255, 255]);
const QUERY: Rgb<u8> = Rgb([60, 60, 60]);
const RIGHT: Rgb<u8> = Rgb([30, 160, 60]);
const WRONG: Rgb<u8> = Rgb([210, 40, 40]);

/// One row of the sheet.
#[derive(Clone, Debug, PartialEq)]
pub struct SheetRow {
    /// Picture of the query.
    pub query: PathBuf,
    /// Answers from best to worst, and whether each is right.
    pub answers: Vec<(PathBuf, bool)>,
}

/// Draws the sheet: query (grey), then its answers (green right, red wrong).
///
/// # Errors
/// [`EvalError::File`] naming a picture that can't be read.
pub fn contact_sheet(rows: &[SheetRow]) -> Result<RgbImage, EvalError> {
    let cell = (WIDTH + 2 * BORDER + GAP, HEIGHT + 2 * BORDER + GAP);
    let columns = rows.iter().map(|row| row.answers.len()).max().unwrap_or(0) as u32 + 1;
    // The query stands a little apart.
    let size = (
        columns * cell.0 + 3 * GAP,
        (rows.len() as u32 * cell.1).max(1) + GAP,
    );
    let mut sheet = RgbImage::from_pixel(size.0, size.1, PAPER);
    for (r, row) in rows.iter().enumerate() {
        let y = GAP + r as u32 * cell.1;
        place(&mut sheet, &row.query, (GAP, y), QUERY)?;
        for (c, (path, right)) in row.answers.iter().enumerate() {
            let x = 3 * GAP + (c as u32 + 1) * cell.0;
            place(&mut sheet, path, (x, y), if *right { RIGHT } else { WRONG })?;
        }
    }
    Ok(sheet)
}

/// Draws the sheet into a PNG file, atomically.
///
/// # Errors
/// As [`contact_sheet`], or if the file can't be written.
pub fn write_contact_sheet(rows: &[SheetRow], path: &Path) -> Result<(), EvalError> {
    let mut png = std::io::Cursor::new(Vec::new());
    contact_sheet(rows)?
        .write_to(&mut png, ImageFormat::Png)
        .map_err(|e| EvalError::File {
            path: path.to_path_buf(),
            reason: format!("cannot encode the contact sheet: {e}"),
        })?;
    Ok(files::write_atomic(path, png.get_ref())?)
}

fn place(
    sheet: &mut RgbImage,
    path: &Path,
    (x, y): (u32, u32),
    border: Rgb<u8>,
) -> Result<(), EvalError> {
    let picture = preprocess::decode(path).map_err(|e| EvalError::File {
        path: path.to_path_buf(),
        reason: e.to_string(),
    })?;
    let small = imageops::resize(&picture, WIDTH, HEIGHT, FilterType::Triangle);
    let frame = RgbImage::from_pixel(WIDTH + 2 * BORDER, HEIGHT + 2 * BORDER, border);
    imageops::replace(sheet, &frame, i64::from(x), i64::from(y));
    imageops::replace(sheet, &small, i64::from(x + BORDER), i64::from(y + BORDER));
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn right_is_green_and_wrong_is_red() {
        let dir = tempfile::tempdir().unwrap();
        let picture = dir.path().join("p.png");
        RgbImage::from_pixel(10, 20, Rgb([1, 2, 3]))
            .save(&picture)
            .unwrap();
        let rows = [SheetRow {
            query: picture.clone(),
            answers: vec![(picture.clone(), true), (picture.clone(), false)],
        }];
        let path = dir.path().join("sheet.png");
        write_contact_sheet(&rows, &path).unwrap();
        let sheet = image::open(&path).unwrap().to_rgb8();
        let cell = WIDTH + 2 * BORDER + GAP;
        assert_eq!(*sheet.get_pixel(GAP, GAP), QUERY);
        assert_eq!(*sheet.get_pixel(3 * GAP + cell, GAP), RIGHT);
        assert_eq!(*sheet.get_pixel(3 * GAP + 2 * cell, GAP), WRONG);
        assert_eq!(
            *sheet.get_pixel(3 * GAP + cell + BORDER + 5, GAP + BORDER + 5),
            Rgb([1, 2, 3])
        );

        let missing = [SheetRow {
            query: dir.path().join("gone.png"),
            answers: vec![],
        }];
        let message = contact_sheet(&missing).unwrap_err().to_string();
        assert!(message.contains("gone.png"), "{message}");
    }
}
