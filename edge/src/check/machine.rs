//! Files that will be written, the room for them, and the clock. A check leaves nothing behind.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Finding, Level};
use crate::config::EdgeConfig;

/// Free space below this is worth a warning, bytes.
const LITTLE_ROOM: u64 = 500_000_000;
/// 2024-01-01 in Unix time, seconds: a clock before it has never been set.
const YEAR_2024: u64 = 1_704_067_200;

/// Events, cache, disk, clock.
pub(super) fn look(config: &EdgeConfig) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(file) = &config.events.file {
        let path = config.resolve(file);
        let outcome = match can_be_written(&path) {
            Ok(()) => Ok(format!("{}: can be written", path.display())),
            Err(e) => Err(format!(
                "events.file = {}: {e}; give it a folder this user may write to",
                path.display()
            )),
        };
        findings.push(Finding::of("events", outcome));
    }
    if let Some(cache) = &config.runtime.cache {
        let outcome = match folder_can_be_made(cache) {
            Ok(()) => Ok(format!("{}: can be written", cache.display())),
            Err(e) => Err(format!(
                "runtime.cache = {}: {e}; name a folder this user may write to",
                cache.display()
            )),
        };
        findings.push(Finding::of("cache", outcome));
    }
    if config.gallery.path != Path::new(":memory:") {
        findings.push(disk(&config.resolve(&config.gallery.path)));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    findings.push(clock(now.map_or(0, |t| t.as_secs())));
    findings
}

/// Whether a file may be written, or made, where `path` says.
pub(super) fn can_be_written(path: &Path) -> Result<(), String> {
    if path.is_dir() {
        return Err("it is a folder".into());
    }
    if path.exists() {
        // Opening it changes nothing.
        let opened = OpenOptions::new().append(true).open(path);
        return opened.map(drop).map_err(|e| e.to_string());
    }
    folder_can_be_written(path)
}

/// Whether files may be made beside `path`.
pub(super) fn folder_can_be_written(path: &Path) -> Result<(), String> {
    let mut name = OsString::from(path.as_os_str());
    name.push(format!(".check-{}", std::process::id()));
    try_file(Path::new(&name))
}

/// Whether the folder `path` may be written to, or made.
fn folder_can_be_made(path: &Path) -> Result<(), String> {
    if path.exists() && !path.is_dir() {
        return Err("it is a file".into());
    }
    let folder = existing(path);
    try_file(&folder.join(format!(".check-{}", std::process::id())))
}

/// Makes a file that wasn't there, and removes it.
fn try_file(path: &Path) -> Result<(), String> {
    let made = OpenOptions::new().write(true).create_new(true).open(path);
    made.map_err(|e| e.to_string())?;
    fs::remove_file(path).map_err(|e| e.to_string())
}

/// The nearest folder at or above `path` that exists.
fn existing(path: &Path) -> PathBuf {
    path.ancestors()
        .find(|p| p.is_dir())
        .map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

fn disk(path: &Path) -> Finding {
    let folder = existing(path);
    match rustix::fs::statvfs(&folder) {
        Err(e) => Finding::new(
            "disk",
            Level::Warn,
            format!("{}: its free space is not known: {e}", folder.display()),
        ),
        Ok(space) => {
            let free = space.f_bavail.saturating_mul(space.f_frsize);
            let text = format!("{:.1} GB free for {}", free as f64 / 1e9, path.display());
            if free < LITTLE_ROOM {
                let text = format!("{text}, wanted {:.1}: make room", LITTLE_ROOM as f64 / 1e9);
                Finding::new("disk", Level::Warn, text)
            } else {
                Finding::new("disk", Level::Ok, text)
            }
        }
    }
}

/// `now` is Unix time, seconds.
fn clock(now: u64) -> Finding {
    if now < YEAR_2024 {
        Finding::new(
            "clock",
            Level::Fail,
            format!(
                "this machine's clock stands before 2024 ({now} s of Unix time): set it (timedatectl set-ntp true), or sightings are dated wrongly"
            ),
        )
    } else {
        Finding::new("clock", Level::Ok, date(now))
    }
}

/// Date and time of Unix time `now`, seconds, in the Gregorian calendar: years are counted from March, so that the leap day
/// is their last, and 400 of them have 146,097 days.
fn date(now: u64) -> String {
    let (days, second) = (now / 86_400 + 719_468, now % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    format!(
        "{}-{month:02}-{day:02} {:02}:{:02} UTC",
        era * 400 + year + next,
        second / 3600,
        second / 60 % 60
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_looked_at_stays_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        can_be_written(&file).unwrap();
        assert!(!file.exists());
        fs::write(&file, "x").unwrap();
        can_be_written(&file).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "x");
        folder_can_be_made(&dir.path().join("b/c")).unwrap();
        assert!(can_be_written(dir.path()).is_err());
        assert!(folder_can_be_made(&file).is_err());
        assert!(can_be_written(&dir.path().join("b/c")).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(folder_can_be_made(Path::new("/proc/nowhere")).is_err());
    }

    #[test]
    fn a_clock_that_was_never_set_fails() {
        assert_eq!(clock(0).level, Level::Fail);
        assert_eq!(clock(YEAR_2024).level, Level::Ok);
        // Of `date -u -d @N`.
        for (now, shown) in [
            (0, "1970-01-01 00:00 UTC"),
            (YEAR_2024, "2024-01-01 00:00 UTC"),
            (1_709_209_739, "2024-02-29 12:28 UTC"),
            (1_740_787_199, "2025-02-28 23:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ] {
            assert_eq!(date(now), shown);
        }
        assert_ne!(disk(Path::new("/")).level, Level::Fail);
    }
}
