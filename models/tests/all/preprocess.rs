//! `preprocess` against Pillow, and the training path against the edge's.

use std::path::Path;

use image::RgbImage;
use reid_models::card::{Channels, Filter, Fit, InputSpec, Layout, Range};
use reid_models::preprocess::{PixelBox, Preprocess, PreprocessError, Rgb, decode};
use safetensors::SafeTensors;

/// Two implementations of one filter may round a value that lies between two levels to either.
const LEVELS: u8 = 1;

fn picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([(x * 7 + y) as u8, (x + y * 5) as u8, ((x * y) % 251) as u8])
    })
}

fn crop(left: f32, top: f32, right: f32, bottom: f32) -> PixelBox {
    PixelBox {
        left,
        top,
        right,
        bottom,
    }
}

// golden/pillow_resize.safetensors: made by pillow_resize.py beside it (seed 7).
#[test]
fn resizes_as_pillow_does() {
    let bytes = include_bytes!("../golden/pillow_resize.safetensors");
    let golden = SafeTensors::deserialize(bytes).unwrap();
    let source = golden.tensor("source").unwrap();
    let picture = Rgb {
        data: source.data(),
        width: source.shape()[1],
        height: source.shape()[0],
        stride: 3 * source.shape()[1],
    };
    let mut cases = 0;
    for (name, want) in golden.tensors() {
        let Some((_, filter)) = name.split_once('_') else {
            continue;
        };
        if name.contains('.') {
            continue;
        }
        let edges = golden.tensor(&format!("{name}.box")).unwrap();
        let e: Vec<f32> = edges
            .data()
            .as_chunks::<4>()
            .0
            .iter()
            .map(|&b| f32::from_le_bytes(b))
            .collect();
        let spec = InputSpec {
            filter: match filter {
                "bilinear" => Filter::Bilinear,
                "bicubic" => Filter::Bicubic,
                other => panic!("{other}"),
            },
            ..InputSpec::imagenet(want.shape()[0], want.shape()[1])
        };
        let got = Preprocess::new(&spec)
            .resized(picture, Some(crop(e[0], e[1], e[2], e[3])))
            .unwrap();
        let worst = got
            .as_raw()
            .iter()
            .zip(want.data())
            .map(|(a, b)| a.abs_diff(*b))
            .max();
        assert!(worst <= Some(LEVELS), "{name}: {worst:?} levels apart");
        cases += 1;
    }
    assert_eq!(cases, 6);
}

// The same file: pictures with hard edges, where bicubic is clipped between its two passes.
#[test]
fn hard_edges_differ_from_pillows_by_less_than_a_level_in_the_mean() {
    let bytes = include_bytes!("../golden/pillow_resize.safetensors");
    let golden = SafeTensors::deserialize(bytes).unwrap();
    let mut cases = 0;
    for (name, want) in golden.tensors() {
        let Some((case, filter)) = name
            .split_once('.')
            .filter(|(case, _)| case.starts_with("hard_"))
        else {
            continue;
        };
        let filter = match filter {
            "bilinear" => Filter::Bilinear,
            "bicubic" => Filter::Bicubic,
            _ => continue,
        };
        let source = golden.tensor(&format!("{case}.source")).unwrap();
        let (height, width) = (source.shape()[0], source.shape()[1]);
        let picture = Rgb {
            data: source.data(),
            width,
            height,
            stride: 3 * width,
        };
        // Mean and largest difference in levels.
        let apart = |filter| {
            let spec = InputSpec {
                filter,
                ..InputSpec::imagenet(want.shape()[0], want.shape()[1])
            };
            let got = Preprocess::new(&spec).resized(picture, None).unwrap();
            let levels: Vec<u8> = got
                .as_raw()
                .iter()
                .zip(want.data())
                .map(|(a, b)| a.abs_diff(*b))
                .collect();
            let sum: f64 = levels.iter().map(|l| f64::from(*l)).sum();
            (sum / levels.len() as f64, levels.into_iter().max())
        };
        let (mean, worst) = apart(filter);
        println!("{name}: mean {mean:.4}, largest {worst:?} levels");
        assert!(mean <= 1.0, "{name}: {mean} levels apart in the mean");
        let other = match filter {
            Filter::Bilinear => Filter::Bicubic,
            Filter::Bicubic => Filter::Bilinear,
        };
        let same_size = source.shape() == want.shape();
        assert!(
            same_size || apart(other).0 > 1.0,
            "{name}: tells no filters apart"
        );
        cases += 1;
    }
    assert_eq!(cases, 10);
}

