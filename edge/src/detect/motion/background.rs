//! What the scene looks like without people.
//!
//! Up to three Gaussians per pixel (Stauffer & Grimson 1999; Zivkovic 2004), learned in seconds instead of frames. On top:
//! * what the camera did to the whole picture ([`Tone`]) is undone first, so a cloud or an automatic exposure moves
//!   nothing;
//! * a pixel that is the background, only darker, is a shadow (Horprasert et al. 1999);
//! * pixels of people are learned much more slowly, until they have stood for `absorb_secs`;
//! * a region without an outline of its own in the frame is nobody: where the outline is in the background, somebody
//!   stood there; where there is none at all, the light has changed. Both are learned at once.

use super::people::Person;
use super::regions::Region;
use super::shrink::Shrunk;
use super::tone::Tone;

const MODES: usize = 3;
/// Seconds in which the background forgets, e-fold.
const FORGET_SECS: f32 = 30.0;
/// Modes that together explain this share of the past are background.
const BACKGROUND_SHARE: f32 = 0.9;
/// Variance per channel (squared 8-bit levels) of a new mode, and its bounds.
const VARIANCE: (f32, f32, f32) = (36.0, 10.0, 150.0);
/// Squared Mahalanobis distance within which a pixel belongs to a mode.
const MEMBER: f32 = 12.0;
/// Squared Mahalanobis distance from which a pixel is surely, and possibly, foreground.
pub(super) const SURE: f32 = 20.0;
pub(super) const POSSIBLE: f32 = 9.0;
/// In place of a distance: the background, only darker. A shadow, or somebody in grey.
pub(super) const SHADOW: f32 = -1.0;
/// Shadows keep this share of the light.
const SHADOW_LIGHT: (f32, f32) = (0.5, 0.97);
/// Shadows change colour by less than this share of the background's brightness.
const SHADOW_TINT: f32 = 0.045;
/// People are learned so much more slowly than anything else.
const PERSON_RATE: f32 = 0.02;
/// The picture is looked at in so many columns and rows of parts, ...
const PARTS: usize = 6;
/// ... and a part has changed if this share of it has.
const PART_CHANGED: f32 = 0.3;
/// Mean gain in contrast (RGB distance, 8-bit levels) that makes an outline; asked only of regions that are unlike the
/// background by fewer than so many standard deviations.
const OUTLINE: f32 = 5.0;
const FAINT: f32 = 8.0;
/// A region must look like a ghost in so many frames in a row.
const GHOST_FRAMES: u8 = 4;

#[derive(Clone, Copy, Default)]
struct Mode {
    weight: f32,
    mean: [f32; 3],
    variance: f32,
}

/// How unlike the background each pixel of a frame is.
pub(super) struct Foreground {
    /// Squared Mahalanobis distance to the nearest background mode; [`SHADOW`] where it may be a shadow.
    pub(super) distance: Vec<f32>,
    /// Share of the picture's parts ([`PARTS`] x [`PARTS`]) that have largely changed, shadows included.
    pub(super) share: f32,
}

/// The background of one camera at analysis size.
pub(super) struct Background {
    width: usize,
    height: usize,
    modes: Vec<[Mode; MODES]>,
    frames: u32,
    tone: Tone,
    /// Marks the region looked at; all false between calls.
    inside: Vec<bool>,
    /// Seconds that a pixel has belonged to a person without a break.
    held_secs: Vec<f32>,
    ghost_votes: Vec<u8>,
    absorb_secs: f32,
}

impl Background {
    /// Starts with the first frame as the background.
    pub(super) fn new(first: &Shrunk, absorb_secs: f32) -> Self {
        let (width, height) = first.size();
        let modes = first
            .pixels
            .iter()
            .map(|p| [started(*p), Mode::default(), Mode::default()]);
        Background {
            width,
            height,
            modes: modes.collect(),
            frames: 1,
            tone: Tone::new(),
            inside: vec![false; width * height],
            held_secs: vec![0.0; width * height],
            ghost_votes: vec![0; width * height],
            absorb_secs,
        }
    }

    /// Compares a frame with the background.
    pub(super) fn classify(&mut self, frame: &Shrunk) -> Foreground {
        let (modes, held) = (&self.modes, &self.held_secs);
        self.tone
            .estimate(frame, |i| (held[i] == 0.0).then(|| modes[i][0].mean));
        let tone = &self.tone;
        let (w, h) = (self.width, self.height);
        let mut sure = [0u32; PARTS * PARTS];
        let distance: Vec<f32> = frame
            .pixels
            .iter()
            .zip(&self.modes)
            .enumerate()
            .map(|(i, (p, modes))| {
                let p = tone.undo(p, &modes[0].mean);
                let mut total = 0.0;
                let mut nearest = f32::INFINITY;
                for mode in modes {
                    if total >= BACKGROUND_SHARE || mode.weight == 0.0 {
                        break;
                    }
                    total += mode.weight;
                    nearest = nearest.min(squared(&p, &mode.mean) / mode.variance);
                }
                if nearest > SURE {
                    sure[(i / w) * PARTS / h * PARTS + (i % w) * PARTS / w] += 1;
                }
                if nearest > POSSIBLE && is_shadow(&p, &modes[0].mean) {
                    return SHADOW;
                }
                nearest
            })
            .collect();
        let part = distance.len() as f32 / (PARTS * PARTS) as f32;
        let changed = sure.iter().filter(|n| **n as f32 > PART_CHANGED * part);
        let share = changed.count() as f32 / (PARTS * PARTS) as f32;
        Foreground { distance, share }
    }

