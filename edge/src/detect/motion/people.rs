//! Regions become people: parts are joined, groups are parted, what has not the shape of a person is dropped.

use super::regions::{Region, bounded};
use super::size_prior::SizePrior;

/// Shape of a person, width over height: least, most for a part that stays whole, most of all.
const ASPECT: (f32, f32, f32) = (0.14, 0.55, 1.0);
/// Weight of a region in the share of those that are cut.
const CUT_RATE: f32 = 0.03;
/// Usual width over height of a person.
const USUAL_ASPECT: f32 = 0.42;

/// Somebody, at analysis size; right and bottom exclusive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Person {
    pub(super) left: usize,
    pub(super) top: usize,
    pub(super) right: usize,
    pub(super) bottom: usize,
    pub(super) score: f32,
}

/// Finds people among the regions of one camera, and learns how tall they are.
pub(super) struct People {
    min_height: f32,
    size: (usize, usize),
    prior: SizePrior,
    /// Running share of slim regions that were cut into one behind the other.
    cut_share: f32,
}

impl People {
    /// `min_height` and `size` (width, height) at analysis size.
    pub(super) fn new(min_height: f32, size: (usize, usize)) -> Self {
        People {
            min_height,
            size,
            prior: SizePrior::default(),
            cut_share: 0.0,
        }
    }

    /// Smallest person, at analysis size.
    pub(super) fn min_height(&self) -> f32 {
        self.min_height
    }

    /// The people of a frame.
    pub(super) fn find(&mut self, regions: &[Region]) -> Vec<Person> {
        let whole = self.join(regions.to_vec());
        let mut people = Vec::new();
        for region in whole {
            let slim = region.width() as f32 <= ASPECT.1 * region.height() as f32;
            let uncut = slim.then(|| region.clone());
            let parts = self.part(region);
            let alone = parts.len() == 1;
            if let Some(uncut) = uncut {
                let was_cut = if alone { 0.0 } else { 1.0 };
                self.cut_share += CUT_RATE * (was_cut - self.cut_share);
                // Were only what the prior leaves whole to teach it, one that began with halves of people would cut
                // everybody in two for ever: when most are cut, it is the prior that is wrong.
                if !alone
                    && self.cut_share > 0.5
                    && let Some(trimmed) = self.trim(uncut)
                {
                    self.learn(&trimmed);
                }
            }
            for part in parts {
                let Some(trimmed) = self.trim(part) else {
                    continue;
                };
                if let Some(person) = self.judge(&trimmed) {
                    if alone {
                        self.learn(&trimmed);
                    }
                    people.push(person);
                }
            }
        }
        people
    }

    /// Joins head, body and legs that came apart: nearest first, as long as the whole has the shape of one person.
    fn join(&self, mut regions: Vec<Region>) -> Vec<Region> {
        loop {
            let mut best: Option<(usize, usize, usize)> = None;
            for i in 0..regions.len() {
                for j in i + 1..regions.len() {
                    if let Some(gap) = self.belong(&regions[i], &regions[j])
                        && best.is_none_or(|(g, ..)| gap < g)
                    {
                        best = Some((gap, i, j));
                    }
                }
            }
            let Some((_, i, j)) = best else {
                return regions;
            };
            let b = regions.swap_remove(j);
            let a = &mut regions[i];
            let (na, nb) = (a.pixels.len() as f32, b.pixels.len() as f32);
            a.contrast = (a.contrast * na + b.contrast * nb) / (na + nb).max(1.0);
            a.pixels.extend(b.pixels);
            a.pixels.sort_unstable();
            a.left = a.left.min(b.left);
            a.top = a.top.min(b.top);
            a.right = a.right.max(b.right);
            a.bottom = a.bottom.max(b.bottom);
        }
    }

