//! Which Debian package brings what GStreamer lacks.

/// The package of an element this program asks for by name.
pub(super) fn of_element(name: &str) -> &'static str {
    match name {
        "filesrc" | "capsfilter" | "queue" | "typefind" | "identity" => "libgstreamer1.0-0",
        "nvv4l2decoder" | "nvvidconv" | "nvarguscamerasrc" => "nvidia-l4t-gstreamer",
        "rtspsrc" | "rtph264depay" | "rtph265depay" | "rtpjpegdepay" | "jpegdec" | "v4l2src"
        | "qtdemux" | "matroskademux" | "avidemux" | "vp8dec" | "vp9dec" | "souphttpsrc"
        | "multipartdemux" => "gstreamer1.0-plugins-good",
        "h264parse" | "h265parse" | "jpegparse" | "vp9parse" | "av1parse" | "tsdemux"
        | "mpegtsdemux" | "openh264dec" | "libde265dec" | "av1dec" | "dav1ddec" | "vapostproc"
        | "cudadownload" => "gstreamer1.0-plugins-bad",
        "gldownload" => "gstreamer1.0-gl",
        name if name.starts_with("vaapi") => "gstreamer1.0-vaapi",
        name if name.starts_with("avdec") => "gstreamer1.0-libav",
        _ => "gstreamer1.0-plugins-base",
    }
}

/// The package that reads a format, from its media type ("video/x-h264").
pub(super) fn of_media_type(media: &str) -> &'static str {
    match media {
        "video/quicktime" | "video/x-matroska" | "video/webm" | "video/x-msvideo"
        | "video/x-flv" | "image/jpeg" | "video/x-vp8" | "video/x-vp9" | "video/x-dv"
        | "application/x-rtp" => "gstreamer1.0-plugins-good",
        "video/mpegts" | "video/x-av1" | "application/x-subtitle" | "application/mxf" => {
            "gstreamer1.0-plugins-bad"
        }
        "application/ogg" | "video/x-theora" => "gstreamer1.0-plugins-base",
        _ => "gstreamer1.0-libav",
    }
}
