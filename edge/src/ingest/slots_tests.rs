//! Fairness and counting, without GStreamer.
#![allow(clippy::unwrap_used)]

use image::RgbImage;

use super::*;
use crate::clock::Clock;
use crate::ingest::stamp::OffsetLimit;
use crate::ingest::status::CameraState;

fn frame(camera: CameraIndex, number: u64) -> Frame {
    Frame {
        camera,
        number,
        time: number as f64,
        clock_base: None,
        arrived: Instant::now(),
        captured: None,
        picture: Arc::new(RgbImage::new(2, 2).into()),
    }
}

fn slot(id: u64) -> Slot {
    let stamper = Stamper::new(Clock::system(), false, OffsetLimit::default());
    Slot {
        id,
        control: Arc::default(),
        thread: None,
        tally: Tally::default(),
        stamper: Arc::new(Mutex::new(stamper)),
        live: true,
        frame: None,
        status: Status::connecting(),
        served: 0,
    }
}

struct Bench {
    slots: Slots,
    cameras: Vec<(u64, Arc<Control>, Tally)>,
    told: Arc<Mutex<Vec<(CameraIndex, CameraState)>>>,
}

fn bench(count: usize) -> Bench {
    let told: Arc<Mutex<Vec<_>>> = Arc::default();
    let log = told.clone();
    let slots = Slots::new(Arc::new(move |i, s| log.lock().unwrap().push((i, s.state))));
    let mut cameras = Vec::new();
    for i in 0..count {
        let slot = slot(i as u64);
        cameras.push((slot.id, slot.control.clone(), slot.tally.clone()));
        slots.insert(i, slot);
    }
    Bench {
        slots,
        cameras,
        told,
    }
}

impl Bench {
    fn put(&self, camera: CameraIndex, number: u64) {
        let (id, control, tally) = &self.cameras[camera];
        self.slots
            .put(*id, control, tally, frame(camera, number), false);
    }

    fn take(&self, most: usize) -> Vec<(CameraIndex, u64)> {
        let frames = self.slots.take(most, Duration::ZERO);
        frames.iter().map(|f| (f.camera, f.number)).collect()
    }

    fn check(&self, waiting: u64) {
        let c = self.slots.total();
        assert_eq!(
            c.received,
            c.skipped + c.replaced + c.discarded + c.taken + waiting,
            "{c:?}"
        );
    }
}

#[test]
fn under_overload_every_camera_gets_its_turn() {
    let bench = bench(5);
    let mut served = [0u32; 5];
    for number in 1..=100 {
        // Every camera is faster than we are, the first one much faster.
        for camera in 0..5 {
            bench.put(camera, number);
        }
        bench.put(0, number);
        let frames = bench.take(2);
        assert_eq!(frames.len(), 2);
        for (camera, n) in frames {
            assert_eq!(n, number, "the newest");
            served[camera] += 1;
        }
    }
    assert_eq!(served, [40; 5]);
    bench.check(3);
    assert_eq!(bench.take(9).len(), 3);
    bench.check(0);
    let counts = bench.slots.counts();
    assert_eq!(counts[&0].received, 200);
    assert_eq!(counts[&1].received, 100);
}

#[test]
fn a_removed_camera_gives_nothing_more_and_stays_in_the_total() {
    let bench = bench(2);
    bench.put(0, 1);
    bench.put(1, 1);
    let latches = bench.slots.remove(0);
    assert_eq!(latches.len(), 1);
    assert!(bench.cameras[0].1.is_quitting());
    bench.put(0, 2);
    bench.check(1);
    assert_eq!(bench.take(9), [(1, 1)]);
    // Another camera in its place is not mixed up with it.
    let latches = bench.slots.remove(0);
    assert_eq!(latches.len(), 1, "the old thread still runs");
    bench.slots.insert(0, slot(77));
    bench.put(0, 3);
    assert_eq!(bench.take(9), []);
    bench.slots.set(0, 0, |s| s.state = CameraState::Failed);
    assert_eq!(
        bench.slots.statuses()[&0].state,
        CameraState::Connecting,
        "the old thread speaks for nobody"
    );
    assert!(bench.told.lock().unwrap().is_empty());
    bench.cameras[0].1.done.set();
    assert!(bench.slots.remove(9).is_empty());
    assert!(bench.slots.lock().leaving.is_empty(), "reaped");
    bench.check(0);
    let total = bench.slots.total();
    assert_eq!((total.received, total.discarded, total.taken), (4, 3, 1));
}

#[test]
fn a_change_is_told_once_and_the_end_wakes_the_reader() {
    let bench = bench(1);
    assert!(!bench.slots.is_over());
    for _ in 0..3 {
        bench.slots.set(0, 0, |s| s.state = CameraState::Live);
    }
    assert_eq!(*bench.told.lock().unwrap(), [(0, CameraState::Live)]);
    bench.put(0, 1);
    bench.slots.set(0, 0, |s| s.state = CameraState::Ended);
    assert!(!bench.slots.is_over(), "a frame waits");
    assert_eq!(bench.take(1), [(0, 1)]);
    assert!(bench.slots.is_over());
    let empty = Slots::new(Arc::new(|_, _| {}));
    assert!(!empty.is_over(), "cameras may yet be added");
    let began = Instant::now();
    assert!(empty.take(1, Duration::from_millis(50)).is_empty());
    assert!(began.elapsed() >= Duration::from_millis(50), "no busy loop");
    let began = Instant::now();
    assert!(bench.slots.take(1, Duration::from_millis(50)).is_empty());
    assert!(began.elapsed() >= Duration::from_millis(50), "nor here");
}