    /// The vertical gap between two parts of one person, or `None`.
    fn belong(&self, a: &Region, b: &Region) -> Option<usize> {
        let shared = a.right.min(b.right).saturating_sub(a.left.max(b.left));
        if (shared as f32) < 0.4 * a.width().min(b.width()) as f32 {
            return None;
        }
        let (top, bottom) = (a.top.min(b.top), a.bottom.max(b.bottom));
        let width = a.right.max(b.right) - a.left.min(b.left);
        let height = (bottom - top) as f32;
        let gap = a.top.max(b.top).saturating_sub(a.bottom.min(b.bottom));
        let most = match self.expected(top, bottom) {
            Some(expected) => {
                // Two who are whole already are two people.
                let is_whole = |r: &Region| {
                    self.expected(r.top, r.bottom)
                        .is_some_and(|e| r.height() as f32 > 0.75 * e)
                };
                if height > 1.2 * expected || (is_whole(a) && is_whole(b)) {
                    return None;
                }
                0.3
            }
            None => 0.15,
        };
        let fits = gap as f32 <= most * height && width as f32 <= 0.8 * height;
        fits.then_some(gap)
    }

    /// Usual height of a person between these rows; by the head where the feet are outside the picture.
    fn expected(&self, top: usize, bottom: usize) -> Option<f32> {
        if bottom >= self.size.1 {
            self.prior.at_head(top as f32)
        } else {
            self.prior.at_feet(bottom as f32)
        }
    }

    /// Parts people who walk side by side, and one behind the other.
    fn part(&self, region: Region) -> Vec<Region> {
        let expected = self.expected(region.top, region.bottom);
        let height = region.height() as f32;
        let one = if self.is_cut_below(&region) {
            // Who stands partly below the picture shows a wide piece of one person, not several narrow people.
            expected.unwrap_or(f32::INFINITY)
        } else {
            expected.map_or(height, |e| e.min(height))
        };
        let mut parts = if region.width() as f32 > ASPECT.1 * one {
            self.beside(region, one)
        } else {
            vec![region]
        };
        if expected.is_some() {
            parts = parts.into_iter().flat_map(|p| self.behind(p)).collect();
        }
        parts
    }

    /// Side by side: one part per head, cut where the region is thinnest between them.
    fn beside(&self, region: Region, one: f32) -> Vec<Region> {
        let width = region.width();
        let mut tops = vec![region.bottom; width];
        let mut counts = vec![0usize; width];
        for &i in &region.pixels {
            let (x, y) = (
                i as usize % self.size.0 - region.left,
                i as usize / self.size.0,
            );
            tops[x] = tops[x].min(y);
            counts[x] += 1;
        }
        let window = ((0.25 * one) as usize).max(1);
        let mut heads: Vec<usize> = Vec::new();
        for x in 0..width {
            if (counts[x] as f32) < 0.3 * one || ((region.bottom - tops[x]) as f32) < 0.6 * one {
                continue;
            }
            let near = x.saturating_sub(window)..(x + window + 1).min(width);
            if near
                .clone()
                .any(|n| tops[n] < tops[x] || (tops[n] == tops[x] && n < x))
            {
                continue;
            }
            let Some(&last) = heads.last() else {
                heads.push(x);
                continue;
            };
            // Two heads have a dip of the outline, or a thin place, between them.
            let between = last..x + 1;
            let dip = between.clone().map(|n| tops[n]).max().unwrap_or(0);
            let thin = between.map(|n| counts[n]).min().unwrap_or(0);
            let parted = dip as f32 - tops[last].max(tops[x]) as f32 >= 0.1 * one
                || (thin as f32) < 0.6 * counts[last].min(counts[x]) as f32;
            if parted {
                heads.push(x);
            } else if tops[x] < tops[last] {
                heads.pop();
                heads.push(x);
            }
        }
        let mut cuts: Vec<usize> = Vec::new();
        if heads.len() >= 2 {
            for pair in heads.windows(2) {
                let cut = (pair[0] + 1..pair[1]).min_by_key(|&n| counts[n]);
                cuts.push(cut.unwrap_or(pair[1]));
            }
        } else if width as f32 > 1.15 * one {
            let people = ((width as f32 / (1.15 * USUAL_ASPECT * one)).round() as usize).max(2);
            cuts.extend((1..people).map(|k| k * width / people));
        } else {
            return vec![region];
        }
        let mut parts = vec![Vec::new(); cuts.len() + 1];
        for &i in &region.pixels {
            let x = i as usize % self.size.0 - region.left;
            parts[cuts.partition_point(|&c| c <= x)].push(i);
        }
        parts
            .into_iter()
            .filter(|pixels| !pixels.is_empty())
            .map(|pixels| {
                let mut part = bounded(pixels, self.size.0);
                part.contrast = region.contrast;
                part
            })
            .collect()
    }

