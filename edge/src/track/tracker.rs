//! ByteTrack-class tracker (Zhang et al., ECCV 2022), in seconds instead of frames.
//!
//! 1. Sure detections against confirmed tracklets (running and lost), by overlap.
//! 2. What is left of both, by expanded overlap: small or fast people at few frames per second, so the more the longer ago.
//! 3. Unsure detections against running tracklets: someone half hidden is kept, nobody is started by them.
//! 4. Sure detections against tentative tracklets; what is still left starts new ones.
//!
//! A filter predicts where people will be. What is reported is the box as it was detected: a filtered one lags behind
//! whoever comes into the picture, and embedders were trained on detections.

use super::association::{Expected, assign, near, overlap};
use super::kalman::BoxFilter;
use crate::config::TrackerConfig;
use crate::types::{Detection, Ltrb, TrackUpdate, TrackedBox, TrackletId};

/// Least IoU by which an unsure detection continues a tracklet (ByteTrack).
const LOW_IOU: f32 = 0.35;
/// A tentative tracklet unseen for so long was noise, seconds.
const TENTATIVE_SECS: f64 = 0.25;
/// Two tracklets overlapping by more follow the same person.
const DUPLICATE_IOU: f32 = 0.8;

/// Hands out tracklet ids, shared by all cameras of a run.
#[derive(Debug, Default)]
pub struct TrackletIds(u64);

impl TrackletIds {
    /// The next id, from 1.
    pub fn next_id(&mut self) -> TrackletId {
        self.0 += 1;
        TrackletId(self.0)
    }
}

struct Track {
    /// Given once confirmed, so that noise uses up no ids.
    id: Option<TrackletId>,
    filter: BoxFilter,
    /// The last detection.
    seen: Ltrb,
    first_time: f64,
    last_time: f64,
    score: f32,
    hits: u32,
}

/// Follows the people of one camera.
pub struct Tracker {
    config: TrackerConfig,
    tracks: Vec<Track>,
    time: Option<f64>,
}

impl Tracker {
    /// A tracker that has seen nothing.
    pub fn new(config: TrackerConfig) -> Self {
        Tracker {
            config,
            tracks: Vec::new(),
            time: None,
        }
    }

    /// Takes the detections of a frame `width` x `height` at `time` seconds.
    ///
    /// A frame that is not later than the one before moves nothing on, but its detections count.
    pub fn update(
        &mut self,
        time: f64,
        (width, height): (usize, usize),
        detections: &[Detection],
        ids: &mut TrackletIds,
    ) -> TrackUpdate {
        let dt = self.time.map_or(0.0, |t| (time - t).max(0.0));
        self.time = Some(self.time.map_or(time, |t| t.max(time)));
        for track in &mut self.tracks {
            if time - track.last_time > 1.5 * dt {
                track.filter.coast(dt as f32);
            }
            track.filter.predict(dt as f32);
        }

        let c = &self.config;
        let sure: Vec<usize> = (0..detections.len())
            .filter(|&d| detections[d].score >= c.high)
            .collect();
        let unsure: Vec<usize> = (0..detections.len())
            .filter(|&d| detections[d].score < c.high && detections[d].score >= c.low)
            .collect();
        let running_before = |t: &Track| time - t.last_time <= 1.5 * dt + 1e-6;
        let running: Vec<bool> = self.tracks.iter().map(running_before).collect();
        let all = 0..self.tracks.len();
        let (confirmed, tentative): (Vec<usize>, Vec<usize>) =
            all.partition(|&t| self.tracks[t].id.is_some());

        let match_iou = c.match_iou;
        let (confirmed, sure) = self.stage(time, confirmed, sure, detections, overlap(match_iou));
        let (confirmed, sure) = self.stage(time, confirmed, sure, detections, near);
        let running_only = confirmed.into_iter().filter(|&t| running[t]).collect();
        self.stage(time, running_only, unsure, detections, overlap(LOW_IOU));
        let (tentative, sure) = self.stage(time, tentative, sure, detections, overlap(match_iou));
        let (_, sure) = self.stage(time, tentative, sure, detections, near);

        for d in sure {
            let detection = &detections[d];
            if detection.score >= self.config.new {
                self.tracks.push(Track {
                    id: None,
                    filter: BoxFilter::new(&detection.ltrb),
                    seen: detection.ltrb,
                    first_time: time,
                    last_time: time,
                    score: detection.score,
                    hits: 1,
                });
            }
        }
        for track in &mut self.tracks {
            if track.id.is_none() && track.hits >= self.config.confirm_hits {
                track.id = Some(ids.next_id());
            }
        }
        let ended = self.retire(time, width as f32, height as f32);
        let boxes = self
            .tracks
            .iter()
            .filter(|t| t.last_time == time)
            .filter_map(|t| {
                Some(TrackedBox {
                    tracklet: t.id?,
                    ltrb: t.seen.clamped(width, height),
                    score: t.score,
                    age_secs: time - t.first_time,
                })
            })
            .filter(|b| b.ltrb.area() > 0.0)
            .collect();
        TrackUpdate { boxes, ended }
    }

