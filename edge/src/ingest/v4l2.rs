//! Which of a Video4Linux device's modes to ask for.
//!
//! Left to itself, GStreamer takes the first: often uncompressed at the largest size, at five frames per second. Wanted is
//! the largest picture up to full HD at a useful rate, uncompressed if the device can, else JPEG.

use gstreamer as gst;
use gstreamer::glib;

/// Largest picture that is any use, pixels.
const LARGEST: (i32, i32) = (1920, 1080);
/// Rate when the configuration names none, frames per second.
const USEFUL_FPS: f64 = 15.0;
/// No more is asked for, frames per second.
const MOST_FPS: f64 = 30.0;

/// The mode to ask for, out of those that a device offers; `fps` frames per second are wanted. `None` if it offers nothing
/// that is known here.
pub(super) fn choose_mode(offered: &gst::CapsRef, fps: Option<f64>) -> Option<gst::Caps> {
    let wanted = fps.unwrap_or(USEFUL_FPS);
    let mut best = None;
    for (structure, features) in offered.iter_with_features() {
        let media = structure.name().as_str();
        let rank = match media {
            "video/x-raw" if features.is_equal(&gst::CAPS_FEATURES_MEMORY_SYSTEM_MEMORY) => 2,
            "image/jpeg" => 1,
            "video/x-h264" => 0,
            _ => continue,
        };
        let (Some(width), Some(height)) = (
            largest(structure, "width", LARGEST.0),
            largest(structure, "height", LARGEST.1),
        ) else {
            continue;
        };
        let Some(rate) = rate(structure, fps) else {
            continue;
        };
        let speed = f64::from(rate.numer()) / f64::from(rate.denom().max(1));
        let fits = width <= LARGEST.0 && height <= LARGEST.1;
        let area = i64::from(width) * i64::from(height);
        let merit = (
            fits,
            speed + 0.01 >= wanted,
            // Too large: the least of it.
            if fits { area } else { -area },
            rank,
        );
        if best.as_ref().is_none_or(|(m, _)| merit > *m) {
            let mut mode = structure.to_owned();
            mode.set("width", width);
            mode.set("height", height);
            mode.set("framerate", rate);
            best = Some((merit, mode));
        }
    }
    let (_, mode) = best?;
    let mut caps = gst::Caps::new_empty();
    caps.make_mut().append_structure(mode);
    caps.fixate();
    Some(caps)
}

/// A size: the largest up to `limit` of a range or list, else the smallest.
fn largest(structure: &gst::StructureRef, field: &str, limit: i32) -> Option<i32> {
    let value = structure.value(field).ok()?;
    if let Ok(size) = value.get::<i32>() {
        return Some(size);
    }
    if let Ok(range) = value.get::<gst::IntRange<i32>>() {
        let top = range.max().min(limit.max(range.min()));
        let step = range.step().max(1);
        return Some(range.min() + (top - range.min()) / step * step);
    }
    let sizes: Vec<i32> = value
        .get::<gst::List>()
        .ok()?
        .iter()
        .filter_map(|v: &glib::SendValue| v.get::<i32>().ok())
        .collect();
    let fitting = sizes.iter().copied().filter(|s| *s <= limit).max();
    fitting.or_else(|| sizes.iter().copied().min())
}

