//! From a GStreamer sample to a picture of ours, in the decoder's own format.

use gstreamer as gst;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use image::RgbImage;
use reid_models::picture::{Colour, Matrix, Picture, Plane, Siting, Yuv420};

/// Formats that need no conversion, most wanted first.
pub(super) const FORMATS: [&str; 3] = ["I420", "NV12", "RGB"];

/// Copies a sample, row by row: rows are padded, differently by every decoder. The error says what was got instead.
pub(super) fn picture(sample: &gst::Sample) -> Result<Picture, String> {
    let buffer = sample.buffer().ok_or("a sample without a buffer")?;
    let caps = sample.caps().ok_or("a sample without caps")?;
    let info = gst_video::VideoInfo::from_caps(caps)
        .map_err(|_| format!("caps {caps} are no raw video"))?;
    let planes = match info.format() {
        gst_video::VideoFormat::Rgb => 1,
        gst_video::VideoFormat::Nv12 => 2,
        gst_video::VideoFormat::I420 => 3,
        _ => return Err(format!("caps {caps}, wanted format={}", FORMATS.join(", "))),
    };
    let frame =
        gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &info).map_err(|_| {
            format!(
                "a buffer of {} bytes does not hold caps {caps}",
                buffer.size()
            )
        })?;
    let plane = |i: u32| -> Result<Plane<'_>, String> {
        let stride = usize::try_from(frame.plane_stride()[i as usize])
            .map_err(|_| "rows run upwards".to_owned())?;
        let data = frame.plane_data(i).map_err(|e| e.to_string())?;
        Ok(Plane { data, stride })
    };
    let planes: Vec<Plane> = (0..planes).map(plane).collect::<Result<_, _>>()?;
    let size = (info.width() as usize, info.height() as usize);
    match planes[..] {
        [rgb] => packed(rgb, size).map(Picture::Rgb),
        _ => Yuv420::copy(size, &planes, colour(&info))
            .map(Picture::Yuv)
            .map_err(|e| e.to_string()),
    }
}

fn packed(plane: Plane, (width, height): (usize, usize)) -> Result<RgbImage, String> {
    let (row, Plane { data, stride }) = (width * 3, plane);
    if height == 0 || row == 0 || stride < row || data.len() < stride * (height - 1) + row {
        return Err(format!(
            "{} bytes with stride {stride} do not hold {width} x {height} RGB",
            data.len()
        ));
    }
    let mut pixels = Vec::with_capacity(row * height);
    for row_data in data.chunks(stride).take(height) {
        pixels.extend_from_slice(&row_data[..row]);
    }
    RgbImage::from_raw(width as u32, height as u32, pixels)
        .ok_or_else(|| "a picture too large".into())
}

/// What the caps say about colour; where they say nothing, what is usual for the size.
fn colour(info: &gst_video::VideoInfo) -> Colour {
    let guess = Colour::guess(info.height() as usize);
    let colorimetry = info.colorimetry();
    let site = info.chroma_site();
    Colour {
        matrix: match colorimetry.matrix() {
            gst_video::VideoColorMatrix::Bt601 => Matrix::Bt601,
            gst_video::VideoColorMatrix::Bt709 => Matrix::Bt709,
            gst_video::VideoColorMatrix::Bt2020 => Matrix::Bt2020,
            _ => guess.matrix,
        },
        full_range: colorimetry.range() == gst_video::VideoColorRange::Range0_255,
        siting: if site.contains(gst_video::VideoChromaSite::H_COSITED) {
            Siting::Left
        } else if site.is_empty() {
            guess.siting
        } else {
            Siting::Centre
        },
    }
}