/// Training reads crop files; the edge cuts crops out of frames. Both must make the same tensor.
#[test]
fn a_crop_file_and_a_crop_of_a_frame_give_one_tensor() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("crop.png");
    let frame = picture(203, 151);
    let (x, y, w, h) = (37u32, 12u32, 45u32, 101u32);
    image::imageops::crop_imm(&frame, x, y, w, h)
        .to_image()
        .save(&path)
        .unwrap();
    let spec = InputSpec::imagenet(128, 64);
    let mut preprocess = Preprocess::new(&spec);
    let len = preprocess.tensor_len();

    let file = decode(&path).unwrap();
    let mut train = vec![0.0; len];
    let resized = preprocess.resized(Rgb::from(&file), None).unwrap();
    preprocess.normalize_into(&resized, &mut train);

    // The frame's rows are padded, as a decoder's are.
    let stride = 3 * 203 + 7;
    let mut padded = vec![0u8; stride * 151];
    for (row, bytes) in frame.as_raw().chunks_exact(3 * 203).enumerate() {
        padded[row * stride..row * stride + 3 * 203].copy_from_slice(bytes);
    }
    let frame = Rgb {
        data: &padded[..stride * 150 + 3 * 203],
        width: 203,
        height: 151,
        stride,
    };
    let edges = crop(x as f32, y as f32, (x + w) as f32, (y + h) as f32);
    let mut edge = vec![0.0; len];
    preprocess.run_into(frame, Some(edges), &mut edge).unwrap();
    assert_eq!(train, edge);
}

#[test]
fn conventions_of_every_kind_of_model() {
    let picture = RgbImage::from_fn(2, 1, |x, _| image::Rgb([10 + x as u8, 20 + x as u8, 30]));
    // 8 x 8 is the smallest input; every value of a row repeats, so the first column is enough.
    let run = |spec: &InputSpec| {
        let mut out = vec![0.0; 3 * 64];
        Preprocess::new(spec).normalize_into(
            &RgbImage::from_fn(8, 8, |_, _| *picture.get_pixel(0, 0)),
            &mut out,
        );
        out
    };
    let plain = InputSpec {
        mean: [0.0; 3],
        std: [1.0; 3],
        range: Range::Byte,
        ..InputSpec::imagenet(8, 8)
    };
    let nchw = run(&plain);
    assert_eq!([nchw[0], nchw[64], nchw[128]], [10.0, 20.0, 30.0]);
    let nhwc_bgr = run(&InputSpec {
        layout: Layout::Nhwc,
        channels: Channels::Bgr,
        ..plain.clone()
    });
    assert_eq!(nhwc_bgr[..6], [30.0, 20.0, 10.0, 30.0, 20.0, 10.0]);
    // mean and std are in the model's channel order: the first belongs to blue here.
    let scaled = run(&InputSpec {
        channels: Channels::Bgr,
        mean: [30.0, 0.0, 0.0],
        std: [1.0, 2.0, 4.0],
        ..plain
    });
    assert_eq!([scaled[0], scaled[64], scaled[128]], [0.0, 10.0, 2.5]);
    let unit = run(&InputSpec::imagenet(8, 8));
    assert!((unit[0] - (10.0 / 255.0 - 0.485) / 0.229).abs() < 1e-6);
}

