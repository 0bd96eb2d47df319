//! A card for a file made by others, so that the edge needs no special cases.
//!
//! Size, layout, element type, batch and embedding width are read from the file where it fixes them. What no file says,
//! channel order, range, mean, std, fit and decoding, comes from options, with the defaults of the model's family. A
//! detector's decoding is held to the file's shapes and to the numbers it gives.

mod family;
mod numbers;
mod resize;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use reid_models::card::decode::{Misfit, would_fit};
use reid_models::card::{
    CARD_VERSION, Channels, Decode, Element, Filter, Fit, InputSpec, Layout, METADATA_KEY,
    ModelCard, OutputSpec, Range,
};
use reid_models::files;
use reid_models::runtime::file::{Axis, TensorInfo};
use reid_models::runtime::proto::DataType;
use reid_models::runtime::{self, OnnxFile, RuntimeConfig, RuntimeError, Tensor};
use reid_models::weights;
use serde::Serialize;

use crate::ExportError;
use family::Family;

/// What a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// One vector per crop.
    Embed,
    /// Boxes.
    Detect,
    /// Keypoints.
    Pose,
}

/// What is known about the file beyond what stands in it. `None`: from the file, else the family's default.
#[derive(Clone, Debug)]
pub struct AdoptOptions {
    /// What it is for.
    pub task: Task,
    /// Axis order.
    pub layout: Option<Layout>,
    /// Channel order.
    pub channels: Option<Channels>,
    /// Range of a pixel before mean and std.
    pub range: Option<Range>,
    /// Mean per channel in the model's channel order, in units of the range.
    pub mean: Option<[f32; 3]>,
    /// Standard deviation per channel, likewise.
    pub std: Option<[f32; 3]>,
    /// How a picture of another shape is fitted.
    pub fit: Option<Fit>,
    /// Resize filter.
    pub filter: Option<Filter>,
    /// Input width and height, for a file that leaves them open.
    pub size: Option<(usize, usize)>,
    /// Width and height for which the network is written anew, beside its file.
    pub resize: Option<(usize, usize)>,
    /// Output convention of a detector or pose estimator.
    pub decode: Option<Decode>,
    /// Class that means a person. 0 becomes 1 where class 0 is always the background: torchvision, and TensorFlow's
    /// Object Detection API.
    pub person_class: usize,
    /// Output tensor, if not the first.
    pub tensor: Option<String>,
    /// Name of the model; the file's stem if absent.
    pub name: Option<String>,
    /// Licence of the weights.
    pub license: Option<String>,
    /// How the model is tried out.
    pub runtime: RuntimeConfig,
}

impl AdoptOptions {
    /// Everything from the file or by default.
    pub fn new(task: Task) -> Self {
        AdoptOptions {
            task,
            layout: None,
            channels: None,
            range: None,
            mean: None,
            std: None,
            fit: None,
            filter: None,
            size: None,
            resize: None,
            decode: None,
            person_class: 0,
            tensor: None,
            name: None,
            license: None,
            runtime: RuntimeConfig::default(),
        }
    }
}

/// A card that was written.
#[derive(Clone, Debug, Serialize)]
pub struct Adopted {
    /// Where.
    pub card_file: PathBuf,
    /// The card.
    pub card: ModelCard,
    /// Engine that ran the model once on a grey picture; absent if it could not.
    pub tried_with: Option<String>,
    /// Why the model could not be tried out here.
    pub warning: Option<String>,
}

/// Writes `FILE.onnx.card.json` after running the model once on a grey picture.
///
/// # Errors
/// If the file isn't ONNX, carries its own card, has no image input, leaves something open that no option says, or
/// answers in another form than its task and decoding have. An engine that cannot run the file is a warning only: the
/// device's may.
pub fn adopt(path: &Path, options: &AdoptOptions) -> Result<Adopted, ExportError> {
    match options.resize {
        None => adopt_as_it_is(path, options),
        Some(size) => adopt_resized(path, size, options),
    }
}

