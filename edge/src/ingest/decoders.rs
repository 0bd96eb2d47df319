//! Which elements decode a stream: a decision made from what is installed, apart from the making of it.
//!
//! [`choose`] knows nothing of GStreamer but names, so that what happens on a Jetson, a desktop with an NVIDIA card, a
//! machine with VA-API or one with none of them is tested everywhere. [`usable`] says what there really is.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};

use gstreamer as gst;
use gstreamer::prelude::*;

/// What may decode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Preference {
    /// Hardware where there is any, else software.
    #[default]
    Auto,
    /// The processor.
    Software,
    /// Hardware, or nothing.
    Hardware,
}

/// What a stream is encoded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    H264,
    H265,
    Jpeg,
    Vp8,
    Vp9,
    Av1,
}

/// Every codec that is decoded here and not by decodebin's own choice.
pub(super) const CODECS: [Codec; 6] = [
    Codec::H264,
    Codec::H265,
    Codec::Jpeg,
    Codec::Vp8,
    Codec::Vp9,
    Codec::Av1,
];

impl Codec {
    /// Of caps with this media type.
    pub(super) fn of_media_type(media: &str) -> Option<Codec> {
        CODECS.into_iter().find(|c| c.media_type() == media)
    }

    /// GStreamer's name of such a stream.
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Codec::H264 => "video/x-h264",
            Codec::H265 => "video/x-h265",
            Codec::Jpeg => "image/jpeg",
            Codec::Vp8 => "video/x-vp8",
            Codec::Vp9 => "video/x-vp9",
            Codec::Av1 => "video/x-av1",
        }
    }

    /// As people say it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Codec::H264 => "H.264",
            Codec::H265 => "H.265",
            Codec::Jpeg => "JPEG",
            Codec::Vp8 => "VP8",
            Codec::Vp9 => "VP9",
            Codec::Av1 => "AV1",
        }
    }

    /// Splits a stream into pictures; `(element, whether software needs it as well)`.
    fn parser(self) -> Option<(&'static str, bool)> {
        match self {
            Codec::H264 => Some(("h264parse", true)),
            Codec::H265 => Some(("h265parse", true)),
            Codec::Jpeg => Some(("jpegparse", false)),
            Codec::Vp8 => None,
            Codec::Vp9 => Some(("vp9parse", false)),
            Codec::Av1 => Some(("av1parse", true)),
        }
    }

    fn software(self) -> &'static [&'static str] {
        match self {
            Codec::H264 => &["avdec_h264", "openh264dec"],
            Codec::H265 => &["avdec_h265", "libde265dec"],
            Codec::Jpeg => &["jpegdec", "avdec_mjpeg"],
            Codec::Vp8 => &["vp8dec", "avdec_vp8"],
            Codec::Vp9 => &["vp9dec", "avdec_vp9"],
            Codec::Av1 => &["dav1ddec", "av1dec", "avdec_av1"],
        }
    }

    /// Best first. `nvv4l2decoder` is a Jetson's, `nv*dec` a desktop card's, `va*` Intel's and AMD's, `v4l2*` the small
    /// boards'.
    fn hardware(self) -> &'static [&'static str] {
        match self {
            Codec::H264 => &[
                "nvv4l2decoder",
                "nvh264dec",
                "vah264dec",
                "vaapih264dec",
                "v4l2h264dec",
                "v4l2slh264dec",
            ],
            Codec::H265 => &[
                "nvv4l2decoder",
                "nvh265dec",
                "vah265dec",
                "vaapih265dec",
                "v4l2h265dec",
                "v4l2slh265dec",
            ],
            Codec::Jpeg => &["nvjpegdec", "vajpegdec", "vaapijpegdec", "v4l2jpegdec"],
            Codec::Vp8 => &["nvv4l2decoder", "nvvp8dec", "vavp8dec", "v4l2vp8dec"],
            Codec::Vp9 => &["nvv4l2decoder", "nvvp9dec", "vavp9dec", "v4l2vp9dec"],
            Codec::Av1 => &["nvv4l2decoder", "nvav1dec", "vaav1dec"],
        }
    }
}

/// What to put between a demuxer or depayloader and `videoconvert`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Elements in order; [`FILTER`] stands for a capsfilter with [`filter`].
    pub(super) elements: Vec<&'static str>,
    /// The one that decodes.
    pub(super) decoder: &'static str,
    /// Whether that is hardware.
    pub(super) hardware: bool,
}

/// An element list's word for "in the processor's memory".
pub(super) const FILTER: &str = "capsfilter";

/// Why a stream cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoDecoder {
    /// `decoder = "hardware"` and there is none; the names that were looked for.
    Hardware(&'static [&'static str]),
    /// Not even software; the names that were looked for.
    Any(&'static [&'static str]),
    /// The parser is missing.
    Parser(&'static str),
}