/// A rate: the slowest that is fast enough for `fps`; without one the fastest up to [`MOST_FPS`].
fn rate(structure: &gst::StructureRef, fps: Option<f64>) -> Option<gst::Fraction> {
    let value = structure.value("framerate").ok()?;
    let speed = |f: &gst::Fraction| f64::from(f.numer()) / f64::from(f.denom().max(1));
    if let Ok(rate) = value.get::<gst::Fraction>() {
        return Some(rate);
    }
    if let Ok(range) = value.get::<gst::FractionRange>() {
        let wanted = fps.map_or(MOST_FPS, f64::ceil).min(MOST_FPS);
        let wanted = gst::Fraction::new(wanted as i32, 1);
        return Some(if speed(&wanted) > speed(&range.max()) {
            range.max()
        } else if speed(&wanted) < speed(&range.min()) {
            range.min()
        } else {
            wanted
        });
    }
    let mut rates: Vec<gst::Fraction> = value
        .get::<gst::List>()
        .ok()?
        .iter()
        .filter_map(|v: &glib::SendValue| v.get::<gst::Fraction>().ok())
        .collect();
    rates.sort_by(|a, b| speed(a).total_cmp(&speed(b)));
    let chosen = match fps {
        Some(fps) => rates.iter().find(|r| speed(r) + 0.01 >= fps),
        None => rates.iter().rev().find(|r| speed(r) <= MOST_FPS + 0.01),
    };
    chosen
        .or(match fps {
            Some(_) => rates.last(),
            None => rates.first(),
        })
        .copied()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::str::FromStr;

    use super::*;

    fn chosen(offered: &str, fps: Option<f64>) -> String {
        gst::init().unwrap();
        let offered = gst::Caps::from_str(offered).unwrap();
        let caps = choose_mode(&offered, fps).unwrap();
        let s = caps.structure(0).unwrap();
        let rate = s.get::<gst::Fraction>("framerate").unwrap();
        format!(
            "{} {}x{} {}/{}",
            s.name(),
            s.get::<i32>("width").unwrap(),
            s.get::<i32>("height").unwrap(),
            rate.numer(),
            rate.denom()
        )
    }

    /// What common webcams offer.
    const WEBCAM: &str = "video/x-raw, format=YUY2, width=1920, height=1080, framerate=5/1; video/x-raw, format=YUY2, width=1280, height=720, framerate={(fraction)10/1, (fraction)5/1}; video/x-raw, format=YUY2, width=640, height=480, framerate={(fraction)30/1, (fraction)15/1}; image/jpeg, parsed=true, width=2592, height=1944, framerate=30/1; image/jpeg, parsed=true, width=1920, height=1080, framerate={(fraction)30/1, (fraction)15/1}; image/jpeg, parsed=true, width=640, height=480, framerate=30/1";

    #[test]
    fn full_size_at_a_useful_rate_before_uncompressed_slide_shows() {
        assert_eq!(chosen(WEBCAM, None), "image/jpeg 1920x1080 30/1");
        assert_eq!(chosen(WEBCAM, Some(10.0)), "image/jpeg 1920x1080 15/1");
        // Five are enough: no need to compress.
        assert_eq!(chosen(WEBCAM, Some(5.0)), "video/x-raw 1920x1080 5/1");
        let small = "video/x-raw, format=YUY2, width=640, height=480, framerate=30/1; image/jpeg, width=640, height=480, framerate=30/1";
        assert_eq!(chosen(small, None), "video/x-raw 640x480 30/1");
    }

    #[test]
    fn ranges_and_oversized_sensors_are_met_with_what_is_nearest() {
        let stepwise = "video/x-raw, format=NV12, width=[32, 3280, 2], height=[32, 2464, 2], framerate=[1/1, 90/1]";
        assert_eq!(chosen(stepwise, None), "video/x-raw 1920x1080 30/1");
        assert_eq!(chosen(stepwise, Some(12.5)), "video/x-raw 1920x1080 13/1");
        let large = "image/jpeg, width=3840, height=2160, framerate=30/1; image/jpeg, width=2560, height=1440, framerate=30/1";
        assert_eq!(chosen(large, None), "image/jpeg 2560x1440 30/1");
        gst::init().unwrap();
        let strange = gst::Caps::from_str(
            "video/x-bayer, format=rggb, width=640, height=480, framerate=30/1; video/x-raw(memory:DMABuf), format=NV12, width=640, height=480, framerate=30/1",
        )
        .unwrap();
        assert_eq!(choose_mode(&strange, None), None);
    }
}
