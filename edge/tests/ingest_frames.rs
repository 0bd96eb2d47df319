//! Pixels arrive as the decoder made them, and mean what GStreamer thinks that they mean.
#![allow(clippy::unwrap_used)]

mod servers;

use std::path::Path;
use std::time::Duration;

use reid_edge::ingest::{Pace, Pulled, Stream};
use reid_models::picture::{Chroma, Matrix, Picture, Yuv420};
use servers::{config, make};

/// All frames of a source, and the chain that made them.
fn frames(source: &str) -> (Vec<Picture>, String) {
    let dir = tempfile::tempdir().unwrap();
    let body = format!("source = '''{source}'''");
    let config = config(dir.path(), &[body]);
    let mut stream = Stream::open(0, &config.cameras[0], Pace::Fast).unwrap();
    let mut pictures = Vec::new();
    loop {
        match stream.next(Duration::from_secs(20)).unwrap() {
            Pulled::Frame(f) => pictures.push((*f.picture).clone()),
            Pulled::End => return (pictures, stream.chain().to_owned()),
            Pulled::Nothing => panic!("nothing for 20 s"),
        }
    }
}

fn yuv(picture: &Picture) -> &Yuv420 {
    let Picture::Yuv(yuv) = picture else {
        panic!("not YUV")
    };
    yuv
}

fn round_up(n: usize, to: usize) -> usize {
    n.div_ceil(to) * to
}

/// A picture of noise as GStreamer lays it out, and the same without padding: Y, then chroma.
fn noise(format: &str, (width, height): (usize, usize)) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let mut state = 7u64;
    let mut next = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    let (cw, ch) = (width.div_ceil(2), height.div_ceil(2));
    // (width, rows, stride, rows with padding) of each plane.
    let luma = (width, height, round_up(width, 4), round_up(height, 2));
    let planes = match format {
        "I420" => vec![
            luma,
            (cw, ch, round_up(cw, 4), ch),
            (cw, ch, round_up(cw, 4), ch),
        ],
        _ => vec![luma, (2 * cw, ch, round_up(width, 4), ch)],
    };
    let (mut raw, mut y, mut chroma) = (Vec::new(), Vec::new(), Vec::new());
    for (i, (w, h, stride, rows)) in planes.into_iter().enumerate() {
        let bytes: Vec<u8> = (0..stride * rows).map(|_| next()).collect();
        for row in bytes.chunks(stride).take(h) {
            if i == 0 { &mut y } else { &mut chroma }.extend_from_slice(&row[..w]);
        }
        raw.extend(bytes);
    }
    (raw, y, chroma)
}

/// GStreamer's way to RGB that interpolates chroma: the short way repeats samples, which blurs colours.
const TO_RGB: &str = "videoconvert dither=none ! video/x-raw,format=AYUV64 ! videoconvert dither=none ! video/x-raw,format=ARGB64 ! videoconvert dither=none ! video/x-raw,format=RGB";

#[test]
fn planes_arrive_untouched_whatever_their_size_and_padding() {
    let dir = tempfile::tempdir().unwrap();
    for format in ["I420", "NV12"] {
        for size in [(64, 48), (50, 30), (49, 31), (17, 9), (2, 2)] {
            let (raw, y, chroma) = noise(format, size);
            let path = dir.path().join("raw");
            std::fs::write(&path, &raw).unwrap();
            let (width, height) = size;
            let (pictures, chain) = frames(&format!(
                "pipeline:filesrc location={} blocksize={} ! rawvideoparse format={} width={width} height={height} framerate=10/1",
                path.display(),
                raw.len(),
                format.to_lowercase()
            ));
            assert_eq!(pictures.len(), 1, "{format} {size:?}");
            let picture = yuv(&pictures[0]);
            assert_eq!((picture.width(), picture.height()), size);
            assert!(picture.luma() == y, "{format} {size:?}: luma");
            assert!(picture.chroma_data() == chroma, "{format} {size:?}: chroma");
            let wanted = match format {
                "I420" => Chroma::Planar,
                _ => Chroma::Interleaved,
            };
            assert_eq!(picture.chroma(), wanted);
            assert!(!chain.contains("converted"), "{chain}");
        }
    }
}

/// Mean difference of two pictures, levels.
fn difference(a: &Picture, b: &Picture) -> f64 {
    let (a, b) = (a.to_rgb(), b.to_rgb());
    assert_eq!(a.dimensions(), b.dimensions());
    let sum: u64 = a
        .iter()
        .zip(b.iter())
        .map(|(x, y)| u64::from(x.abs_diff(*y)))
        .sum();
    sum as f64 / a.len() as f64
}

