//! YUV pictures against an independent calculation in float64 (`tests/golden/yuv_*.py`).
//!
//! The reference converts the whole picture and then resizes; we resize planes and convert what comes out. On pictures
//! with soft colour edges the two differ by 0.5 levels at most on average and 7.2 at a single pixel, and rounding the planes to
//! bytes after either axis costs as much again. A wrong matrix, range or order of chroma costs more than the bounds; a wrong
//! siting costs about as much, so it is shown that every picture is worse with the other one.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;

use reid_models::card::{Channels, Fit, InputSpec, Layout, Range};
use reid_models::picture::{Colour, Matrix, Picture, Plane, Siting, Yuv420};
use reid_models::preprocess::{PixelBox, Preprocess};
use safetensors::SafeTensors;

/// Levels of 0..255: mean and largest difference.
const MEAN: f64 = 0.95;
const MOST: f64 = 10.0;

fn golden(name: &str) -> Vec<u8> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(format!("{name}.safetensors"));
    std::fs::read(file).unwrap()
}

fn floats(tensors: &SafeTensors, name: &str) -> Vec<f32> {
    let view = tensors.tensor(name).unwrap();
    let (values, _) = view.data().as_chunks::<4>();
    values.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn numbers(tensors: &SafeTensors, name: &str) -> Vec<usize> {
    let view = tensors.tensor(name).unwrap();
    let (values, _) = view.data().as_chunks::<4>();
    values
        .iter()
        .map(|b| i32::from_le_bytes(*b) as usize)
        .collect()
}

/// The case's picture in both forms of chroma, told that its samples lie at `siting`.
fn pictures(tensors: &SafeTensors, case: &str, siting: Siting) -> [Yuv420; 2] {
    let bytes = |part: &str| {
        let view = tensors.tensor(&format!("{case}.{part}")).unwrap();
        view.data().to_vec()
    };
    let size = numbers(tensors, &format!("{case}.size"));
    let strides = numbers(tensors, &format!("{case}.strides"));
    let colour = Colour {
        matrix: match case.split('.').nth(1).unwrap() {
            "bt601" => Matrix::Bt601,
            "bt709" => Matrix::Bt709,
            _ => Matrix::Bt2020,
        },
        full_range: case.ends_with("full"),
        siting,
    };
    let (y, u, v, uv) = (bytes("y"), bytes("u"), bytes("v"), bytes("uv"));
    let plane = |data, stride| Plane { data, stride };
    let size = (size[0], size[1]);
    let planar = [
        plane(&y[..], strides[0]),
        plane(&u, strides[1]),
        plane(&v, strides[2]),
    ];
    let interleaved = [plane(&y[..], strides[0]), plane(&uv, strides[3])];
    [&planar[..], &interleaved].map(|planes| Yuv420::copy(size, planes, colour).unwrap())
}

/// The other one.
fn wrong(siting: Siting) -> Siting {
    match siting {
        Siting::Left => Siting::Centre,
        Siting::Centre => Siting::Left,
    }
}

fn siting(name: &str) -> Siting {
    match name {
        "left" => Siting::Left,
        _ => Siting::Centre,
    }
}

/// Mean and largest difference.
fn difference(got: &[f32], want: &[f32]) -> (f64, f64) {
    assert_eq!(got.len(), want.len());
    let off = got.iter().zip(want).map(|(a, b)| f64::from((a - b).abs()));
    let most = off.clone().fold(0.0, f64::max);
    (off.sum::<f64>() / want.len() as f64, most)
}

fn spec(height: usize, width: usize, layout: Layout, channels: Channels) -> InputSpec {
    InputSpec {
        layout,
        channels,
        range: Range::Byte,
        mean: [0.0; 3],
        std: [1.0; 3],
        ..InputSpec::imagenet(height, width)
    }
}

/// A tensor as (height, width, RGB).
fn as_rgb(tensor: &[f32], spec: &InputSpec) -> Vec<f32> {
    let (h, w) = (spec.height, spec.width);
    let source = match spec.channels {
        Channels::Rgb => [0, 1, 2],
        Channels::Bgr => [2, 1, 0],
    };
    (0..h * w)
        .flat_map(|i| source.map(|c| (i, c)))
        .map(|(i, c)| match spec.layout {
            Layout::Nchw => tensor[c * h * w + i],
            Layout::Nhwc => tensor[3 * i + c],
        })
        .collect()
}

#[test]
fn whole_pictures_become_the_right_rgb() {
    let bytes = golden("yuv_preprocess");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut seen = 0;
    for name in tensors.names() {
        let Some((case, place)) = name.split_once(".rgb.") else {
            continue;
        };
        let want: Vec<f32> = tensors
            .tensor(name)
            .unwrap()
            .data()
            .iter()
            .map(|b| f32::from(*b))
            .collect();
        let [planar, interleaved] = pictures(&tensors, case, siting(place));
        let [elsewhere, _] = pictures(&tensors, case, wrong(siting(place)));
        let levels = |picture: Yuv420| -> Vec<f32> {
            let rgb = Picture::Yuv(picture).to_rgb();
            rgb.as_raw().iter().map(|b| f32::from(*b)).collect()
        };
        let (mistaken, _) = difference(&levels(elsewhere), &want);
        for picture in [planar, interleaved] {
            let (mean, most) = difference(&levels(picture), &want);
            assert!(mean < mistaken, "{name}: {mean:.2} against {mistaken:.2}");
            // Chroma is rounded before it is multiplied by up to 2.1: a little more than for what is scaled down. The large
            // pictures have patches that clip.
            let (mean_bound, most_bound) = if case.starts_with('9') {
                (2.0, 128.0)
            } else {
                (MEAN, MOST + 4.0)
            };
            assert!(
                mean < mean_bound && most <= most_bound,
                "{name}: mean {mean:.2}, most {most:.1}"
            );
        }
        seen += 1;
    }
    assert_eq!(seen, 30);
}

#[test]
fn crops_become_the_right_tensor() {
    let bytes = golden("yuv_preprocess");
    let source = SafeTensors::deserialize(&bytes).unwrap();
    let mut worst: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for (reference, kept) in [("yuv_resize", "5"), ("yuv_resize_planes", "")] {
        let bytes = golden(reference);
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        for name in tensors.names() {
            let parts: Vec<&str> = name.split('.').collect();
            // SIZE.MATRIX.RANGE.SITING.CROP.HxW; against "convert first" only pictures with soft edges.
            let [size, matrix, range, place, crop, out] = parts[..] else {
                continue;
            };
            if !size.starts_with(kept) {
                continue;
            }
            let case = format!("{size}.{matrix}.{range}");
            let at = floats(&tensors, &format!("{size}.crop.{crop}"));
            let at = PixelBox {
                left: at[0],
                top: at[1],
                right: at[2],
                bottom: at[3],
            };
            let (height, width) = out.split_once('x').unwrap();
            let (height, width) = (height.parse().unwrap(), width.parse().unwrap());
            let want = floats(&tensors, name);
            for picture in pictures(&source, &case, siting(place)) {
                for (layout, channels) in
                    [(Layout::Nchw, Channels::Rgb), (Layout::Nhwc, Channels::Bgr)]
                {
                    let spec = spec(height, width, layout, channels);
                    let mut preprocess = Preprocess::new(&spec);
                    let mut tensor = vec![0.0; preprocess.tensor_len()];
                    let yuv = Picture::Yuv(picture.clone());
                    preprocess.run_into(&yuv, Some(at), &mut tensor).unwrap();
                    let got = as_rgb(&tensor, &spec);
                    let (mean, most) = difference(&got, &want);
                    let entry = worst.entry(reference).or_default();
                    *entry = (entry.0.max(mean), entry.1.max(most));
                    // Of a part only the pixels it touches count, here; the reference looks beyond its edges.
                    let bound = match (size.starts_with('5'), crop) {
                        (true, "part") => 1.5,
                        (true, _) => MEAN,
                        (false, _) => 2.5,
                    };
                    assert!(
                        mean < bound && (most <= MOST || !size.starts_with('5')),
                        "{reference} {name} {layout:?} {channels:?}: mean {mean:.2}, most {most:.1}"
                    );
                }
            }
        }
    }
    assert_eq!(worst.len(), 2, "{worst:?}");
}

#[test]
fn letterboxes_of_both_kinds_put_planes_where_they_put_rgb() {
    let bytes = golden("yuv_preprocess");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let [planar, _] = pictures(&tensors, "51x33.bt709.limited", Siting::Left);
    let yuv = Picture::Yuv(planar);
    let rgb = Picture::Rgb(yuv.to_rgb());
    for fit in [
        Fit::Stretch,
        Fit::LetterboxTopLeft(114),
        Fit::LetterboxCentre(114),
    ] {
        for crop in [
            None,
            Some(PixelBox {
                left: 10.0,
                top: 4.0,
                right: 40.0,
                bottom: 30.0,
            }),
        ] {
            let spec = InputSpec {
                fit,
                ..InputSpec::imagenet(40, 24)
            };
            let mut preprocess = Preprocess::new(&spec);
            let mut a = vec![f32::NAN; preprocess.tensor_len()];
            let mut b = a.clone();
            let at_yuv = preprocess.run_into(&yuv, crop, &mut a).unwrap();
            let at_rgb = preprocess.run_into(&rgb, crop, &mut b).unwrap();
            assert_eq!(at_yuv, at_rgb, "{fit:?}");
            // In levels: ImageNet's smallest deviation is 0.224.
            let (mean, _) = difference(&a, &b);
            assert!(mean * 255.0 * 0.224 < 1.0, "{fit:?} {crop:?}: {mean}");
            let small = preprocess.resized(&yuv, crop).unwrap();
            let own = preprocess.resized(&rgb, crop).unwrap();
            let levels = |p: &image::RgbImage| -> Vec<f32> {
                p.as_raw().iter().map(|b| f32::from(*b)).collect()
            };
            let (mean, _) = difference(&levels(&small), &levels(&own));
            assert!(mean < 1.0, "{fit:?} {crop:?}: {mean}");
        }
    }
}

#[test]
fn grey_of_planes_is_grey_of_rgb() {
    let bytes = golden("yuv_preprocess");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    for case in ["50x30.bt601.limited", "50x30.bt601.full"] {
        let [planar, _] = pictures(&tensors, case, Siting::Left);
        let yuv = Picture::Yuv(planar);
        let rgb = Picture::Rgb(yuv.to_rgb());
        let mut preprocess = Preprocess::new(&InputSpec::imagenet(16, 8));
        let own = preprocess.grey(&yuv, None).unwrap();
        let (mean, most) = difference(&own, &preprocess.grey(&rgb, None).unwrap());
        assert!(mean < MEAN && most < MOST, "{case}: {mean} {most}");
    }
}
