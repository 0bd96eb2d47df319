//! What holds for the tracker whatever it is fed.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use reid_edge::config::TrackerConfig;
use reid_edge::track::{Tracker, TrackletIds};
use reid_edge::types::{Detection, Ltrb, TrackUpdate, TrackletId};

const SIZE: (usize, usize) = (640, 480);

fn at(left: f32, top: f32, width: f32, height: f32, score: f32) -> Detection {
    let (right, bottom) = (left + width, top + height);
    Detection {
        ltrb: Ltrb {
            left,
            top,
            right,
            bottom,
        },
        score,
    }
}

/// Anything a detector may give, boxes that leave the picture and people on top of each other included.
fn detection() -> impl Strategy<Value = Detection> {
    let place = (-60.0f32..680.0, -60.0f32..520.0);
    let size = (1.0f32..300.0, 1.0f32..500.0);
    (place, size, 0.0f32..1.0).prop_map(|((x, y), (w, h), score)| at(x, y, w, h, score))
}

/// Frames: the time since the one before, and who is in it.
fn scene() -> impl Strategy<Value = Vec<(f64, Vec<Detection>)>> {
    let gap = prop_oneof![8 => 0.02f64..0.3, 1 => Just(0.0), 1 => 0.5f64..5.0];
    // Few enough people that some are found again, since they stay where they were.
    let people = prop::collection::vec(detection(), 1..6);
    let frames = prop::collection::vec(
        (gap, prop::collection::vec((0usize..6, -9.0f32..9.0), 0..8)),
        1..40,
    );
    (people, frames).prop_map(|(people, frames)| {
        let moved = |(who, shift): (usize, f32)| {
            let p = people[who % people.len()];
            at(
                p.ltrb.left + shift,
                p.ltrb.top,
                p.ltrb.width(),
                p.ltrb.height(),
                p.score,
            )
        };
        let frame =
            |(gap, seen): (f64, Vec<(usize, f32)>)| (gap, seen.into_iter().map(moved).collect());
        frames.into_iter().map(frame).collect()
    })
}

fn follow(
    scene: &[(f64, Vec<Detection>)],
    clock: impl Fn(usize, &mut Tracker) -> f64,
) -> Vec<TrackUpdate> {
    let (mut tracker, mut ids) = (
        Tracker::new(TrackerConfig::default()),
        TrackletIds::default(),
    );
    let mut time = 1000.0;
    let mut updates = Vec::new();
    for (i, (gap, detections)) in scene.iter().enumerate() {
        time += gap;
        let set = clock(i, &mut tracker);
        updates.push(tracker.update(time + set, SIZE, detections, &mut ids));
    }
    let ended = tracker.finish();
    updates.push(TrackUpdate {
        boxes: Vec::new(),
        ended,
    });
    updates
}

