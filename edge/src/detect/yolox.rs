//! YOLOX (Ge et al. 2021) as its authors export it: a raw head of (1, anchors, 5 + classes).
//!
//! Anchors run over strides 8, 16, 32, rows, columns. A row is centre x, centre y (in cells from the cell), log width,
//! log height (in strides), objectness and class scores (both already 0..1). Input conventions come from the card.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use reid_models::card::{Decode, ModelCard, OutputSpec};
use reid_models::preprocess::{Letterbox, Preprocess};
use reid_models::runtime::{self, Session};

use super::{DetectError, Detector, nms};
use crate::config::DetectorConfig;
use crate::types::{Detection, Frame, Ltrb};

const STRIDES: [usize; 3] = [8, 16, 32];

/// One session of a YOLOX model.
pub struct Yolox {
    model: PathBuf,
    session: Box<dyn Session>,
    preprocess: Preprocess,
    input: Vec<f32>,
    tensor: Option<String>,
    person_class: usize,
    score: f32,
    nms: f32,
    min_height: f32,
}

impl Yolox {
    /// Opens a file whose card says `task = detect`, `decode = yolox`.
    ///
    /// # Errors
    /// If there is no card, it describes something else, or the engine refuses the file.
    pub fn open(model: &Path, config: &DetectorConfig) -> Result<Self, DetectError> {
        let card = runtime::read_card(model)?;
        let (tensor, person_class) = expected_output(model, &card)?;
        let preprocess = Preprocess::new(&card.input);
        Ok(Yolox {
            model: model.to_path_buf(),
            session: runtime::open(model, &card, &config.runtime())?,
            input: vec![0.0; preprocess.tensor_len()],
            preprocess,
            tensor,
            person_class,
            score: config.score,
            nms: config.nms,
            min_height: config.min_height,
        })
    }

    fn detect(&mut self, frame: &Frame) -> Result<Vec<Detection>, DetectError> {
        let picture = &*frame.picture;
        let letterbox = self.preprocess.run_into(picture, None, &mut self.input)?;
        let outputs = self.session.run(1, &self.input)?;
        let wanted = self.tensor.as_deref();
        let output = outputs
            .iter()
            .find(|(name, _)| wanted.is_none_or(|w| w == name))
            .map(|(_, tensor)| tensor)
            .ok_or_else(|| DetectError::Unsuitable {
                model: self.model.clone(),
                reason: format!(
                    "it has no output named {:?} as its card says; it has {}",
                    wanted.unwrap_or(""),
                    outputs
                        .iter()
                        .map(|(n, _)| n.as_str())
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            })?;
        let spec = self.preprocess.spec();
        let found = decode(
            &output.shape,
            &output.data,
            (spec.width, spec.height),
            self.person_class,
            self.score,
            &letterbox,
        )
        .map_err(|reason| DetectError::Unsuitable {
            model: self.model.clone(),
            reason,
        })?;
        let (w, h) = picture.size();
        let inside = nms::suppress(found, self.nms)
            .into_iter()
            .map(|d| Detection {
                ltrb: d.ltrb.clamped(w, h),
                score: d.score,
            })
            .filter(|d| d.ltrb.height() >= self.min_height && d.ltrb.width() >= 2.0)
            .collect();
        Ok(inside)
    }
}

fn expected_output(model: &Path, card: &ModelCard) -> Result<(Option<String>, usize), DetectError> {
    let unsuitable = |reason: String| DetectError::Unsuitable {
        model: model.to_path_buf(),
        reason,
    };
    match &card.output {
        OutputSpec::Detect {
            tensor,
            decode: Decode::Yolox,
            person_class,
        } => Ok((tensor.clone(), *person_class)),
        OutputSpec::Detect { decode, .. } => Err(unsuitable(format!(
            "its card says decode = {decode:?}; this detector reads a raw YOLOX head (decode = \"yolox\")"
        ))),
        OutputSpec::Embed { .. } => Err(unsuitable(
            "its card says it embeds crops: name it under [embedder], and a detector here".into(),
        )),
        OutputSpec::Pose { .. } => Err(unsuitable(
            "its card says it estimates poses: name a detector".into(),
        )),
    }
}

/// Boxes in frame pixels from a raw head; `(width, height)` is the input's size. The error says what does not fit.
fn decode(
    shape: &[usize],
    data: &[f32],
    (width, height): (usize, usize),
    person_class: usize,
    least: f32,
    letterbox: &Letterbox,
) -> Result<Vec<Detection>, String> {
    let cells = |s: usize| (width / s) * (height / s);
    let anchors: usize = STRIDES.iter().map(|&s| cells(s)).sum();
    let (rows, columns) = match shape {
        [1, rows, columns] => (*rows, *columns),
        _ => (0, 0),
    };
    if rows != anchors || columns < 6 + person_class || data.len() != rows * columns {
        return Err(format!(
            "its output is {shape:?}; a YOLOX head for {height} x {width} has (1, {anchors}, 5 + classes) with class {person_class} among them: check the card's input size and decode"
        ));
    }
    let mut found = Vec::new();
    let mut row = 0;
    for stride in STRIDES {
        let s = stride as f32;
        for y in 0..height / stride {
            for x in 0..width / stride {
                let r = &data[row * columns..(row + 1) * columns];
                row += 1;
                let score = r[4] * r[5 + person_class];
                if score.is_nan() {
                    return Err("it gave NaN: the file is damaged, or its precision too low".into());
                }
                if score < least {
                    continue;
                }
                let (cx, cy) = ((r[0] + x as f32) * s, (r[1] + y as f32) * s);
                let (w, h) = (r[2].exp() * s / 2.0, r[3].exp() * s / 2.0);
                let (left, top) = letterbox.frame_from_input(cx - w, cy - h);
                let (right, bottom) = letterbox.frame_from_input(cx + w, cy + h);
                if [left, top, right, bottom].iter().all(|v| v.is_finite()) {
                    found.push(Detection {
                        ltrb: Ltrb {
                            left,
                            top,
                            right,
                            bottom,
                        },
                        score: score.min(1.0),
                    });
                }
            }
        }
    }
    Ok(found)
}

/// A camera's view of a session that several cameras take turns with.
pub struct Shared(Arc<Mutex<Yolox>>);

impl Shared {
    /// Shares `session`.
    pub fn new(session: Arc<Mutex<Yolox>>) -> Self {
        Shared(session)
    }
}

impl Detector for Shared {
    fn detect(&mut self, frame: &Frame) -> Result<Vec<Detection>, DetectError> {
        // A detector keeps nothing between frames, so one that panicked elsewhere is as good as new.
        let mut session = self.0.lock().unwrap_or_else(|e| e.into_inner());
        session.detect(frame)
    }

