//! The best look at each tracklet, small enough to keep for as long as somebody may ask.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use image::RgbImage;

use crate::types::TrackletId;

/// Height above which a crop is made smaller: people look at it, models do not.
const HEIGHT: u32 = 160;
/// Tracklets that ended are decided about at their end or a little later.
const ENDED_KEPT: usize = 128;

/// One crop for every running tracklet and for the newest that ended. With crops of at most 160 rows, 100 people in view
/// and the ended ones take about 7 MiB.
#[derive(Debug, Default)]
pub(crate) struct BestCrops {
    crops: BTreeMap<TrackletId, (f32, Arc<RgbImage>)>,
    /// Oldest first.
    ended: VecDeque<TrackletId>,
}

impl BestCrops {
    /// Keeps what `cut` gives if the look is better than those before it.
    pub(crate) fn offer(
        &mut self,
        tracklet: TrackletId,
        quality: f32,
        cut: impl FnOnce() -> RgbImage,
    ) {
        let best = self.crops.get(&tracklet);
        if best.is_none_or(|(before, _)| *before < quality) {
            let crop = Arc::new(no_taller_than(cut(), HEIGHT));
            self.crops.insert(tracklet, (quality, crop));
        }
    }

    /// The best crop of a tracklet, if it is still kept.
    pub(crate) fn get(&self, tracklet: TrackletId) -> Option<Arc<RgbImage>> {
        self.crops.get(&tracklet).map(|(_, crop)| crop.clone())
    }

    /// A tracklet ended: its crop goes when enough others have ended after it.
    pub(crate) fn ended(&mut self, tracklet: TrackletId) {
        if self.crops.contains_key(&tracklet) {
            self.ended.push_back(tracklet);
        }
        while self.ended.len() > ENDED_KEPT {
            if let Some(oldest) = self.ended.pop_front() {
                self.crops.remove(&oldest);
            }
        }
    }
}

fn no_taller_than(picture: RgbImage, height: u32) -> RgbImage {
    if picture.height() <= height {
        return picture;
    }
    let width = u64::from(picture.width()) * u64::from(height) / u64::from(picture.height());
    image::imageops::thumbnail(&picture, width.max(1) as u32, height)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_kept_small_while_its_tracklet_runs_and_a_while_longer() {
        let mut crops = BestCrops::default();
        let picture = |height| move || RgbImage::new(height / 2, height);
        crops.offer(TrackletId(0), 0.5, picture(400));
        crops.offer(TrackletId(0), 0.4, || {
            unreachable!("a worse look is not cut")
        });
        assert_eq!(crops.get(TrackletId(0)).unwrap().dimensions(), (80, HEIGHT));
        crops.offer(TrackletId(0), 0.6, picture(100));
        assert_eq!(crops.get(TrackletId(0)).unwrap().dimensions(), (50, 100));
        let many = 3 * ENDED_KEPT as u64;
        for id in 1..many {
            crops.offer(TrackletId(id), 0.5, picture(20));
            crops.ended(TrackletId(id));
        }
        assert!(crops.get(TrackletId(0)).is_some(), "it still runs");
        assert!(crops.get(TrackletId(1)).is_none());
        assert!(crops.get(TrackletId(many - 1)).is_some());
        assert_eq!(crops.crops.len(), ENDED_KEPT + 1);
        assert_eq!(crops.ended.len(), ENDED_KEPT);
    }
}