#[test]
fn letterboxes_keep_the_shape_and_find_back() {
    for (fit, corner) in [
        (Fit::LetterboxTopLeft(114), (0, 0)),
        (Fit::LetterboxCentre(114), (8, 0)),
    ] {
        let spec = InputSpec {
            fit,
            range: Range::Byte,
            mean: [0.0; 3],
            std: [1.0; 3],
            ..InputSpec::imagenet(32, 32)
        };
        let mut preprocess = Preprocess::new(&spec);
        let white = RgbImage::from_pixel(50, 100, image::Rgb([255; 3]));
        let got = preprocess.resized(Rgb::from(&white), None).unwrap();
        let column = |x: u32| got.get_pixel(x, 16)[0];
        assert_eq!(column(corner.0), 255);
        assert_eq!(column(corner.0 + 15), 255);
        assert_eq!(column(corner.0 + 16), 114);
        if corner.0 > 0 {
            assert_eq!(column(corner.0 - 1), 114);
        }
        let mut out = vec![0.0; 3 * 32 * 32];
        let edges = crop(10.0, 20.0, 30.0, 60.0);
        let placed = preprocess
            .run_into(Rgb::from(&white), Some(edges), &mut out)
            .unwrap();
        let (x, y) = placed.frame_from_input(corner.0 as f32, corner.1 as f32);
        assert!(
            (x - 10.0).abs() < 1e-4 && (y - 20.0).abs() < 1e-4,
            "{x} {y}"
        );
        let (x, y) = placed.frame_from_input(corner.0 as f32 + 16.0, 32.0);
        assert!(
            (x - 30.0).abs() < 1e-4 && (y - 60.0).abs() < 1e-4,
            "{x} {y}"
        );
    }
}

#[test]
fn boxes_are_clamped_and_empty_ones_refused() {
    let frame = picture(40, 30);
    let mut preprocess = Preprocess::new(&InputSpec::imagenet(16, 16));
    let whole = preprocess.resized(Rgb::from(&frame), None).unwrap();
    let beyond = crop(-5.0, -9.0, 400.0, 300.0);
    assert_eq!(
        preprocess.resized(Rgb::from(&frame), Some(beyond)).unwrap(),
        whole
    );
    for bad in [
        crop(50.0, 0.0, 60.0, 10.0),
        crop(5.0, 5.0, 5.0, 9.0),
        crop(9.0, 5.0, 5.0, 9.0),
        crop(f32::NAN, 0.0, 5.0, 5.0),
    ] {
        let err = preprocess
            .resized(Rgb::from(&frame), Some(bad))
            .unwrap_err();
        assert!(matches!(err, PreprocessError::EmptyCrop { .. }), "{err}");
        assert!(err.to_string().contains("40 x 30"), "{err}");
    }
    // A sliver of a pixel still gives a picture.
    let sliver = crop(7.3, 7.3, 7.4, 9.0);
    preprocess.resized(Rgb::from(&frame), Some(sliver)).unwrap();
}

#[test]
fn buffers_that_do_not_hold_the_picture_are_refused() {
    let mut preprocess = Preprocess::new(&InputSpec::imagenet(16, 16));
    let data = vec![0u8; 100];
    for (width, height, stride) in [(10, 10, 30), (0, 4, 0), (10, 2, 20), (10, usize::MAX, 30)] {
        let picture = Rgb {
            data: &data,
            width,
            height,
            stride,
        };
        let err = preprocess.resized(picture, None).unwrap_err();
        assert!(matches!(err, PreprocessError::Buffer { .. }), "{err}");
    }
}

#[test]
fn a_broken_picture_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0001_c1.jpg");
    std::fs::write(&path, b"\xff\xd8\xff not a jpeg").unwrap();
    for path in [path.as_path(), Path::new("/nowhere/0001_c1.jpg")] {
        let err = decode(path).unwrap_err().to_string();
        assert!(err.contains("0001_c1.jpg"), "{err}");
    }
}

#[test]
fn a_jpeg_without_its_end_is_no_grey_picture() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0002_c1.jpg");
    image::RgbImage::from_fn(64, 128, |x, y| {
        image::Rgb([(x * y) as u8, x as u8, y as u8])
    })
    .save(&path)
    .unwrap();
    let whole = std::fs::read(&path).unwrap();
    assert_eq!(decode(&path).unwrap().dimensions(), (64, 128));
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let err = decode(&path).unwrap_err().to_string();
    assert!(err.contains("0002_c1.jpg: the JPEG is cut short"), "{err}");
}
