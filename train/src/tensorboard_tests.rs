//! Reads files back by a slow reader of its own: checksums by table lookup, fields by a general protocol-buffer walk.
#![allow(clippy::unwrap_used)]

use super::*;
use serde_json::json;

/// One event as read back.
#[derive(Debug, PartialEq)]
struct Read {
    time: f64,
    step: u64,
    version: Option<String>,
    started: bool,
    scalars: Vec<(String, f32)>,
}

/// Remainder by division of polynomials over a table, unlike the writer's.
fn slow_crc(data: &[u8]) -> u32 {
    let table: Vec<u32> = (0..256u32)
        .map(|n| {
            (0..8).fold(n, |c, _| {
                if c & 1 == 1 {
                    0x82f6_3b78 ^ (c >> 1)
                } else {
                    c >> 1
                }
            })
        })
        .collect();
    !data.iter().fold(u32::MAX, |crc, b| {
        table[((crc ^ u32::from(*b)) & 255) as usize] ^ (crc >> 8)
    })
}

fn unmasked(bytes: &[u8]) -> u32 {
    let masked = u32::from_le_bytes(bytes.try_into().unwrap()).wrapping_sub(0xa282_ead8);
    masked.rotate_left(15)
}

/// (field, wire type, number, bytes) of every field.
fn fields(mut data: &[u8]) -> Vec<(u64, u64, u64, Vec<u8>)> {
    fn number(data: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = data[0];
            *data = &data[1..];
            value |= u64::from(byte & 127) << shift;
            shift += 7;
            if byte < 128 {
                return value;
            }
        }
    }
    let mut out = Vec::new();
    while !data.is_empty() {
        let key = number(&mut data);
        let (value, length) = match key & 7 {
            0 => (number(&mut data), 0),
            1 => (0, 8),
            2 => (0, number(&mut data) as usize),
            5 => (0, 4),
            other => panic!("wire type {other}"),
        };
        out.push((key >> 3, key & 7, value, data[..length].to_vec()));
        data = &data[length..];
    }
    out
}

fn read(path: &Path) -> Vec<Read> {
    let bytes = std::fs::read(path).unwrap();
    let mut data = &bytes[..];
    let mut events = Vec::new();
    while !data.is_empty() {
        let length = u64::from_le_bytes(data[..8].try_into().unwrap()) as usize;
        assert_eq!(unmasked(&data[8..12]), slow_crc(&data[..8]));
        let body = &data[12..12 + length];
        assert_eq!(unmasked(&data[12 + length..16 + length]), slow_crc(body));
        data = &data[16 + length..];
        let mut event = Read {
            time: 0.0,
            step: 0,
            version: None,
            started: false,
            scalars: Vec::new(),
        };
        for (field, wire, value, bytes) in fields(body) {
            match (field, wire) {
                (1, 1) => event.time = f64::from_le_bytes(bytes.try_into().unwrap()),
                (2, 0) => event.step = value,
                (3, 2) => event.version = Some(String::from_utf8(bytes).unwrap()),
                (7, 2) => event.started = fields(&bytes) == [(1, 0, 1, Vec::new())],
                (5, 2) => {
                    for (field, wire, _, value) in fields(&bytes) {
                        assert_eq!((field, wire), (1, 2));
                        let value = fields(&value);
                        let tag = String::from_utf8(value[0].3.clone()).unwrap();
                        let number = value[1].3.clone().try_into().unwrap();
                        assert_eq!((value[0].0, value[1].0, value[1].1), (1, 2, 5));
                        event.scalars.push((tag, f32::from_le_bytes(number)));
                    }
                }
                other => panic!("unexpected field {other:?}"),
            }
        }
        events.push(event);
    }
    events
}

#[test]
fn crc_of_the_standard() {
    // RFC 3720, B.4, and the usual check word.
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}

#[test]
fn rows_are_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("tensorboard");
    append(&folder, &json!({"epoch": 0, "map": 0.25})).unwrap();
    let row = json!({"epoch": 300, "lr": 0.5, "loss": {"hard": 1.5}, "note": "x", "clusters": 7});
    append(&folder, &row).unwrap();
    append(&folder, &json!({"note": "no epoch"})).unwrap();
    let events = read(&newest(&folder).unwrap());
    assert_eq!(events.len(), 3);
    assert_eq!(events[0].version.as_deref(), Some("brain.Event:2"));
    assert_eq!(events[1].scalars, [("evaluation/map".into(), 0.25)]);
    assert_eq!((events[2].step, events[2].scalars.len()), (300, 3));
    for (tag, value) in [
        ("training/lr", 0.5),
        ("loss/hard", 1.5),
        ("training/clusters", 7.0),
    ] {
        assert!(events[2].scalars.contains(&(tag.into(), value)), "{tag}");
    }
    assert!(events.iter().all(|e| e.time > 1.7e9));

    // A resumed run begins a file of its own that says where.
    let first = newest(&folder).unwrap();
    resume(&folder, 1).unwrap();
    append(&folder, &row).unwrap();
    let second = newest(&folder).unwrap();
    assert!(second > first, "{first:?} {second:?}");
    let events = read(&second);
    assert!(events[1].started && events[1].step == 1 && events.len() == 3);
}

#[test]
fn a_run_without_events_gets_them_once() {
    let dir = tempfile::tempdir().unwrap();
    let rows: Vec<Value> = (1..=3)
        .map(|e| json!({"epoch": e, "seconds": 10.0}))
        .collect();
    let end = UNIX_EPOCH + std::time::Duration::from_secs(1_800_000_000);
    write_missing(dir.path(), &rows, end).unwrap();
    let path = newest(dir.path()).unwrap();
    let times: Vec<f64> = read(&path)[1..].iter().map(|e| e.time).collect();
    assert_eq!(times, [1_799_999_980.0, 1_799_999_990.0, 1_800_000_000.0]);
    let before = std::fs::read(&path).unwrap();
    write_missing(dir.path(), &rows, end).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), before);
    resume(&dir.path().join("none"), 3).unwrap();
    assert!(!dir.path().join("none").exists());
}