/// The elements that decode `codec`, out of those that `has` knows.
pub(super) fn choose(
    codec: Codec,
    preference: Preference,
    has: &dyn Fn(&str) -> bool,
) -> Result<Plan, NoDecoder> {
    let first = |names: &[&'static str]| names.iter().copied().find(|n| has(n));
    let hardware = match preference {
        Preference::Software => None,
        _ => first(codec.hardware()),
    };
    let (decoder, hardware) = match (hardware, preference) {
        (Some(name), _) => (name, true),
        (None, Preference::Hardware) => return Err(NoDecoder::Hardware(codec.hardware())),
        (None, _) => (
            first(codec.software()).ok_or(NoDecoder::Any(codec.software()))?,
            false,
        ),
    };
    let mut elements = Vec::new();
    match codec.parser() {
        Some((parser, always)) if always || hardware => {
            if has(parser) {
                elements.push(parser);
            } else if always {
                return Err(NoDecoder::Parser(parser));
            }
        }
        _ => {}
    }
    elements.push(decoder);
    if hardware {
        elements.extend(to_memory(memory_of(decoder), has));
    }
    Ok(Plan {
        elements,
        decoder,
        hardware,
    })
}

/// Where a decoder leaves its pictures: a caps feature, or nothing for the processor's memory.
fn memory_of(decoder: &str) -> &'static str {
    match decoder {
        "nvv4l2decoder" => "memory:NVMM",
        d if d.starts_with("vaapi") => "memory:VASurface",
        d if d.starts_with("va") => "memory:VAMemory",
        d if d.starts_with("nv") && d.ends_with("dec") && d != "nvjpegdec" => "memory:CUDAMemory",
        _ => "",
    }
}

/// The elements that bring pictures with this caps feature into the processor's memory.
///
/// A desktop's NVIDIA, VA-API and V4L2 decoders can write there themselves if that is all they may do: [`FILTER`] alone
/// serves where the element that copies is missing.
pub(super) fn to_memory(feature: &str, has: &dyn Fn(&str) -> bool) -> Vec<&'static str> {
    let copy = match feature {
        // The only way out of NVMM.
        "memory:NVMM" => return vec!["nvvidconv", FILTER],
        "memory:CUDAMemory" => "cudadownload",
        "memory:VAMemory" => "vapostproc",
        "memory:VASurface" => "vaapipostproc",
        "memory:GLMemory" => return vec!["gldownload", FILTER],
        _ => return vec![FILTER],
    };
    if has(copy) {
        vec![copy, FILTER]
    } else {
        vec![FILTER]
    }
}

/// What may pass the capsfilter after `before`: elements that convert are held to NV12, the others to what they have.
pub(super) fn filter(before: &str) -> gst::Caps {
    let raw = gst::Caps::builder("video/x-raw");
    match before {
        "nvvidconv" | "vapostproc" | "vaapipostproc" => raw.field("format", "NV12").build(),
        _ => raw.build(),
    }
}

/// Whether an element is there and starts. A plugin may be installed on a machine without its hardware, or without the
/// driver: going to READY opens the device. Found out once per process.
pub(super) fn usable(name: &str) -> bool {
    static KNOWN: OnceLock<Mutex<HashMap<String, bool>>> = OnceLock::new();
    let known = KNOWN.get_or_init(Mutex::default);
    if let Some(answer) = known.lock().unwrap_or_else(|e| e.into_inner()).get(name) {
        return *answer;
    }
    let answer = gst::ElementFactory::make(name).build().is_ok_and(|e| {
        let starts = e.set_state(gst::State::Ready).is_ok();
        // From READY to NULL nothing can fail that matters here.
        let _ = e.set_state(gst::State::Null);
        starts
    });
    known
        .lock()
        .unwrap_or_else(|e| e.into_inner())
        .insert(name.to_owned(), answer);
    answer
}

/// Whether a machine has a hardware decoder of anything.
pub(super) fn any_hardware(has: &dyn Fn(&str) -> bool) -> bool {
    CODECS
        .iter()
        .any(|c| c.hardware().iter().any(|name| has(name)))
}