    /// One behind the other: what is far taller than a person is the nearer one, and the one whose feet it hides.
    fn behind(&self, region: Region) -> Vec<Region> {
        let (Some(near), Some(far)) = (
            self.expected(region.top, region.bottom),
            self.prior.at_head(region.top as f32),
        ) else {
            return vec![region];
        };
        let cut = region.bottom as f32 - near;
        if (region.height() as f32) < 1.4 * near || cut - (region.top as f32) < 0.35 * far {
            return vec![region];
        }
        let (above, below): (Vec<u32>, Vec<u32>) = region
            .pixels
            .iter()
            .partition(|&&i| ((i as usize / self.size.0) as f32) < cut);
        if above.is_empty() || below.is_empty() {
            return vec![region];
        }
        let mut far_part = bounded(above, self.size.0);
        far_part.bottom =
            ((region.top as f32 + far) as usize).clamp(far_part.bottom, region.bottom);
        let mut near_part = bounded(below, self.size.0);
        far_part.contrast = region.contrast;
        near_part.contrast = region.contrast;
        vec![far_part, near_part]
    }

    /// Takes off rows and columns that hold next to nothing.
    fn trim(&self, mut region: Region) -> Option<Region> {
        let (w, h) = (region.width(), region.height());
        let mut rows = vec![0usize; h];
        let mut columns = vec![0usize; w];
        for &i in &region.pixels {
            let (x, y) = (i as usize % self.size.0, i as usize / self.size.0);
            // `behind` may have moved the bottom, never above a pixel.
            columns[x - region.left] += 1;
            rows[y - region.top] += 1;
        }
        let enough = |least: f32| move |n: &usize| *n as f32 >= least;
        let (by_column, by_row) = (enough(0.06 * h as f32), enough(0.08 * w as f32));
        let left = columns.iter().position(&by_column)?;
        let right = columns.iter().rposition(&by_column)? + 1;
        let top = rows.iter().position(&by_row)?;
        let bottom = rows.iter().rposition(&by_row)? + 1;
        let hidden_feet = h - rows.iter().rposition(|n| *n > 0)? - 1;
        region.right = region.left + right;
        region.left += left;
        region.bottom = region.top + bottom + hidden_feet;
        region.top += top;
        Some(region)
    }

    /// Whether it is a person, and how sure that is.
    fn judge(&self, region: &Region) -> Option<Person> {
        let (w, h) = (region.width() as f32, region.height() as f32);
        let aspect = w / h.max(1.0);
        let fill = region.pixels.len() as f32 / (w * h).max(1.0);
        // Of somebody cut off below, the width is measured by the height there would be.
        let whole = match self.expected(region.top, region.bottom) {
            Some(expected) if self.is_cut_below(region) => w / expected.max(h),
            _ => aspect,
        };
        if h < self.min_height || !(ASPECT.0..=ASPECT.2).contains(&whole) || fill < 0.2 {
            return None;
        }
        let mut size_fits = 1.0;
        if let Some(expected) = self.expected(region.top, region.bottom) {
            let ratio = h / expected;
            let cut_off = self.touches(region);
            if ratio > 2.0 || (ratio < 0.4 && !cut_off) {
                return None;
            }
            if !(0.6..=1.5).contains(&ratio) && !cut_off {
                size_fits = 0.7;
            }
        }
        let shape_fits = if (0.22..=0.7).contains(&whole) {
            1.0
        } else {
            0.8
        };
        let solid = (fill / 0.5).min(1.0);
        let distinct = (region.contrast / 12.0).min(1.0);
        Some(Person {
            left: region.left,
            top: region.top,
            right: region.right,
            bottom: region.bottom,
            score: ((0.3 + 0.4 * solid + 0.3 * distinct) * size_fits * shape_fits).clamp(0.0, 1.0),
        })
    }

    fn is_cut_below(&self, r: &Region) -> bool {
        r.bottom >= self.size.1
    }

    fn touches(&self, r: &Region) -> bool {
        r.left == 0 || r.top == 0 || r.right >= self.size.0 || r.bottom >= self.size.1
    }