/// Writes `FILE-WxH.onnx` and adopts that; neither is left behind unless it runs.
fn adopt_resized(
    path: &Path,
    size: (usize, usize),
    options: &AdoptOptions,
) -> Result<Adopted, ExportError> {
    let fail = |reason: String| ExportError::Adopt {
        path: path.to_path_buf(),
        reason,
    };
    let bytes = resize::resized(&files::read(path)?, size).map_err(fail)?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let target = path.with_file_name(format!("{stem}-{}x{}.onnx", size.0, size.1));
    let there = target.exists();
    if there && files::read(&target)? != bytes[..] {
        return Err(fail(format!(
            "{} is there already and is something else: remove it first",
            target.display()
        )));
    }
    files::write_atomic(&target, &bytes)?;
    let options = AdoptOptions {
        resize: None,
        ..options.clone()
    };
    let reason = match adopt_as_it_is(&target, &options) {
        Ok(adopted) => match adopted.warning {
            None => return Ok(adopted),
            Some(warning) => warning,
        },
        Err(error) => error.to_string(),
    };
    if !there {
        for left in [ModelCard::path_beside(&target), target] {
            // The card may not have been written.
            let _ = std::fs::remove_file(left);
        }
    }
    Err(fail(format!(
        "cannot be written anew for {} x {} (width x height): its sizes are fixed inside, or the strides do not divide these: {reason}",
        size.0, size.1
    )))
}

fn adopt_as_it_is(path: &Path, options: &AdoptOptions) -> Result<Adopted, ExportError> {
    let bytes = files::read(path)?;
    let file = OnnxFile::parse(bytes.clone(), path)?;
    if file.metadata.contains_key(METADATA_KEY) {
        return Err(ExportError::HasCard {
            path: path.to_path_buf(),
        });
    }
    let fail = |reason: String| ExportError::Adopt {
        path: path.to_path_buf(),
        reason,
    };
    let output_index = match &options.tensor {
        None => 0,
        Some(name) => file
            .outputs
            .iter()
            .position(|o| o.name == *name)
            .ok_or_else(|| {
                let names: Vec<&str> = file.outputs.iter().map(|o| o.name.as_str()).collect();
                fail(format!(
                    "--tensor {name} is not among the outputs ({})",
                    names.join(", ")
                ))
            })?,
    };
    let input = input_spec(&file, path, output_index, options)?;
    let mut card = ModelCard {
        version: CARD_VERSION,
        name: options.name.clone().unwrap_or_else(|| {
            path.file_stem()
                .map_or_else(String::new, |s| s.to_string_lossy().into_owned())
        }),
        fingerprint: weights::fingerprint_of_file(&bytes, &input),
        output: output_spec(&file.outputs[output_index], options).map_err(fail)?,
        input,
        training: None,
        license: options.license.clone(),
        toolkit: env!("CARGO_PKG_VERSION").into(),
        thresholds: BTreeMap::new(),
    };
    // Reading it back applies every check that the edge will apply.
    card = ModelCard::from_json(&card.to_json(), path)?;
    let (tried_with, warning) = match try_out(path, &card, &options.runtime) {
        Ok((engine, outputs)) => {
            hold(&mut card, &file.outputs, Some(&outputs)).map_err(fail)?;
            check_output(&mut card.output, &outputs, output_index).map_err(fail)?;
            (Some(engine), None)
        }
        Err(error @ (RuntimeError::NotImage { .. } | RuntimeError::Mismatch { .. })) => {
            return Err(error.into());
        }
        Err(error) => {
            hold(&mut card, &file.outputs, None).map_err(fail)?;
            (None, Some(error.to_string()))
        }
    };
    let open_width =
        options.task == Task::Embed && fixed_width(&file.outputs[output_index]).is_none();
    if let (Some(reason), true) = (&warning, open_width) {
        return Err(fail(format!(
            "the file does not say how wide its vectors are, and it could not be run here to find out: {reason}"
        )));
    }
    let card_file = ModelCard::path_beside(path);
    card.write(&card_file)?;
    Ok(Adopted {
        card_file,
        card,
        tried_with,
        warning,
    })
}

