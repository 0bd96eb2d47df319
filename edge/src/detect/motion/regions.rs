//! Connected foreground regions.

use super::background::{Foreground, POSSIBLE, SHADOW, SURE};

/// Pixels that belong together; all coordinates at analysis size, right and bottom exclusive.
#[derive(Clone, Debug)]
pub(super) struct Region {
    pub(super) left: usize,
    pub(super) top: usize,
    pub(super) right: usize,
    pub(super) bottom: usize,
    /// Indices `y * width + x`, ascending.
    pub(super) pixels: Vec<u32>,
    /// Mean distance to the background in standard deviations.
    pub(super) contrast: f32,
}

impl Region {
    pub(super) fn width(&self) -> usize {
        self.right - self.left
    }

    pub(super) fn height(&self) -> usize {
        self.bottom - self.top
    }
}

/// Possible foreground that holds sure foreground, closed by `reach` pixels up and down and half of it sideways: people
/// fall apart at belts and collars, not left from right.
pub(super) fn find(
    foreground: Foreground,
    (width, height): (usize, usize),
    reach: usize,
) -> Vec<Region> {
    let distance = foreground.distance;
    // A pixel counts if at least two of its neighbours agree: single pixels are noise.
    let mut mask = vec![false; distance.len()];
    for y in 0..height {
        for x in 0..width {
            if distance[y * width + x] <= POSSIBLE {
                continue;
            }
            let mut agreeing = 0;
            for ny in y.saturating_sub(1)..(y + 2).min(height) {
                for nx in x.saturating_sub(1)..(x + 2).min(width) {
                    agreeing += usize::from(distance[ny * width + nx] > POSSIBLE);
                }
            }
            mask[y * width + x] = agreeing >= 4;
        }
    }
    fill_grey(&mut mask, &distance, (width, height));
    let closed = close(&mask, (width, height), (reach.div_ceil(2), reach));

    let mut seen = vec![false; closed.len()];
    let mut stack: Vec<u32> = Vec::new();
    let mut regions = Vec::new();
    for start in 0..closed.len() {
        if !closed[start] || seen[start] {
            continue;
        }
        seen[start] = true;
        stack.push(start as u32);
        let mut pixels = Vec::new();
        let (mut sure, mut real, mut contrast) = (0usize, 0usize, 0.0f32);
        while let Some(i) = stack.pop() {
            let at = i as usize;
            // What closing added joins regions, but is no part of their outline.
            if mask[at] {
                // Nor is the faint rim that compression and blur lay around people.
                if distance[at] > SURE || distance[at] <= POSSIBLE {
                    pixels.push(i);
                }
                real += 1;
                contrast += distance[at].clamp(POSSIBLE, 1600.0).sqrt();
                sure += usize::from(distance[at] > SURE);
            }
            let (x, y) = (at % width, at / width);
            for ny in y.saturating_sub(1)..(y + 2).min(height) {
                for nx in x.saturating_sub(1)..(x + 2).min(width) {
                    let n = ny * width + nx;
                    if closed[n] && !seen[n] {
                        seen[n] = true;
                        stack.push(n as u32);
                    }
                }
            }
        }
        if sure < 6 || sure * 5 < real {
            continue;
        }
        pixels.sort_unstable();
        let mut region = bounded(pixels, width);
        region.contrast = contrast / real as f32;
        regions.push(region);
    }
    regions
}

/// What looks like a shadow, but has a person above and below it, is a grey garment: shadows lie beside and below people.
fn fill_grey(mask: &mut [bool], distance: &[f32], (width, height): (usize, usize)) {
    for x in 0..width {
        // Where the last run of shadow began, if there is somebody above it.
        let mut run: Option<usize> = None;
        for y in 0..height {
            let i = y * width + x;
            if mask[i] {
                if let Some(start) = run {
                    for row in start..y {
                        mask[row * width + x] = true;
                    }
                }
                run = Some(y + 1);
            } else if distance[i] != SHADOW {
                run = None;
            }
        }
    }
}

/// A region of given pixels, contrast left 0.
pub(super) fn bounded(pixels: Vec<u32>, width: usize) -> Region {
    let mut r = Region {
        left: usize::MAX,
        top: usize::MAX,
        right: 0,
        bottom: 0,
        pixels,
        contrast: 0.0,
    };
    for &i in &r.pixels {
        let (x, y) = (i as usize % width, i as usize / width);
        r.left = r.left.min(x);
        r.right = r.right.max(x + 1);
        r.top = r.top.min(y);
        r.bottom = r.bottom.max(y + 1);
    }
    r
}

/// Morphological closing by a rectangle of `2 * rx + 1` by `2 * ry + 1`, in two separable passes.
fn close(mask: &[bool], (width, height): (usize, usize), (rx, ry): (usize, usize)) -> Vec<bool> {
    let grown = spread(mask, (width, height), (rx, ry), true);
    spread(&grown, (width, height), (rx, ry), false)
}

/// Dilation (`value` = true) or erosion (false; outside counts as foreground, so closing keeps the rim).
fn spread(
    mask: &[bool],
    (width, height): (usize, usize),
    (rx, ry): (usize, usize),
    value: bool,
) -> Vec<bool> {
    let mut rows = vec![!value; mask.len()];
    for y in 0..height {
        let (line, out) = (
            &mask[y * width..(y + 1) * width],
            &mut rows[y * width..(y + 1) * width],
        );
        let mut until = 0;
        for (x, &m) in line.iter().enumerate() {
            if m == value {
                let from = x.saturating_sub(rx).max(until);
                until = (x + rx + 1).min(width);
                if from < until {
                    out[from..until].fill(value);
                }
            }
        }
    }
    let mut out = vec![!value; mask.len()];
    let mut until = vec![0usize; width];
    for y in 0..height {
        for x in 0..width {
            if rows[y * width + x] == value {
                let from = y.saturating_sub(ry).max(until[x]);
                until[x] = (y + ry + 1).min(height);
                for row in from..until[x] {
                    out[row * width + x] = value;
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn foreground(width: usize, height: usize, on: impl Fn(usize, usize) -> bool) -> Foreground {
        let distance = (0..width * height)
            .map(|i| if on(i % width, i / width) { 100.0 } else { 0.0 })
            .collect();
        Foreground {
            distance,
            share: 0.0,
        }
    }

    #[test]
    fn a_gap_within_reach_is_bridged_and_the_outline_stays() {
        let two = |gap: usize| {
            foreground(40, 60, move |x, y| {
                (10..20).contains(&x) && ((5..20).contains(&y) || (20 + gap..50).contains(&y))
            })
        };
        let one = find(two(3), (40, 60), 3);
        assert_eq!(one.len(), 1);
        let r = &one[0];
        assert_eq!((r.left, r.top, r.right, r.bottom), (10, 5, 20, 50));
        assert_eq!(find(two(12), (40, 60), 3).len(), 2);
    }

    #[test]
    fn single_pixels_are_noise() {
        assert!(
            find(
                foreground(40, 40, |x, y| x % 5 == 0 && y % 5 == 0),
                (40, 40),
                2
            )
            .is_empty()
        );
    }
}
