//! The boxes of a recording, frame after frame, with ids numbered from 0.

use std::collections::HashMap;

use super::Row;

/// Truth and results of cameras; ids are shared by cameras.
pub(super) struct Recording<'a> {
    cameras: Vec<[Side<'a>; 2]>,
    /// How many true people there are.
    pub(super) people: usize,
    /// How many result ids there are.
    pub(super) identities: usize,
}

/// The rows of one camera in order of frames.
struct Side<'a> {
    rows: &'a [Row],
    boxes: Vec<Placed>,
}

/// A row's frame, id from 0 and place.
struct Placed {
    frame: u64,
    id: u32,
    row: usize,
}

/// Boxes of one frame of one camera.
#[derive(Default)]
pub(super) struct FramePair {
    /// Who is truly there, by box.
    pub(super) truth: Vec<u32>,
    /// Who is there by the results, by box.
    pub(super) results: Vec<u32>,
    /// Intersection over union, true boxes x result boxes.
    pub(super) iou: Vec<f64>,
}

impl FramePair {
    /// Overlap of a true and a result box.
    pub(super) fn iou(&self, truth: usize, result: usize) -> f64 {
        self.iou[truth * self.results.len() + result]
    }
}

/// Numbers for ids, in order of appearance.
#[derive(Default)]
struct Numbers(HashMap<i64, u32>);

impl Numbers {
    fn place<'a>(&mut self, rows: &'a [Row]) -> Side<'a> {
        let mut boxes: Vec<Placed> = rows
            .iter()
            .enumerate()
            .map(|(row, r)| {
                let next = self.0.len() as u32;
                Placed {
                    frame: r.frame,
                    id: *self.0.entry(r.id).or_insert(next),
                    row,
                }
            })
            .collect();
        // Stable: within a frame the order of the file counts, as it does for motmetrics.
        boxes.sort_by_key(|b| b.frame);
        Side { rows, boxes }
    }
}

impl<'a> Recording<'a> {
    pub(super) fn new(cameras: &[(&'a [Row], &'a [Row])]) -> Self {
        let (mut people, mut identities) = (Numbers::default(), Numbers::default());
        Recording {
            cameras: cameras
                .iter()
                .map(|(truth, results)| [people.place(truth), identities.place(results)])
                .collect(),
            people: people.0.len(),
            identities: identities.0.len(),
        }
    }

    /// The cameras' places.
    pub(super) fn cameras(&self) -> std::ops::Range<usize> {
        0..self.cameras.len()
    }

    /// Calls `visit` for every frame of the cameras that has a box, one camera after the other; returns how many.
    pub(super) fn for_each(
        &self,
        cameras: std::ops::Range<usize>,
        mut visit: impl FnMut(&FramePair),
    ) -> usize {
        let mut pair = FramePair::default();
        let mut frames = 0;
        for [truth, results] in &self.cameras[cameras] {
            let (mut t, mut r) = (truth.boxes.as_slice(), results.boxes.as_slice());
            while let Some(frame) = [t.first(), r.first()]
                .into_iter()
                .flatten()
                .map(|b| b.frame)
                .min()
            {
                let (now_t, later_t) = t.split_at(t.partition_point(|b| b.frame <= frame));
                let (now_r, later_r) = r.split_at(r.partition_point(|b| b.frame <= frame));
                (t, r) = (later_t, later_r);
                pair.truth.clear();
                pair.truth.extend(now_t.iter().map(|b| b.id));
                pair.results.clear();
                pair.results.extend(now_r.iter().map(|b| b.id));
                pair.iou.clear();
                pair.iou.extend(now_t.iter().flat_map(|a| {
                    let a = &truth.rows[a.row];
                    now_r.iter().map(move |b| a.iou(&results.rows[b.row]))
                }));
                visit(&pair);
                frames += 1;
            }
        }
        frames
    }
}

/// A pair of ids as one key.
pub(super) fn key(person: u32, identity: u32) -> u64 {
    u64::from(person) << 32 | u64::from(identity)
}

/// The person and the identity of a key.
pub(super) fn unkey(key: u64) -> (u32, u32) {
    ((key >> 32) as u32, key as u32)
}