    /// Learns a frame. `people` are learned slowly, `ghosts` become background once they have been seen a few times.
    pub(super) fn update(&mut self, frame: &Shrunk, dt: f32, people: &[Person], ghosts: &[Region]) {
        self.frames = self.frames.saturating_add(1);
        // Until the forgetting time has passed, the plain average is the better estimate.
        let rate = (1.0 - (-dt / FORGET_SECS).exp()).max(1.0 / (self.frames as f32 + 1.0));
        let mut held = vec![false; self.modes.len()];
        for person in people {
            // One pixel around the box: the rim of a person must not seep into the background.
            for y in person.top.saturating_sub(1)..(person.bottom + 1).min(self.height) {
                let row = y * self.width;
                let right = (person.right + 1).min(self.width);
                held[row + person.left.saturating_sub(1)..row + right].fill(true);
            }
        }
        let mut is_ghost = vec![false; self.modes.len()];
        for ghost in ghosts {
            for &i in &ghost.pixels {
                is_ghost[i as usize] = true;
            }
        }
        for i in 0..self.modes.len() {
            let p = self.tone.undo(&frame.pixels[i], &self.modes[i][0].mean);
            if is_ghost[i] {
                self.ghost_votes[i] += 1;
                if self.ghost_votes[i] >= GHOST_FRAMES {
                    self.modes[i] = [started(p), Mode::default(), Mode::default()];
                    self.ghost_votes[i] = 0;
                    self.held_secs[i] = 0.0;
                }
                continue;
            }
            self.ghost_votes[i] = 0;
            let mut own = rate;
            if held[i] {
                self.held_secs[i] += dt;
                if self.held_secs[i] < self.absorb_secs {
                    own *= PERSON_RATE;
                }
            } else {
                self.held_secs[i] = 0.0;
            }
            learn(&mut self.modes[i], &p, own);
        }
    }

    /// Whether a region has no outline of its own. Along its rim a person is unlike what is beyond; a place that somebody
    /// left is so in the background instead, and a patch of light in neither.
    pub(super) fn is_ghost(&mut self, region: &Region, frame: &Shrunk) -> bool {
        let (w, h) = (self.width, self.height);
        for &i in &region.pixels {
            self.inside[i as usize] = true;
        }
        let (mut now, mut before, mut count) = (0.0f32, 0.0f32, 0usize);
        for &i in &region.pixels {
            let i = i as usize;
            let (x, y) = (i % w, i / w);
            if x < 2 || y < 2 || x + 2 >= w || y + 2 >= h {
                continue;
            }
            for (step, other) in [
                (1isize, i + 1),
                (-1, i - 1),
                (w as isize, i + w),
                (-(w as isize), i - w),
            ] {
                if self.inside[other] {
                    continue;
                }
                // Across the outline, from one pixel inside to one beyond it.
                let a = (i as isize - step) as usize;
                let b = (other as isize + step) as usize;
                now += squared(&frame.pixels[a], &frame.pixels[b]).sqrt();
                before += squared(&self.modes[a][0].mean, &self.modes[b][0].mean).sqrt();
                count += 1;
            }
        }
        for &i in &region.pixels {
            self.inside[i as usize] = false;
        }
        let rim = count as f32;
        let left = before > 1.5 * now + 6.0 * rim;
        let light = region.contrast < FAINT && now < before + OUTLINE * rim;
        count > 0 && (left || light)
    }
}

fn started(mean: [f32; 3]) -> Mode {
    Mode {
        weight: 1.0,
        mean,
        variance: VARIANCE.0,
    }
}

fn learn(modes: &mut [Mode; MODES], p: &[f32; 3], rate: f32) {
    let member = modes
        .iter()
        .position(|m| m.weight > 0.0 && squared(p, &m.mean) < MEMBER * m.variance);
    for mode in modes.iter_mut() {
        mode.weight *= 1.0 - rate;
    }
    match member {
        Some(m) => {
            let mode = &mut modes[m];
            mode.weight += rate;
            // Rare modes learn their colour faster than their weight.
            let own = (rate / mode.weight).min(1.0);
            let off = squared(p, &mode.mean);
            for c in 0..3 {
                mode.mean[c] += own * (p[c] - mode.mean[c]);
            }
            mode.variance =
                (mode.variance + own * (off / 3.0 - mode.variance)).clamp(VARIANCE.1, VARIANCE.2);
        }
        None => {
            modes[MODES - 1] = Mode {
                weight: rate,
                ..started(*p)
            };
        }
    }
    // Heaviest first; three elements.
    for _ in 0..MODES - 1 {
        for m in 1..MODES {
            if modes[m].weight > modes[m - 1].weight {
                modes.swap(m, m - 1);
            }
        }
    }
    let total: f32 = modes.iter().map(|m| m.weight).sum();
    for mode in modes.iter_mut() {
        mode.weight /= total;
    }
}

fn is_shadow(p: &[f32; 3], background: &[f32; 3]) -> bool {
    let dot = |a: &[f32; 3], b: &[f32; 3]| a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
    let energy = dot(background, background);
    if energy < 3.0 * 30.0 * 30.0 {
        // Before something dark a shadow cannot be told from anything else.
        return false;
    }
    let light = dot(p, background) / energy;
    if !(SHADOW_LIGHT.0..=SHADOW_LIGHT.1).contains(&light) {
        return false;
    }
    let expected = background.map(|b| b * light);
    squared(p, &expected) < SHADOW_TINT * SHADOW_TINT * energy
}

fn squared(a: &[f32; 3], b: &[f32; 3]) -> f32 {
    let d = [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
    d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
}