    /// Teaches the prior, if the region has the shape of one whole person.
    fn learn(&mut self, region: &Region) {
        let aspect = region.width() as f32 / region.height() as f32;
        let fill = region.pixels.len() as f32 / (region.width() * region.height()) as f32;
        let margin = 2;
        let whole = region.left > margin
            && region.top > margin
            && region.right + margin < self.size.0
            && region.bottom + margin < self.size.1;
        if whole && (0.2..=0.6).contains(&aspect) && fill > 0.35 {
            self.prior.add(region.bottom as f32, region.height() as f32);
        }
    }
}

/// The shape a whole person usually has, for the tests' pictures.
#[cfg(test)]
pub(super) fn usual_width(height: usize) -> usize {
    (USUAL_ASPECT * height as f32) as usize
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SIZE: (usize, usize) = (300, 200);

    /// A region of rectangles (left, top, right, bottom).
    fn region(rectangles: &[(usize, usize, usize, usize)]) -> Region {
        let mut pixels: Vec<u32> = Vec::new();
        for &(l, t, r, b) in rectangles {
            for y in t..b {
                pixels.extend((l..r).map(|x| (y * SIZE.0 + x) as u32));
            }
        }
        pixels.sort_unstable();
        pixels.dedup();
        let mut r = bounded(pixels, SIZE.0);
        r.contrast = 10.0;
        r
    }

    /// People 60 pixels tall, anywhere.
    fn experienced() -> People {
        let mut people = People::new(20.0, SIZE);
        for i in 0..40 {
            people.prior.add(100.0 + (i % 30) as f32, 60.0);
        }
        people
    }

    fn boxes(people: &[Person]) -> Vec<(usize, usize, usize, usize)> {
        people
            .iter()
            .map(|p| (p.left, p.top, p.right, p.bottom))
            .collect()
    }

    #[test]
    fn parts_of_one_person_are_joined_and_two_people_are_not() {
        let mut people = experienced();
        let parts = [region(&[(100, 50, 120, 75)]), region(&[(98, 82, 122, 110)])];
        assert_eq!(boxes(&people.find(&parts)), vec![(98, 50, 122, 110)]);
        let two = [
            region(&[(100, 10, 124, 68)]),
            region(&[(100, 72, 124, 132)]),
        ];
        assert_eq!(people.find(&two).len(), 2);
    }

    #[test]
    fn a_group_is_parted_at_the_heads() {
        let mut people = experienced();
        // Two people whose bodies touch; heads at both ends of the wide region.
        let group = region(&[
            (100, 60, 125, 110),
            (107, 50, 117, 60),
            (125, 62, 150, 110),
            (132, 52, 142, 62),
        ]);
        let found = people.find(&[group]);
        assert_eq!(found.len(), 2, "{found:?}");
        let w = usual_width(60);
        for p in &found {
            assert!((p.right - p.left).abs_diff(w) <= 6, "{p:?}");
        }
    }

    #[test]
    fn one_behind_the_other_are_two() {
        let found = experienced().find(&[region(&[(100, 30, 122, 130)])]);
        assert_eq!(boxes(&found), vec![(100, 30, 122, 90), (100, 70, 122, 130)]);
    }

    #[test]
    fn a_prior_that_began_with_halves_recovers() {
        let mut people = People::new(8.0, SIZE);
        // Legs like the ground: only upper bodies are seen at first.
        for i in 0..40 {
            people.find(&[region(&[(100 + i, 60, 114 + i, 90)])]);
        }
        assert!((people.prior.at_feet(90.0).unwrap() - 30.0).abs() < 2.0);
        let whole = || region(&[(150, 60, 170, 122)]);
        assert_eq!(people.find(&[whole()]).len(), 2, "cut by the wrong prior");
        for _ in 0..120 {
            people.find(&[whole()]);
        }
        assert_eq!(people.find(&[whole()]).len(), 1);
    }

    #[test]
    fn flat_and_tiny_regions_are_nobody() {
        let mut people = People::new(20.0, SIZE);
        assert!(
            people.find(&[region(&[(10, 100, 140, 125)])]).len() != 1,
            "a car is not one person"
        );
        assert!(people.find(&[region(&[(10, 100, 18, 115)])]).is_empty());
        assert!(
            people.find(&[region(&[(10, 20, 14, 120)])]).is_empty(),
            "a pole"
        );
    }
}