fn input_spec(
    file: &OnnxFile,
    path: &Path,
    output_index: usize,
    options: &AdoptOptions,
) -> Result<InputSpec, ExportError> {
    let not_image = |reason: String| {
        ExportError::Runtime(RuntimeError::NotImage {
            path: path.to_path_buf(),
            reason,
        })
    };
    let open = |reason: String| ExportError::Adopt {
        path: path.to_path_buf(),
        reason,
    };
    let [input] = &file.inputs[..] else {
        let names: Vec<&str> = file.inputs.iter().map(|i| i.name.as_str()).collect();
        return Err(not_image(format!(
            "it takes {} inputs ({}), an image model takes one",
            names.len(),
            names.join(", ")
        )));
    };
    let element = match input.element {
        DataType::Float => Element::F32,
        DataType::Float16 => Element::F16,
        DataType::Uint8 => Element::U8,
        other => {
            return Err(not_image(format!(
                "input `{}` has elements of type {other:?}, an image has Float, Float16 or Uint8",
                input.name
            )));
        }
    };
    let dynamic = || Axis::Dynamic("?".into());
    let axes = match input.shape.as_deref() {
        Some([batch, a, b, c]) => [batch, a, b, c].map(Clone::clone),
        None => std::array::from_fn(|_| dynamic()),
        Some(_) => {
            return Err(not_image(format!(
                "input `{}` is {}, an image has four axes",
                input.name,
                input.shape_text()
            )));
        }
    };
    let three = Axis::Fixed(3);
    let layout = match (options.layout, axes[1] == three, axes[3] == three) {
        (Some(layout), _, _) => layout,
        (None, true, false) => Layout::Nchw,
        (None, false, true) => Layout::Nhwc,
        (None, false, false)
            if matches!((&axes[1], &axes[3]), (Axis::Fixed(_), Axis::Fixed(_))) =>
        {
            return Err(not_image(format!(
                "input `{}` is {}, no axis has the 3 channels of an image",
                input.name,
                input.shape_text()
            )));
        }
        _ => {
            return Err(open(format!(
                "input `{}` is {}, which leaves the axis order open: say --layout nchw or --layout nhwc",
                input.name,
                input.shape_text()
            )));
        }
    };
    let (h, w) = match layout {
        Layout::Nchw => (&axes[2], &axes[3]),
        Layout::Nhwc => (&axes[1], &axes[2]),
    };
    let (height, width) = match (h, w, options.size) {
        (Axis::Fixed(h), Axis::Fixed(w), None) => (*h, *w),
        // A contradiction between --size and the file is found when the model is opened.
        (_, _, Some((w, h))) => (h, w),
        _ => {
            return Err(open(format!(
                "input `{}` is {}, which leaves the size open: say --size WxH",
                input.name,
                input.shape_text()
            )));
        }
    };
    let family = Family::of(options, (height, width), file.outputs.get(output_index));
    Ok(InputSpec {
        height,
        width,
        fit: options.fit.unwrap_or(family.fit),
        filter: options.filter.unwrap_or_default(),
        layout,
        channels: options.channels.unwrap_or(family.channels),
        range: options.range.unwrap_or(family.range),
        mean: options.mean.unwrap_or(family.mean),
        std: options.std.unwrap_or(family.std),
        element,
        fixed_batch: match axes[0] {
            Axis::Fixed(n) => Some(n),
            Axis::Dynamic(_) => None,
        },
    })
}

/// The card's output. Where the file leaves an embedding's width open it is 1 until the model has been tried out.
fn output_spec(output: &TensorInfo, options: &AdoptOptions) -> Result<OutputSpec, String> {
    let tensor = options.tensor.clone();
    let decode = |known: &[Decode]| {
        options.decode.ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(|d| d.name()).collect();
            format!(
                "the output convention is not known: say --decode {}",
                names.join("|")
            )
        })
    };
    Ok(match options.task {
        Task::Embed => OutputSpec::Embed {
            tensor,
            width: fixed_width(output).unwrap_or(1),
            normalized: false,
        },
        Task::Detect => OutputSpec::Detect {
            tensor,
            decode: decode(&Decode::DETECTORS)?,
            person_class: options.person_class,
        },
        Task::Pose => OutputSpec::Pose {
            tensor,
            decode: decode(&[Decode::Movenet, Decode::Simcc])?,
        },
    })
}

fn fixed_width(output: &TensorInfo) -> Option<usize> {
    output
        .shape
        .as_ref()?
        .iter()
        .skip(1)
        .try_fold(1, |n, axis| match axis {
            Axis::Fixed(m) => Some(n * m),
            Axis::Dynamic(_) => None,
        })
}

