//! Metrics as TensorBoard reads them: `events.out.tfevents.*` files.
//!
//! A file is a sequence of records (TensorFlow's TFRecord): length as u64, its masked CRC-32C, the bytes, their masked CRC-32C,
//! all little-endian. The bytes are a protocol buffer `Event` (tensorflow/core/util/event.proto), of which four fields are
//! needed: wall_time (1), step (2), and one of file_version (3), summary (5) or session_log (7). They are written by hand: that
//! is less than a schema would be.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use reid_models::files::{self, FileError};
use serde_json::Value;

use crate::eval::plots::MetricsRow;

/// Beginning of the files' names; TensorBoard looks for it.
pub const PREFIX: &str = "events.out.tfevents.";

/// Appends a row of `metrics.jsonl` to the newest file of `folder`, which is made if there is none. Rows without a number `epoch`
/// say nothing and are left out.
///
/// # Errors
/// If the folder or file can't be written.
pub fn append(folder: &Path, row: &Value) -> Result<(), FileError> {
    let Some(row) = MetricsRow::from_value(row) else {
        return Ok(());
    };
    let path = match newest(folder) {
        Some(path) => path,
        None => begin(folder, None)?,
    };
    write(&path, &record(&scalars(&row, now())))
}

/// Begins a new file that makes TensorBoard forget everything from `epoch` on: a resumed run does those epochs again.
///
/// # Errors
/// If the folder or file can't be written.
pub fn resume(folder: &Path, epoch: usize) -> Result<(), FileError> {
    match newest(folder) {
        Some(_) => begin(folder, Some(epoch)).map(|_| ()),
        None => Ok(()),
    }
}

/// Writes a file for rows that were logged without one; does nothing if there is one. Rows get the times at which they were
/// logged, as far as their `seconds` tell; the last at `end`.
///
/// # Errors
/// If the folder or file can't be written.
pub fn write_missing(folder: &Path, rows: &[Value], end: SystemTime) -> Result<(), FileError> {
    if newest(folder).is_some() {
        return Ok(());
    }
    let rows: Vec<MetricsRow> = rows.iter().filter_map(MetricsRow::from_value).collect();
    let seconds = |row: &MetricsRow| row.values.get("seconds").copied().unwrap_or(0.0);
    let mut time = end
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |t| t.as_secs_f64())
        - rows.iter().map(seconds).sum::<f64>();
    let path = begin(folder, None)?;
    let mut bytes = Vec::new();
    for row in &rows {
        time += seconds(row);
        bytes.extend(record(&scalars(row, time)));
    }
    write(&path, &bytes)
}

/// Files by name: times come first, so names are in the order of time.
fn newest(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?;
    let names = entries.filter_map(|e| Some(e.ok()?.path()));
    names
        .filter(|p| {
            p.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with(PREFIX))
        })
        .max()
}

fn begin(folder: &Path, resumed_at: Option<usize>) -> Result<PathBuf, FileError> {
    files::create_dir(folder)?;
    let seconds = now() as u64;
    // Two files of one second still come in order.
    let path = (0..1000)
        .map(|n| folder.join(format!("{PREFIX}{seconds:010}.{n:03}.reid")))
        .find(|p| !p.exists())
        .unwrap_or_else(|| folder.join(format!("{PREFIX}{seconds:010}.999.reid")));
    let mut bytes = record(&event(now(), 0, |out| {
        text(out, 3, "brain.Event:2");
    }));
    if let Some(epoch) = resumed_at {
        // SessionLog { status: START }.
        bytes.extend(record(&event(now(), epoch as u64, |out| {
            message(out, 7, |log| {
                key(log, 1, 0);
                varint(log, 1);
            });
        })));
    }
    write(&path, &bytes)?;
    Ok(path)
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |t| t.as_secs_f64())
}

/// One write call: a crash leaves whole records, or half of the last one, which readers leave out.
fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let fail = |source| FileError {
        action: "cannot write",
        path: path.to_path_buf(),
        source,
    };
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(fail)?;
    file.write_all(bytes).map_err(fail)
}

/// Name of a number in TensorBoard, which groups by what is before the slash.
fn tag(name: &str) -> String {
    match name.split_once('.') {
        Some((group, rest)) => format!("{group}/{}", rest.replace('.', "_")),
        None if matches!(name, "rank1" | "rank5" | "rank10" | "map" | "minp") => {
            format!("evaluation/{name}")
        }
        None => format!("training/{name}"),
    }
}

fn scalars(row: &MetricsRow, time: f64) -> Vec<u8> {
    event(time, row.epoch.max(0.0) as u64, |out| {
        message(out, 5, |summary| {
            for (name, number) in &row.values {
                message(summary, 1, |value| {
                    text(value, 1, &tag(name));
                    key(value, 2, 5);
                    value.extend((*number as f32).to_le_bytes());
                });
            }
        });
    })
}

fn event(time: f64, step: u64, what: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    key(&mut out, 1, 1);
    out.extend(time.to_le_bytes());
    key(&mut out, 2, 0);
    varint(&mut out, step);
    what(&mut out);
    out
}

/// Field number and wire type: 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes.
fn key(out: &mut Vec<u8>, field: u64, wire: u64) {
    varint(out, field << 3 | wire);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn text(out: &mut Vec<u8>, field: u64, text: &str) {
    message(out, field, |out| out.extend(text.as_bytes()));
}

fn message(out: &mut Vec<u8>, field: u64, what: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    what(&mut inner);
    key(out, field, 2);
    varint(out, inner.len() as u64);
    out.extend(inner);
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(data.len() + 16);
    out.extend(length);
    out.extend(masked(crc32c(&length)).to_le_bytes());
    out.extend(data);
    out.extend(masked(crc32c(data)).to_le_bytes());
    out
}

/// Checksums of data that holds checksums are weak; TFRecord turns and shifts them.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli, RFC 3720 appendix B.4), bit by bit: a few hundred bytes an epoch.
fn crc32c(data: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[cfg(test)]
#[path = "tensorboard_tests.rs"]
mod tests;
