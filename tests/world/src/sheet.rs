//! Pictures for looking at: contact sheets; and the probe crops that go with every model.

use image::{RgbImage, imageops};
use rayon::prelude::*;

use crate::camera::Camera;
use crate::crops::FRAME;
use crate::domain::Domain;
use crate::person::Person;
use crate::seed::{Draw, derive, path};
use crate::shot::{Framing, Shot, Track, render_crop};

/// Number of probe crops.
pub const PROBE_COUNT: usize = 16;

/// Seed of the probe crops; they never change within a version of the world.
const PROBE_SEED: u64 = 0x5EED;

fn crop(
    domain: Domain,
    camera: &Camera,
    person: &Person,
    seed: u64,
    size: (usize, usize),
) -> RgbImage {
    let track = Track::sample(camera, &mut Draw::new(seed, &[path::TRACK]));
    let shot = Shot::sample(
        domain,
        camera,
        person,
        &track,
        0,
        Framing::Body,
        derive(seed, &[path::SHOT]),
    );
    render_crop(camera, person, &shot, size).image
}

/// The 16 synthetic crops, 64 wide x 128 high, on which every engine's embeddings are compared:
/// all domains, every one with its own person and camera.
pub fn probe_crops() -> Vec<RgbImage> {
    (0..PROBE_COUNT)
        .into_par_iter()
        .map(|i| {
            let domain = Domain::ALL[i % Domain::ALL.len()];
            let seed = derive(PROBE_SEED, &[i as u64]);
            let camera = Camera::sample(domain, seed, i, FRAME, true);
            crop(
                domain,
                &camera,
                &Person::sample(domain, seed),
                seed,
                (64, 128),
            )
        })
        .collect()
}

/// A contact sheet: one row for each of `people` identities, one column for each of `cameras`; every second
/// row from the third on is a near-twin of the row above.
pub fn contact_sheet(
    domain: Domain,
    seed: u64,
    people: usize,
    cameras: usize,
    size: (usize, usize),
) -> RgbImage {
    let gap = 4;
    let (w, h) = size;
    let cameras: Vec<Camera> = (0..cameras)
        .into_par_iter()
        .map(|i| Camera::sample(domain, seed, i, FRAME, true))
        .collect();
    let mut sheet = RgbImage::from_pixel(
        (cameras.len() * (w + gap) + gap) as u32,
        (people * (h + gap) + gap) as u32,
        image::Rgb([255, 255, 255]),
    );
    let cells: Vec<(usize, usize, RgbImage)> = (0..people * cameras.len())
        .into_par_iter()
        .map(|i| {
            let (row, column) = (i / cameras.len(), i % cameras.len());
            let twin = row >= 3 && row % 2 == 1;
            let base = if twin { row - 1 } else { row };
            let mut person = Person::sample(domain, derive(seed, &[path::PERSON, base as u64]));
            if twin {
                person = person.twin(domain, derive(seed, &[path::TWIN, row as u64]));
            }
            let image = crop(
                domain,
                &cameras[column],
                &person,
                derive(seed, &[row as u64, column as u64]),
                size,
            );
            (row, column, image)
        })
        .collect();
    for (row, column, image) in cells {
        let (x, y) = (gap + column * (w + gap), gap + row * (h + gap));
        imageops::replace(&mut sheet, &image, x as i64, y as i64);
    }
    sheet
}

/// A picture as PNG bytes.
///
/// # Errors
/// When the encoder refuses the picture.
pub fn png(image: &RgbImage) -> anyhow::Result<Vec<u8>> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png)?;
    Ok(bytes.into_inner())
}