/// One picture of mid grey through the model.
fn try_out(
    path: &Path,
    card: &ModelCard,
    config: &RuntimeConfig,
) -> Result<(String, Vec<(String, Tensor)>), RuntimeError> {
    let mut session = runtime::open(path, card, config)?;
    let input = &card.input;
    let grey = match input.range {
        Range::Unit => 0.5,
        Range::Byte => 128.0,
    };
    let value = (grey - input.mean[0]) / input.std[0];
    let outputs = session.run(1, &vec![value; 3 * input.height * input.width])?;
    Ok((session.description(), outputs))
}

/// Holds a detector's card to its file: by the shapes that the file declares or, where it has run, by the shapes and
/// numbers it gave.
fn hold(
    card: &mut ModelCard,
    declared: &[TensorInfo],
    outputs: Option<&[(String, Tensor)]>,
) -> Result<(), String> {
    let size = (card.input.height, card.input.width);
    let OutputSpec::Detect {
        tensor,
        decode,
        person_class,
    } = &mut card.output
    else {
        return Ok(());
    };
    let mut seen = declared.to_vec();
    for (info, (_, tensor)) in seen.iter_mut().zip(outputs.unwrap_or_default()) {
        info.shape = Some(tensor.shape.iter().map(|&n| Axis::Fixed(n)).collect());
    }
    let tensor = tensor.as_deref();
    let numbers = |decode: Decode| -> Result<(), String> {
        match (outputs, decode.head(&seen, tensor, size)) {
            (Some(outputs), Ok(head)) => numbers::check(decode, &head, outputs, size),
            (_, Err(misfit)) => Err(misfit.to_string()),
            (None, Ok(_)) => Ok(()),
        }
    };
    let head = decode.head(&seen, tensor, size).map_err(|mut misfit| {
        if let Misfit::Shape { fitting, .. } = &mut misfit {
            fitting.retain(|&d| numbers(d).is_ok());
        }
        misfit.to_string()
    })?;
    numbers(*decode).map_err(|reason| {
        let mut others = Decode::fitting(&seen, tensor, size);
        others.retain(|&d| d != *decode && numbers(d).is_ok());
        format!(
            "its numbers are not those of decode = \"{}\": {reason}; {}",
            decode.name(),
            would_fit(&others)
        )
    })?;
    let lite = |i: &usize| declared[*i].name.contains("TFLite");
    let background = match decode {
        Decode::Torchvision => true,
        Decode::Tensorflow => !head.outputs.iter().any(lite),
        _ => false,
    };
    if background && *person_class == 0 {
        *person_class = 1;
    }
    match head.classes {
        Some(n) if *person_class >= n => Err(format!(
            "--person-class {person_class} is not among the {n} classes that its output tells apart, numbered from 0"
        )),
        _ => Ok(()),
    }
}

/// Whether the answer has the form that the task promises; fills in an embedding's width.
fn check_output(
    output: &mut OutputSpec,
    outputs: &[(String, Tensor)],
    index: usize,
) -> Result<(), String> {
    let (name, tensor) = outputs
        .get(index)
        .ok_or_else(|| "the model gave fewer outputs than its file declares".to_string())?;
    let shape = &tensor.shape[..];
    let fits = |fits: bool, want: &str| {
        if fits {
            Ok(())
        } else {
            Err(format!(
                "output `{name}` has shape {shape:?}, --task and --decode want {want}"
            ))
        }
    };
    match output {
        OutputSpec::Embed { width, .. } => {
            fits(shape.len() >= 2 && shape[0] == 1, "(1, width)")?;
            *width = shape[1..].iter().product();
            fits(*width >= 2, "(1, width) with at least 2 numbers")
        }
        OutputSpec::Detect { .. } => Ok(()),
        OutputSpec::Pose { decode, .. } => match decode {
            Decode::Movenet => fits(matches!(shape, [1, 1, 17, 3]), "(1, 1, 17, 3)"),
            Decode::Simcc => fits(
                outputs.len() >= 2 && matches!(shape, [1, _, _]),
                "two tensors (1, keypoints, bins)",
            ),
            other => Err(format!(
                "--decode {} gives boxes: say --task detect, or --decode movenet|simcc",
                other.name()
            )),
        },
    }
}