    /// Goes by other rules from now on.
    pub fn set_config(&mut self, config: TrackerConfig) {
        self.config = config;
    }

    /// The clock was set by `secs`: everything moves with it.
    pub fn shift(&mut self, secs: f64) {
        self.time = self.time.map(|t| t + secs);
        for track in &mut self.tracks {
            track.first_time += secs;
            track.last_time += secs;
        }
    }

    /// Ends everything.
    pub fn finish(&mut self) -> Vec<TrackletId> {
        self.tracks.drain(..).filter_map(|t| t.id).collect()
    }

    /// Matches and updates; returns the tracks and detections left over.
    fn stage(
        &mut self,
        time: f64,
        tracks: Vec<usize>,
        candidates: Vec<usize>,
        detections: &[Detection],
        affinity: impl Fn(&Expected, &Ltrb) -> Option<f32>,
    ) -> (Vec<usize>, Vec<usize>) {
        if tracks.is_empty() || candidates.is_empty() {
            return (tracks, candidates);
        }
        let predicted: Vec<Expected> = tracks
            .iter()
            .map(|&t| Expected {
                ltrb: self.tracks[t].filter.ltrb(),
                unseen_secs: (time - self.tracks[t].last_time) as f32,
            })
            .collect();
        let boxes: Vec<Ltrb> = candidates.iter().map(|&d| detections[d].ltrb).collect();
        let matching = assign(&predicted, &boxes, affinity);
        let mut left = vec![true; tracks.len()];
        for (t, d) in matching.pairs {
            left[t] = false;
            let detection = &detections[candidates[d]];
            let track = &mut self.tracks[tracks[t]];
            track.filter.update(&detection.ltrb, detection.score);
            track.seen = detection.ltrb;
            track.last_time = time;
            track.score = detection.score;
            track.hits += 1;
        }
        let tracks = tracks
            .into_iter()
            .zip(left)
            .filter_map(|(t, left)| left.then_some(t))
            .collect();
        let candidates = matching
            .unmatched
            .into_iter()
            .map(|d| candidates[d])
            .collect();
        (tracks, candidates)
    }

    /// Removes tracklets that were lost too long, left the picture, or follow the person of an older one.
    fn retire(&mut self, time: f64, width: f32, height: f32) -> Vec<TrackletId> {
        let lost_secs = self.config.lost_secs;
        let boxes: Vec<Ltrb> = self.tracks.iter().map(|t| t.filter.ltrb()).collect();
        let gone: Vec<bool> = (0..self.tracks.len())
            .map(|i| {
                let t = &self.tracks[i];
                let unseen = time - t.last_time;
                let b = &boxes[i];
                let (x, y) = ((b.left + b.right) / 2.0, (b.top + b.bottom) / 2.0);
                let outside = !(0.0..=width).contains(&x) || !(0.0..=height).contains(&y);
                if t.id.is_none() {
                    return unseen > TENTATIVE_SECS;
                }
                unseen > lost_secs
                    || (outside && unseen > TENTATIVE_SECS)
                    || self.shadowed(i, &boxes)
            })
            .collect();
        let mut ended = Vec::new();
        let mut gone = gone.into_iter();
        self.tracks.retain(|t| {
            let gone = gone.next().unwrap_or(false);
            if gone {
                ended.extend(t.id);
            }
            !gone
        });
        ended
    }

