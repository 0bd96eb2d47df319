//! Pictures from files.

use std::path::Path;

use image::RgbImage;

use super::PreprocessError;

/// Reads a JPEG or PNG file as RGB.
///
/// # Errors
/// [`PreprocessError::Decode`] or, for a JPEG without its end, [`PreprocessError::Truncated`], naming the file.
pub fn decode(path: &Path) -> Result<RgbImage, PreprocessError> {
    let fail = |source| PreprocessError::Decode {
        path: path.to_path_buf(),
        source,
    };
    let bytes = std::fs::read(path).map_err(|e| fail(e.into()))?;
    if !has_end(&bytes) {
        return Err(PreprocessError::Truncated {
            path: path.to_path_buf(),
        });
    }
    let image = image::ImageReader::new(std::io::Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|e| fail(e.into()))?
        .decode()
        .map_err(fail)?;
    Ok(image.into_rgb8())
}

/// Decoders fill a JPEG that was cut short with grey and say nothing: silent damage to training and search alike. Within
/// the coded picture neither marker can occur, so a whole one has an end after its last start.
fn has_end(bytes: &[u8]) -> bool {
    if !bytes.starts_with(&[0xff, 0xd8]) {
        return true;
    }
    let last = |marker: u8| bytes.windows(2).rposition(|pair| pair == [0xff, marker]);
    matches!((last(0xda), last(0xd9)), (Some(start), Some(end)) if end > start)
}