    fn description(&self) -> String {
        let session = self.0.lock().unwrap_or_else(|e| e.into_inner());
        session.session.description()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LETTERBOX: Letterbox = Letterbox {
        scale: [0.5, 0.5],
        offset: [0.0, 0.0],
    };

    #[test]
    fn a_cell_of_each_stride_lands_where_it_should() {
        // 64 x 64: 64 + 16 + 4 anchors of 7 numbers (2 classes), all silent but one of stride 16 (row 1, column 2).
        let (rows, columns) = (84, 7);
        let mut data = vec![0.0f32; rows * columns];
        let anchor = 64 + 4 + 2;
        data[anchor * columns..][..7].copy_from_slice(&[0.5, 0.25, 0.0, 2f32.ln(), 0.8, 0.9, 0.5]);
        let found = decode(&[1, rows, columns], &data, (64, 64), 1, 0.3, &LETTERBOX).unwrap();
        assert_eq!(found.len(), 1);
        let b = found[0].ltrb;
        // Centre (2.5, 1.25) * 16 = (40, 20), size 16 x 32; the frame is twice as large.
        let want = [64.0, 8.0, 96.0, 72.0];
        for (got, want) in [b.left, b.top, b.right, b.bottom].into_iter().zip(want) {
            assert!((got - want).abs() < 1e-3, "{b:?}");
        }
        assert!(
            (found[0].score - 0.4).abs() < 1e-6,
            "objectness times class 1"
        );
    }

    #[test]
    fn another_head_or_nan_is_refused() {
        let err = decode(&[1, 84, 100], &[0.0; 8400], (32, 32), 0, 0.3, &LETTERBOX).unwrap_err();
        assert!(
            err.contains("[1, 84, 100]") && err.contains("(1, 21,"),
            "{err}"
        );
        let mut data = vec![0.0f32; 84 * 6];
        data[4] = f32::NAN;
        assert!(
            decode(&[1, 84, 6], &data, (64, 64), 0, 0.3, &LETTERBOX)
                .unwrap_err()
                .contains("NaN")
        );
    }
}
