//! Telling the page, the event file and the reader what was decided.

use crate::events::{Event, EventSink};
use crate::gallery::Gallery;
use crate::pipeline::{Pipeline, StepOutput};
use crate::serve::{Hub, short};
use crate::types::{Assignment, Decision};

use super::Record;

/// Tells the page, the event file and the reader about decisions.
pub(super) fn publish(
    output: &StepOutput,
    pipeline: &Pipeline,
    names: &[String],
    record: &Record,
    hub: &Hub,
    mut sink: Option<&mut EventSink>,
    tell: bool,
    json: bool,
) -> anyhow::Result<()> {
    let t = &output.timings;
    for (stage, secs) in [
        ("detect", t.detect_secs),
        ("track", t.track_secs),
        ("crop", t.crop_secs),
        ("embed", t.embed_secs),
        ("associate", t.associate_secs),
    ] {
        hub.metrics().stage(stage, secs);
    }
    let gallery = pipeline.associator().gallery();
    hub.known(gallery.len());
    for assignment in &output.assignments {
        hub.assignment(assignment, pipeline.crop(assignment.tracklet));
        if let Some(sink) = &mut sink {
            let ltrb = record.last_box.get(&assignment.tracklet).copied();
            sink.write(&Event::identity(
                assignment,
                &names[assignment.camera],
                ltrb,
            ))?;
        }
        if tell && let Some(line) = sentence(assignment, names, gallery)? {
            if json {
                eprintln!("{line}");
            } else {
                println!("{line}");
            }
        }
    }
    if let Some(sink) = &mut sink {
        for (camera, tracklet) in &output.ended {
            sink.write(&Event::TrackletEnded {
                time: record.now,
                camera: names[*camera].clone(),
                tracklet: *tracklet,
                identity: pipeline.decision(*tracklet).identity(),
            })?;
        }
    }
    Ok(())
}

/// "14.2 s  cam2  matched identity 3f2a, first seen in cam1 9.8 s ago, score .81"
fn sentence(
    assignment: &Assignment,
    names: &[String],
    gallery: &Gallery,
) -> anyhow::Result<Option<String>> {
    let head = format!(
        "{:7.1} s  {:<12}",
        assignment.time, names[assignment.camera]
    );
    let was = match assignment.previous_ids.last() {
        Some(id) => format!(" (corrected, was {})", short(*id)),
        None => String::new(),
    };
    Ok(match assignment.decision {
        Decision::New { identity } => Some(format!("{head} new identity {}{was}", short(identity))),
        Decision::Matched {
            identity, score, ..
        } => {
            let name = short(identity);
            let number = format!("{score:.2}").replacen("0.", ".", 1);
            let others = gallery.sightings(identity)?;
            let first = others
                .iter()
                .find(|s| s.tracklet != assignment.tracklet || s.run != gallery.run());
            let seen = match first {
                Some(s) if s.start <= assignment.time => format!(
                    ", first seen in {} {:.1} s ago",
                    s.camera,
                    assignment.time - s.start
                ),
                Some(s) => format!(", seen in {}", s.camera),
                None => String::new(),
            };
            Some(format!(
                "{head} matched identity {name}{seen}, score {number}{was}"
            ))
        }
        Decision::Pending | Decision::Ambiguous { .. } => None,
    })
}