/// Whether an element decodes in hardware, by its name or its own word.
pub(super) fn is_hardware(factory: &gst::ElementFactory) -> bool {
    let name = factory.name();
    let listed = CODECS.iter().any(|c| c.hardware().contains(&name.as_str()));
    listed
        || factory
            .metadata("klass")
            .is_some_and(|k| k.contains("Hardware"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SOFTWARE: [&str; 6] = [
        "h264parse",
        "h265parse",
        "jpegparse",
        "avdec_h264",
        "avdec_h265",
        "jpegdec",
    ];
    const JETSON: [&str; 3] = ["nvv4l2decoder", "nvvidconv", "nvjpegdec"];
    const DESKTOP: [&str; 3] = ["nvh264dec", "nvh265dec", "cudadownload"];
    const VA: [&str; 3] = ["vah264dec", "vah265dec", "vapostproc"];

    fn chosen(
        codec: Codec,
        preference: Preference,
        more: &[&str],
    ) -> Result<Vec<&'static str>, NoDecoder> {
        let has = |name: &str| SOFTWARE.contains(&name) || more.contains(&name);
        choose(codec, preference, &has).map(|plan| {
            assert!(plan.elements.contains(&plan.decoder));
            assert_eq!(plan.hardware, more.contains(&plan.decoder), "{plan:?}");
            plan.elements
        })
    }

    #[test]
    fn each_kind_of_machine_gets_its_own_chain() {
        use Codec::*;
        use Preference::*;
        let h264 = |elements: &[&'static str]| Ok([&["h264parse"], elements].concat());
        assert_eq!(
            chosen(H264, Auto, &JETSON),
            h264(&["nvv4l2decoder", "nvvidconv", "capsfilter"])
        );
        assert_eq!(
            chosen(H264, Auto, &DESKTOP),
            h264(&["nvh264dec", "cudadownload", "capsfilter"])
        );
        // Before GStreamer 1.20 there was no cudadownload; the decoder copies by itself.
        assert_eq!(
            chosen(H264, Auto, &["nvh264dec"]),
            h264(&["nvh264dec", "capsfilter"])
        );
        assert_eq!(
            chosen(H264, Auto, &VA),
            h264(&["vah264dec", "vapostproc", "capsfilter"])
        );
        assert_eq!(
            chosen(H264, Auto, &["vaapih264dec", "vaapipostproc"]),
            h264(&["vaapih264dec", "vaapipostproc", "capsfilter"])
        );
        assert_eq!(
            chosen(H264, Auto, &["v4l2h264dec"]),
            h264(&["v4l2h264dec", "capsfilter"])
        );
        assert_eq!(chosen(H264, Auto, &[]), h264(&["avdec_h264"]));
        assert_eq!(
            chosen(H265, Hardware, &JETSON),
            Ok(vec![
                "h265parse",
                "nvv4l2decoder",
                "nvvidconv",
                "capsfilter"
            ])
        );
        assert_eq!(
            chosen(Jpeg, Auto, &JETSON),
            Ok(vec!["jpegparse", "nvjpegdec", "capsfilter"])
        );
        assert_eq!(chosen(Jpeg, Auto, &[]), Ok(vec!["jpegdec"]));
    }

    #[test]
    fn software_is_software_whatever_there_is() {
        for more in [&JETSON[..], &DESKTOP, &VA, &[]] {
            assert_eq!(
                chosen(Codec::H264, Preference::Software, more),
                Ok(vec!["h264parse", "avdec_h264"])
            );
        }
    }

    #[test]
    fn hardware_that_is_not_there_is_refused_and_what_is_missing_is_named() {
        for more in [&["vah265dec"][..], &[]] {
            let Err(NoDecoder::Hardware(names)) = chosen(Codec::H264, Preference::Hardware, more)
            else {
                panic!("there is none")
            };
            assert!(names.contains(&"nvh264dec") && names.contains(&"nvv4l2decoder"));
        }
        assert!(matches!(
            chosen(Codec::Vp9, Preference::Auto, &[]),
            Err(NoDecoder::Any(names)) if names.contains(&"vp9dec")
        ));
        let none = |name: &str| name == "avdec_h264";
        assert_eq!(
            choose(Codec::H264, Preference::Auto, &none),
            Err(NoDecoder::Parser("h264parse"))
        );
        assert!(!any_hardware(&|name| SOFTWARE.contains(&name)));
        assert!(any_hardware(&|name| name == "vajpegdec"));
    }

    #[test]
    fn media_types_are_told_apart() {
        for codec in CODECS {
            assert_eq!(Codec::of_media_type(codec.media_type()), Some(codec));
        }
        assert_eq!(Codec::of_media_type("video/mpeg"), None);
        assert_eq!(memory_of("nvjpegdec"), "");
        assert_eq!(memory_of("nvvp9dec"), "memory:CUDAMemory");
        assert_eq!(memory_of("vaapijpegdec"), "memory:VASurface");
    }

    #[test]
    fn what_is_installed_here_is_found() {
        gst::init().unwrap();
        assert!(usable("identity") && usable("identity"));
        assert!(!usable("no-such-element"));
        let factory = |name| gst::ElementFactory::find(name).unwrap();
        assert!(!is_hardware(&factory("identity")));
    }
}
