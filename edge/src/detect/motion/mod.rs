//! People as moving regions before a static background: no model, any CPU, a fixed camera.
//!
//! Every frame is averaged down to about 400 pixels wide; [`background`] says how unlike the background each pixel is,
//! with shadows and changes of light taken out; [`regions`] makes connected regions; [`people`] joins the parts of a
//! person, parts people who touch, and keeps what has the shape of a person.

mod background;
mod bank;
mod people;
mod regions;
mod shrink;
mod size_prior;
mod tone;

use background::Background;
pub use bank::MotionBank;
use people::People;
use regions::Region;
use shrink::Shrunk;

use super::nms;
use crate::config::DetectorConfig;
use crate::types::{Detection, Frame, Ltrb};

/// Frames are analysed at most this wide, pixels.
const ANALYSIS_WIDTH: usize = 400;
/// If the picture changes in more than this share of its parts, the camera was moved or the light switched; somebody
/// right before the camera hides a part, but leaves others as they were. ...
const SUDDEN_SHARE: f32 = 0.75;
/// ... and after so many seconds of it the background is learned anew.
const SUDDEN_SECS: f64 = 1.0;

/// Adaptive background subtraction for one static camera.
pub struct MotionDetector {
    min_height: f32,
    least_score: f32,
    nms: f32,
    absorb_secs: f64,
    state: Option<State>,
}

struct State {
    frame_size: (usize, usize),
    shrunk: Shrunk,
    background: Background,
    people: People,
    time: f64,
    sudden_since: Option<f64>,
}

impl MotionDetector {
    /// A detector that has seen nothing.
    pub fn new(config: &DetectorConfig) -> Self {
        MotionDetector {
            min_height: config.min_height,
            least_score: config.score,
            nms: config.nms,
            absorb_secs: config.absorb_secs,
            state: None,
        }
    }

    fn start(&mut self, frame: &Frame) {
        let size = frame.picture.size();
        let mut shrunk = Shrunk::new(size.0.div_ceil(ANALYSIS_WIDTH).max(1));
        shrunk.take(&frame.picture);
        let background = Background::new(&shrunk, self.absorb_secs as f32);
        let people = People::new(self.min_height / shrunk.factor as f32, shrunk.size());
        self.state = Some(State {
            frame_size: size,
            shrunk,
            background,
            people,
            time: frame.time,
            sudden_since: None,
        });
    }
}