    /// Whether an older tracklet, seen in the same frame, has the same box. A lost one is left alone: its person may be
    /// behind the other.
    fn shadowed(&self, i: usize, boxes: &[Ltrb]) -> bool {
        let me = &self.tracks[i];
        self.tracks.iter().enumerate().any(|(j, other)| {
            j != i
                && other.id.is_some()
                && other.last_time == me.last_time
                && boxes[i].iou(&boxes[j]) > DUPLICATE_IOU
                && (me.first_time, me.id) > (other.first_time, other.id)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SIZE: (usize, usize) = (640, 480);

    fn person(x: f32, y: f32, score: f32) -> Detection {
        Detection {
            ltrb: Ltrb {
                left: x,
                top: y,
                right: x + 40.0,
                bottom: y + 100.0,
            },
            score,
        }
    }

    struct Run {
        tracker: Tracker,
        ids: TrackletIds,
        time: f64,
        step_secs: f64,
    }

    impl Run {
        fn new() -> Self {
            Run {
                tracker: Tracker::new(TrackerConfig::default()),
                ids: TrackletIds::default(),
                time: 0.0,
                step_secs: 0.1,
            }
        }
        fn step(&mut self, detections: &[Detection]) -> TrackUpdate {
            self.time += self.step_secs;
            self.tracker
                .update(self.time, SIZE, detections, &mut self.ids)
        }
        /// The id whose box centre is nearest to x.
        fn at(update: &TrackUpdate, x: f32) -> Option<TrackletId> {
            update
                .boxes
                .iter()
                .find(|b| ((b.ltrb.left + b.ltrb.right) / 2.0 - x).abs() < 15.0)
                .map(|b| b.tracklet)
        }
    }

    #[test]
    fn people_who_cross_keep_their_ids() {
        let mut run = Run::new();
        let (mut first, mut last) = (None, None);
        for i in 0..40 {
            let x = 10.0 * i as f32;
            // They walk towards each other, one a little nearer to the camera.
            let u = run.step(&[person(100.0 + x, 100.0, 0.9), person(500.0 - x, 125.0, 0.9)]);
            let ids = (
                Run::at(&u, 120.0 + x),
                u.boxes
                    .iter()
                    .find(|b| b.ltrb.top > 112.0)
                    .map(|b| b.tracklet),
            );
            if i == 5 {
                first = Some(ids);
            }
            last = Some(ids);
        }
        assert!(
            first.unwrap().0.is_some() && first == last,
            "{first:?} {last:?}"
        );
        assert_eq!(
            run.ids.next_id(),
            TrackletId(3),
            "no third tracklet was made"
        );
    }

    #[test]
    fn an_occlusion_is_bridged_and_a_long_absence_is_not() {
        let mut run = Run::new();
        let mut id = None;
        for i in 0..10 {
            id = Run::at(
                &run.step(&[person(6.0 * i as f32, 50.0, 0.9)]),
                20.0 + 6.0 * i as f32,
            );
        }
        assert!(id.is_some());
        for _ in 10..20 {
            assert!(
                run.step(&[]).boxes.is_empty(),
                "an unseen person has no box"
            );
        }
        let mut again = None;
        for i in 20..23 {
            again = again.or(run
                .step(&[person(6.0 * i as f32, 50.0, 0.9)])
                .boxes
                .first()
                .map(|b| b.tracklet));
        }
        assert_eq!(again, id, "one second behind a pillar");
        let mut ended = Vec::new();
        for _ in 0..30 {
            ended.extend(run.step(&[]).ended);
        }
        assert_eq!(ended, vec![id.unwrap()], "ends once");
    }

    #[test]
    fn a_weak_detection_continues_a_tracklet_but_starts_none() {
        let mut run = Run::new();
        for _ in 0..5 {
            run.step(&[person(100.0, 100.0, 0.9)]);
        }
        for _ in 0..20 {
            let u = run.step(&[person(100.0, 100.0, 0.2), person(400.0, 100.0, 0.2)]);
            assert_eq!(u.boxes.len(), 1, "rescued, and the other one ignored");
            assert!((u.boxes[0].score - 0.2).abs() < 1e-6);
        }
    }

    #[test]
    fn small_fast_people_are_followed_where_boxes_do_not_overlap() {
        let mut run = Run::new();
        run.step_secs = 0.4;
        let mut seen = std::collections::BTreeSet::new();
        for i in 0..20 {
            let x = 18.0 * i as f32;
            let d = Detection {
                ltrb: Ltrb {
                    left: x,
                    top: 200.0,
                    right: x + 16.0,
                    bottom: 240.0,
                },
                score: 0.8,
            };
            for b in run.step(&[d]).boxes {
                seen.insert(b.tracklet);
            }
        }
        assert_eq!(seen.len(), 1, "{seen:?}");
    }

    #[test]
    fn noise_of_one_frame_gets_no_id_and_ids_are_shared() {
        let mut run = Run::new();
        for i in 0..20 {
            let u = run.step(
                &[person(
                    30.0 * (i * 7 % 19) as f32,
                    10.0 * (i * 11 % 31) as f32,
                    0.9,
                )][..(i % 4 / 3)],
            );
            assert!(u.boxes.is_empty());
        }
        let mut other = Tracker::new(TrackerConfig::default());
        for i in 0..4 {
            run.step(&[person(10.0, 10.0, 0.9)]);
            other.update(
                i as f64 * 0.1,
                SIZE,
                &[person(10.0, 10.0, 0.9)],
                &mut run.ids,
            );
        }
        let (a, b) = (run.tracker.finish(), other.finish());
        assert_eq!((a.len(), b.len()), (1, 1));
        assert_ne!(a, b);
    }
}
