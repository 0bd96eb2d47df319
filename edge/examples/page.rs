//! The live page with drawn people instead of cameras, for whoever works on its looks.
//!
//! `cargo run --release -p reid-edge --example page [ADDRESS]`

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use image::{Rgb, RgbImage};
use reid_edge::serve::{self, FrameView, Hub, ServeConfig};
use reid_edge::types::{Assignment, Decision, IdentityId, Ltrb, TrackletId};

const SIZE: (u32, u32) = (640, 360);
const WALK_SECS: f64 = 7.0;
const PEOPLE: usize = 7;

struct Person {
    identity: IdentityId,
    coat: Rgb<u8>,
    legs: Rgb<u8>,
}

fn main() -> anyhow::Result<()> {
    let listen = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:8080".into());
    let names = ["entrance", "hall", "checkout"];
    let hub = Hub::new(names.iter().map(|n| (*n).to_owned()).collect());
    let config = ServeConfig {
        listen,
        ..ServeConfig::default()
    };
    let page = serve::spawn(&config, Path::new("."), hub.clone(), None)?;
    println!("http://{}/", page.addr());
    hub.fact("detector", "drawn");
    hub.fact("model", "none");
    let people: Vec<Person> = (0..PEOPLE as u8)
        .map(|i| Person {
            identity: IdentityId(uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, &[i])),
            coat: Rgb([60 + i * 27, 200 - i * 22, 90 + (i * 53) % 140]),
            legs: Rgb([30 + i * 6, 34 + i * 4, 60 + i * 9]),
        })
        .collect();
    let began = Instant::now();
    // Half a minute has passed already, so that the page is not empty.
    let mut time = 0.0;
    loop {
        for camera in 0..names.len() {
            let mut picture = room(camera);
            let mut boxes = Vec::new();
            for (i, person) in people.iter().enumerate() {
                let leg = ((time - i as f64 * 2.3) / (WALK_SECS + 3.0)).floor();
                let since = time - i as f64 * 2.3 - leg * (WALK_SECS + 3.0);
                if leg < 0.0 || since > WALK_SECS || (i + leg as usize) % names.len() != camera {
                    continue;
                }
                let tracklet = TrackletId((leg as u64) * PEOPLE as u64 + i as u64);
                let ltrb = draw(&mut picture, person, i, since / WALK_SECS, time);
                let decision = match () {
                    () if since < 1.0 => Decision::Pending,
                    () if leg < 1.0 => Decision::New {
                        identity: person.identity,
                    },
                    () => Decision::Matched {
                        identity: person.identity,
                        score: 0.71 + i as f32 * 0.03,
                        margin: 0.2,
                    },
                };
                if (1.0..1.0 + 0.1).contains(&since) {
                    let crop = image::imageops::crop_imm(
                        &picture,
                        ltrb.left as u32,
                        ltrb.top as u32,
                        ltrb.width() as u32,
                        ltrb.height() as u32,
                    );
                    let assignment = Assignment {
                        tracklet,
                        camera,
                        time,
                        decision,
                        previous_ids: Vec::new(),
                    };
                    hub.assignment(&assignment, Some(Arc::new(crop.to_image())));
                }
                boxes.push((ltrb, tracklet, decision));
            }
            hub.frame(FrameView {
                camera,
                time,
                picture: Arc::new(picture.into()),
                boxes,
                fps: 10.0,
            });
        }
        hub.known(PEOPLE);
        time += 0.1;
        let due = Duration::from_secs_f64((time - 45.0).max(0.0));
        std::thread::sleep(due.saturating_sub(began.elapsed()));
    }
}

/// An empty view.
fn room(camera: usize) -> RgbImage {
    let tint = [[92, 96, 104], [104, 98, 90], [86, 98, 96]][camera % 3];
    RgbImage::from_fn(SIZE.0, SIZE.1, |x, y| {
        let floor = y > 150;
        let line = floor && (x + y * 2) % 90 < 2;
        let shade = if floor {
            0.75 + f64::from(y) / 1_400.0
        } else {
            1.15 - f64::from(y) / 500.0
        };
        let door =
            !floor && (200 + camera as u32 * 120..270 + camera as u32 * 120).contains(&x) && y > 40;
        let dim = if door {
            0.6
        } else if line {
            0.9
        } else {
            1.0
        };
        Rgb(tint.map(|c| (f64::from(c) * shade * dim).min(255.0) as u8))
    })
}

/// A walker, a fraction of the way through the view; returns the box.
fn draw(picture: &mut RgbImage, person: &Person, lane: usize, way: f64, time: f64) -> Ltrb {
    let tall = 120.0 + lane as f64 * 12.0;
    let feet = 190.0 + lane as f64 * 23.0;
    let x = -10.0 + way * (f64::from(SIZE.0) - 30.0) + 25.0;
    let step = (time * 7.0 + lane as f64).sin() * tall * 0.07;
    let mut blob = |cx: f64, cy: f64, rx: f64, ry: f64, colour: Rgb<u8>| {
        for py in (cy - ry).max(0.0) as u32..((cy + ry) as u32).min(SIZE.1) {
            for px in (cx - rx).max(0.0) as u32..((cx + rx) as u32).min(SIZE.0) {
                let (dx, dy) = ((f64::from(px) - cx) / rx, (f64::from(py) - cy) / ry);
                if dx.powi(4) + dy.powi(4) < 1.0 {
                    picture.put_pixel(px, py, colour);
                }
            }
        }
    };
    blob(
        x - step,
        feet - tall * 0.24,
        tall * 0.06,
        tall * 0.25,
        person.legs,
    );
    blob(
        x + step,
        feet - tall * 0.24,
        tall * 0.06,
        tall * 0.25,
        person.legs,
    );
    blob(x, feet - tall * 0.64, tall * 0.13, tall * 0.21, person.coat);
    blob(
        x,
        feet - tall * 0.92,
        tall * 0.065,
        tall * 0.08,
        Rgb([196, 154, 128]),
    );
    Ltrb {
        left: (x - tall * 0.18).max(0.0) as f32,
        top: (feet - tall * 1.02).max(0.0) as f32,
        right: (x + tall * 0.18).min(f64::from(SIZE.0)) as f32,
        bottom: (feet + 3.0).min(f64::from(SIZE.1)) as f32,
    }
}
