//! From a GStreamer sample to a picture of ours.

use gstreamer as gst;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use image::RgbImage;

/// Copies an RGB sample row by row: rows are padded to a multiple of four bytes, and may be padded further by the
/// element that made them. The error says what was got instead.
pub(super) fn picture(sample: &gst::Sample) -> Result<RgbImage, String> {
    let buffer = sample.buffer().ok_or("a sample without a buffer")?;
    let caps = sample.caps().ok_or("a sample without caps")?;
    let info = gst_video::VideoInfo::from_caps(caps)
        .map_err(|_| format!("caps {caps} are no raw video"))?;
    if info.format() != gst_video::VideoFormat::Rgb {
        return Err(format!("caps {caps}, wanted format=RGB"));
    }
    let frame =
        gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &info).map_err(|_| {
            format!(
                "a buffer of {} bytes does not hold caps {caps}",
                buffer.size()
            )
        })?;
    let (width, height) = (info.width() as usize, info.height() as usize);
    let row = width * 3;
    let stride =
        usize::try_from(frame.plane_stride()[0]).map_err(|_| "rows run upwards".to_owned())?;
    let data = frame.plane_data(0).map_err(|e| e.to_string())?;
    if height == 0 || row == 0 || stride < row || data.len() < stride * (height - 1) + row {
        return Err(format!(
            "{} bytes with stride {stride} do not hold {width} x {height} RGB",
            data.len()
        ));
    }
    let mut pixels = Vec::with_capacity(row * height);
    for y in 0..height {
        pixels.extend_from_slice(&data[y * stride..y * stride + row]);
    }
    RgbImage::from_raw(info.width(), info.height(), pixels)
        .ok_or_else(|| "a picture too large".into())
}