proptest! {
    /// Ids live once: none is in a frame twice, none returns after its end, every one that was reported ends.
    #[test]
    fn tracklets_begin_and_end_once(scene in scene()) {
        let (mut seen, mut ended) = (BTreeSet::new(), BTreeSet::new());
        for update in follow(&scene, |_, _| 0.0) {
            let ids: BTreeSet<TrackletId> = update.boxes.iter().map(|b| b.tracklet).collect();
            prop_assert_eq!(ids.len(), update.boxes.len(), "an id twice in one frame");
            for b in &update.boxes {
                prop_assert!(!ended.contains(&b.tracklet), "{:?} after its end", b.tracklet);
                let l = &b.ltrb;
                prop_assert!(0.0 <= l.left && l.left < l.right && l.right <= 640.0, "{:?}", l);
                prop_assert!(0.0 <= l.top && l.top < l.bottom && l.bottom <= 480.0, "{:?}", l);
                prop_assert!(b.age_secs >= 0.0 && b.score.is_finite());
            }
            seen.extend(ids);
            for id in update.ended {
                prop_assert!(ended.insert(id), "{:?} ends twice", id);
            }
        }
        prop_assert!(seen.is_subset(&ended), "{:?} never end", seen.difference(&ended));
    }

    /// A clock that is set in the middle changes nothing about who is followed.
    #[test]
    fn a_set_clock_changes_nothing(scene in scene(), when in 0usize..40, secs in prop_oneof![Just(3600i32), Just(-3600)]) {
        let plain = follow(&scene, |_, _| 0.0);
        let set = follow(&scene, |i, tracker| {
            if i == when {
                tracker.shift(f64::from(secs));
            }
            if i >= when { f64::from(secs) } else { 0.0 }
        });
        for (a, b) in plain.iter().zip(&set) {
            let boxes = |u: &TrackUpdate| u.boxes.iter().map(|b| (b.tracklet, b.ltrb)).collect::<Vec<_>>();
            for ((id, a), (same, b)) in boxes(a).into_iter().zip(boxes(b)) {
                prop_assert_eq!(id, same);
                // Times lie apart by an hour, so their differences round differently.
                prop_assert!((a.left - b.left).abs() < 0.01 && (a.bottom - b.bottom).abs() < 0.01, "{:?} {:?}", a, b);
            }
            prop_assert_eq!(boxes(a).len(), boxes(b).len());
            prop_assert_eq!(&a.ended, &b.ended);
        }
    }

    /// The order in which a detector lists people is nobody's business: the same boxes are followed, under other numbers.
    #[test]
    fn the_order_of_detections_does_not_matter(scene in scene(), turn in 1usize..5) {
        // Equal costs leave a choice, so everybody is a little elsewhere.
        let distinct: Vec<(f64, Vec<Detection>)> = scene.iter().enumerate().map(|(i, (gap, ds))| {
            let one = |(j, d): (usize, &Detection)| {
                let e = 0.013 * ((7 * i + 3 * j) % 11) as f32 + 0.37 * j as f32;
                at(d.ltrb.left + e, d.ltrb.top - e, d.ltrb.width(), d.ltrb.height() + e, d.score)
            };
            // Of two boxes on one person the older tracklet is kept, and of equally old ones the first: order does matter there,
            // and detectors suppress it.
            let mut apart: Vec<Detection> = Vec::new();
            for d in ds.iter().enumerate().map(one) {
                if apart.iter().all(|a| a.ltrb.iou(&d.ltrb) < 0.5) {
                    apart.push(d);
                }
            }
            (*gap, apart)
        }).collect();
        let turned: Vec<(f64, Vec<Detection>)> = distinct.iter().map(|(gap, ds)| {
            let mut ds = ds.clone();
            let by = turn.min(ds.len());
            ds.rotate_left(by);
            (*gap, ds)
        }).collect();
        let mut names: BTreeMap<TrackletId, TrackletId> = BTreeMap::new();
        for (a, b) in follow(&distinct, |_, _| 0.0).iter().zip(&follow(&turned, |_, _| 0.0)) {
            prop_assert_eq!(a.boxes.len(), b.boxes.len());
            for x in &a.boxes {
                let near = |y: &&reid_edge::types::TrackedBox| {
                    (x.ltrb.left - y.ltrb.left).abs() + (x.ltrb.top - y.ltrb.top).abs() + (x.ltrb.bottom - y.ltrb.bottom).abs() < 0.01
                };
                let y = b.boxes.iter().filter(near).find(|y| names.get(&x.tracklet).is_none_or(|n| *n == y.tracklet));
                prop_assert!(y.is_some(), "{:?} has no partner in {:?}", x, b.boxes);
                names.insert(x.tracklet, y.unwrap().tracklet);
            }
        }
    }
}

/// Times are seconds: the same walks, seen at any frame rate, are the same people. One stands behind a pillar for a second.
#[test]
fn the_frame_rate_does_not_matter() {
    for fps in [4.0f64, 10.0, 15.0, 30.0, 60.0] {
        let (mut tracker, mut ids) = (
            Tracker::new(TrackerConfig::default()),
            TrackletIds::default(),
        );
        let mut seen = BTreeSet::new();
        for frame in 0..(8.0 * fps) as usize {
            let t = frame as f64 / fps;
            let x = 40.0 + 40.0 * t as f32;
            let mut people = vec![at(x, 60.0, 40.0, 100.0, 0.9)];
            if !(3.0..4.0).contains(&t) {
                people.push(at(600.0 - x, 250.0, 40.0, 100.0, 0.9));
            }
            for b in tracker.update(t, SIZE, &people, &mut ids).boxes {
                seen.insert(b.tracklet);
            }
        }
        assert_eq!(seen.len(), 2, "{fps} frames per second: {seen:?}");
        assert_eq!(ids.next_id(), TrackletId(3), "{fps} frames per second");
    }
}

/// A tracklet ends `lost_secs` after it was last seen, whatever the frame rate.
#[test]
fn lost_seconds_are_seconds() {
    for fps in [4.0f64, 15.0, 60.0] {
        let config = TrackerConfig {
            lost_secs: 1.5,
            ..TrackerConfig::default()
        };
        let (mut tracker, mut ids) = (Tracker::new(config), TrackletIds::default());
        let mut last = 0.0;
        let mut end = None;
        for frame in 0..(6.0 * fps) as usize {
            let t = frame as f64 / fps;
            let people = if t < 2.0 {
                vec![at(300.0, 100.0, 40.0, 100.0, 0.9)]
            } else {
                Vec::new()
            };
            if !people.is_empty() {
                last = t;
            }
            if !tracker.update(t, SIZE, &people, &mut ids).ended.is_empty() {
                end = Some(t);
            }
        }
        let unseen = end.unwrap() - last;
        assert!(
            (1.5..=1.5 + 1.01 / fps).contains(&unseen),
            "{fps} frames per second: after {unseen} s"
        );
    }
}
