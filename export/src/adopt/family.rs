//! What the models of a family take, where no option says otherwise: the settings of the configurations and export
//! scripts that their authors publish.

use reid_models::card::head::{P5, cells};
use reid_models::card::{Channels, Decode, Fit, Range};
use reid_models::runtime::file::{Axis, TensorInfo};

use super::{AdoptOptions, Task};

/// Conventions of a family of models.
pub(super) struct Family {
    pub channels: Channels,
    pub range: Range,
    pub mean: [f32; 3],
    pub std: [f32; 3],
    pub fit: Fit,
}

impl Family {
    /// The family of the options' task and decoding; `size` is the input's (height, width), `output` the file's head.
    pub(super) fn of(
        options: &AdoptOptions,
        size: (usize, usize),
        output: Option<&TensorInfo>,
    ) -> Family {
        let raw = |channels, range, fit| Family {
            channels,
            range,
            mean: [0.0; 3],
            std: [1.0; 3],
            fit,
        };
        // ImageNet's statistics in units of bytes, by the order of the channels.
        let imagenet = |channels, fit| {
            let (mut mean, mut std) = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]);
            if channels == Channels::Bgr {
                mean.reverse();
                std.reverse();
            }
            Family {
                mean,
                std,
                ..raw(channels, Range::Byte, fit)
            }
        };
        match (options.task, options.decode) {
            (Task::Embed, _) => match options.range {
                Some(Range::Byte) => raw(Channels::Rgb, Range::Byte, Fit::Stretch),
                _ => Family {
                    channels: Channels::Rgb,
                    range: Range::Unit,
                    mean: [0.485, 0.456, 0.406],
                    std: [0.229, 0.224, 0.225],
                    fit: Fit::Stretch,
                },
            },
            (_, Some(Decode::Yolox | Decode::YoloxDecoded)) => {
                raw(Channels::Bgr, Range::Byte, Fit::LetterboxTopLeft(114))
            }
            (_, Some(Decode::Yolov5 | Decode::Yolov8 | Decode::EndToEnd)) => {
                raw(Channels::Rgb, Range::Unit, Fit::LetterboxCentre(114))
            }
            // NanoDet-Plus was trained with keep_ratio = False, NanoDet before it (three levels) with True, on black.
            (_, Some(Decode::Nanodet)) => imagenet(
                Channels::Bgr,
                match output.and_then(|o| o.shape.as_ref()?.get(1)) {
                    Some(Axis::Fixed(n)) if *n == cells(P5, size) => Fit::LetterboxCentre(0),
                    _ => Fit::Stretch,
                },
            ),
            // As RTMDet: other models of MMDetection take RGB and pad with black.
            (_, Some(Decode::Mmdet)) => imagenet(Channels::Bgr, Fit::LetterboxTopLeft(114)),
            (_, Some(Decode::Simcc)) => imagenet(Channels::Rgb, Fit::LetterboxCentre(0)),
            (_, Some(Decode::Movenet)) => raw(Channels::Rgb, Range::Byte, Fit::LetterboxCentre(0)),
            // torchvision's models normalise inside.
            (_, Some(Decode::Torchvision)) => raw(Channels::Rgb, Range::Unit, Fit::Stretch),
            (_, Some(Decode::Tensorflow)) => raw(Channels::Rgb, Range::Byte, Fit::Stretch),
            (_, Some(Decode::Ssd) | None) => raw(Channels::Bgr, Range::Byte, Fit::Stretch),
        }
    }
}