#[test]
fn colours_are_those_that_gstreamer_makes_of_them() {
    for format in ["I420", "NV12"] {
        for (size, colorimetry, matrix) in [
            ((320, 240), "bt601", Matrix::Bt601),
            ((320, 240), "bt709", Matrix::Bt709),
            ((1280, 720), "bt709", Matrix::Bt709),
            ((321, 241), "bt601", Matrix::Bt601),
            ((322, 243), "bt2020", Matrix::Bt2020),
            // Full range, BT.601: JPEG.
            ((321, 241), "1:4:0:0", Matrix::Bt601),
            ((320, 240), "1:3:0:0", Matrix::Bt709),
        ] {
            for pattern in [
                "smpte",
                "colors",
                "gradient",
                "zone-plate kx2=20 ky2=20 kt=1",
            ] {
                let (width, height) = size;
                let source = format!(
                    "pipeline:videotestsrc num-buffers=1 pattern={pattern} ! video/x-raw,format={format},width={width},height={height},framerate=10/1,colorimetry=(string){colorimetry}"
                );
                let (ours, chain) = frames(&source);
                let (theirs, _) = frames(&format!("{source} ! {TO_RGB}"));
                assert!(matches!(theirs[0], Picture::Rgb(_)));
                let colour = yuv(&ours[0]).colour();
                assert_eq!(colour.matrix, matrix);
                assert_eq!(colour.full_range, colorimetry.starts_with("1:"), "{chain}");
                let difference = difference(&ours[0], &theirs[0]);
                assert!(
                    difference < 2.0,
                    "{difference:.2} levels: {pattern}, {chain}"
                );
            }
        }
    }
}

#[test]
fn other_formats_are_converted_and_rgb_is_not() {
    for (format, into) in [
        ("YUY2", "I420"),
        ("Y444", "I420"),
        ("I420_10LE", "I420"),
        ("GRAY8", "I420"),
        ("BGRx", "RGB"),
        ("RGB", "RGB"),
    ] {
        let source = format!(
            "pipeline:videotestsrc num-buffers=1 pattern=smpte ! video/x-raw,format={format},width=96,height=64,framerate=10/1"
        );
        let (ours, chain) = frames(&source);
        let converted = format!("converted from {format} to ");
        assert_eq!(chain.contains(&converted), format != into, "{chain}");
        let (theirs, _) = frames(&format!("{source} ! videoconvert ! video/x-raw,format=RGB"));
        let difference = difference(&ours[0], &theirs[0]);
        // The edges of the bars lose colour where chroma is halved.
        assert!(difference < 4.0, "{difference:.2} levels: {chain}");
    }
}

/// A file through `encode`, decoded here and by GStreamer's own decodebin and videoconvert.
fn decoded(dir: &Path, name: &str, size: (u32, u32), encode: &str) -> (f64, String) {
    let path = dir.join(name);
    let (width, height) = size;
    make(&format!(
        "videotestsrc num-buffers=6 pattern=smpte ! video/x-raw,format=I420,width={width},height={height},framerate=10/1 ! {encode} ! filesink location={}",
        path.display()
    ));
    let (ours, chain) = frames(&path.display().to_string());
    let (theirs, _) = frames(&format!(
        "pipeline:filesrc location={} ! decodebin ! {TO_RGB}",
        path.display()
    ));
    assert_eq!(ours.len(), 6, "{chain}");
    assert_eq!(theirs.len(), 6);
    assert!(matches!(ours[5], Picture::Yuv(_)));
    (difference(&ours[5], &theirs[5]), chain)
}

#[test]
fn what_decoders_give_has_the_right_colours() {
    let dir = tempfile::tempdir().unwrap();
    for (name, size, encode, wanted) in [
        (
            "a.mp4",
            (1280, 720),
            "openh264enc ! h264parse ! mp4mux",
            "file, h264, avdec_h264 (software), I420 1280x720, bt709, limited",
        ),
        // 1080 lines are decoded as 1088, and 426 columns padded to a multiple of 16 or more.
        (
            "b.mkv",
            (426, 240),
            "openh264enc ! h264parse ! matroskamux",
            "file, h264, avdec_h264 (software), I420 426x240, bt601, limited",
        ),
        (
            "c.mkv",
            (1920, 1080),
            "openh264enc ! h264parse ! matroskamux",
            "file, h264, avdec_h264 (software), I420 1920x1080, bt709, limited",
        ),
        (
            "d.avi",
            (322, 242),
            "jpegenc ! avimux",
            "file, jpeg, jpegdec (software), I420 322x242, bt601, full",
        ),
        (
            "e.mkv",
            (322, 242),
            "x265enc ! h265parse ! matroskamux",
            "file, h265, avdec_h265 (software), I420 322x242, bt601, limited",
        ),
        (
            "f.webm",
            (322, 242),
            "vp8enc ! webmmux",
            "file, vp8, vp8dec (software), I420 322x242, bt601, limited",
        ),
    ] {
        let (difference, chain) = decoded(dir.path(), name, size, encode);
        assert_eq!(chain, wanted);
        assert!(difference < 2.0, "{difference:.2} levels: {chain}");
    }
}