impl MotionDetector {
    /// The people in a frame, boxes inside it. Frames come in order.
    pub fn detect(&mut self, frame: &Frame) -> Vec<Detection> {
        let size = frame.picture.size();
        if size.0 == 0 || size.1 == 0 {
            return Vec::new();
        }
        let state = match &mut self.state {
            // A camera that changed its resolution is a new camera.
            Some(state) if state.frame_size == size => state,
            _ => {
                self.start(frame);
                return Vec::new();
            }
        };
        let dt = (frame.time - state.time).clamp(1e-3, 1.0) as f32;
        state.time = frame.time;
        state.shrunk.take(&frame.picture);
        let foreground = state.background.classify(&state.shrunk);
        if foreground.share > SUDDEN_SHARE {
            let since = *state.sudden_since.get_or_insert(frame.time);
            if frame.time - since >= SUDDEN_SECS {
                tracing::info!(
                    camera = frame.camera,
                    "the whole picture changed: learning the background anew"
                );
                self.start(frame);
            }
            return Vec::new();
        }
        state.sudden_since = None;
        let (width, height) = state.shrunk.size();
        let reach = (state.people.min_height() / 8.0).round().max(1.0) as usize;
        let regions = regions::find(foreground, (width, height), reach);
        let (ghosts, regions): (Vec<Region>, Vec<Region>) = regions
            .into_iter()
            .partition(|r| state.background.is_ghost(r, &state.shrunk));
        let people = state.people.find(&regions);
        state.background.update(&state.shrunk, dt, &people, &ghosts);

        let f = state.shrunk.factor as f32;
        let found = people
            .iter()
            .map(|p| Detection {
                ltrb: Ltrb {
                    left: p.left as f32 * f,
                    top: p.top as f32 * f,
                    right: p.right as f32 * f,
                    bottom: p.bottom as f32 * f,
                }
                .clamped(size.0, size.1),
                score: p.score,
            })
            .filter(|d| d.score >= self.least_score && d.ltrb.height() >= self.min_height)
            .collect();
        nms::suppress(found, self.nms)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use image::{Rgb, RgbImage};

    use super::*;

    const SIZE: (u32, u32) = (640, 360);

    /// A textured scene with sensor noise, lit by `light`, and dressed rectangles (left, top) of 40 x 100 in it.
    fn scene(seed: u32, light: f32, people: &[(i32, i32)]) -> RgbImage {
        let hash = |x: u32, y: u32, s: u32| {
            let mut h = x.wrapping_mul(0x9E37_79B1)
                ^ y.wrapping_mul(0x85EB_CA77)
                ^ s.wrapping_mul(0xC2B2_AE3D);
            h ^= h >> 15;
            h = h.wrapping_mul(0x2C1B_3C6D);
            h ^ (h >> 12)
        };
        RgbImage::from_fn(SIZE.0, SIZE.1, |x, y| {
            let tile = hash(x / 16, y / 16, 1) % 60;
            let mut base = [90 + tile, 100 + tile, 95 + tile];
            for &(left, top) in people {
                let (dx, dy) = (x as i32 - left, y as i32 - top);
                if (0..40).contains(&dx) && (0..100).contains(&dy) {
                    base = if dy < 50 { [170, 40, 50] } else { [30, 40, 70] };
                }
            }
            let noise = (hash(x, y, seed.wrapping_mul(7919)) % 13) as f32 - 6.0;
            Rgb(base.map(|b| (b as f32 * light + noise).clamp(0.0, 255.0) as u8))
        })
    }

    struct Camera {
        detector: MotionDetector,
        number: u64,
    }

    impl Camera {
        fn new() -> Self {
            Camera {
                detector: MotionDetector::new(&DetectorConfig::default()),
                number: 0,
            }
        }
        fn see(&mut self, picture: RgbImage) -> Vec<Detection> {
            self.number += 1;
            self.detector.detect(&Frame {
                camera: 0,
                number: self.number,
                time: self.number as f64 * 0.1,
                clock_base: None,
                arrived: std::time::Instant::now(),
                captured: None,
                picture: Arc::new(picture.into()),
            })
        }
    }

    fn best_iou(found: &[Detection], (left, top): (i32, i32)) -> f32 {
        let truth = Ltrb {
            left: left as f32,
            top: top as f32,
            right: left as f32 + 40.0,
            bottom: top as f32 + 100.0,
        };
        found.iter().map(|d| d.ltrb.iou(&truth)).fold(0.0, f32::max)
    }

    #[test]
    fn walkers_are_boxed_through_noise_and_changing_light() {
        let mut camera = Camera::new();
        for i in 0..15 {
            assert!(camera.see(scene(i, 1.0, &[])).is_empty(), "noise is nobody");
        }
        let mut worst = 1.0f32;
        for i in 0..40 {
            // A cloud passes: a quarter of the light goes and comes back.
            let light = 1.0 - 0.25 * (i as f32 / 40.0 * std::f32::consts::PI).sin();
            let at = [(20 + 12 * i, 120), (580 - 12 * i, 230)];
            let found = camera.see(scene(100 + i as u32, light, &at));
            for p in at {
                worst = worst.min(best_iou(&found, p));
            }
            assert_eq!(found.len(), 2, "frame {i}: {found:?}");
        }
        assert!(worst > 0.7, "worst IoU {worst}");
    }

    #[test]
    fn who_stands_still_stays_and_who_leaves_leaves_no_ghost() {
        let mut camera = Camera::new();
        // Somebody is there when the camera starts, and walks away after two seconds.
        for i in 0..20 {
            camera.see(scene(i, 1.0, &[(300, 150)]));
        }
        let mut last = Vec::new();
        for i in 0..30 {
            last = camera.see(scene(50 + i, 1.0, &[(300 - 9 * i as i32, 150)]));
        }
        assert_eq!(
            last.len(),
            1,
            "the place he stood at is no person: {last:?}"
        );
        for i in 0..200 {
            last = camera.see(scene(200 + i, 1.0, &[(39, 150)]));
        }
        assert!(best_iou(&last, (39, 150)) > 0.7, "stood for 20 s: {last:?}");
    }

    #[test]
    fn the_light_switch_resets_the_background() {
        let mut camera = Camera::new();
        for i in 0..15 {
            camera.see(scene(i, 1.0, &[]));
        }
        // Another scene altogether, as after the camera was turned.
        let turned = |i: u32| image::imageops::rotate180(&scene(i, 0.4, &[]));
        for i in 0..20 {
            camera.see(turned(100 + i));
        }
        assert!(camera.see(turned(300)).is_empty());
        let mut walker = scene(301, 0.4, &[]);
        walker = image::imageops::rotate180(&walker);
        for y in 100..200 {
            for x in 300..340 {
                walker.put_pixel(x, y, Rgb([150, 20, 20]));
            }
        }
        let found = camera.see(walker);
        assert!(best_iou(&found, (300, 100)) > 0.7, "{found:?}");
    }

    #[test]
    fn a_change_of_resolution_and_an_empty_picture_are_survived() {
        let mut camera = Camera::new();
        camera.see(scene(1, 1.0, &[]));
        assert!(camera.see(RgbImage::new(50, 30)).is_empty());
        assert!(camera.see(RgbImage::new(0, 0)).is_empty());
        assert!(camera.see(scene(2, 1.0, &[])).is_empty());
    }
}
