//! Memory that is needed against memory that there is, before the work begins.
//!
//! Linux promises more than it has: an allocation that is too large does not fail, the program is killed when it uses it,
//! without a word. So whatever grows with the data is counted first.

use std::{fs, io};

/// More memory than there is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} need {} of memory, {} are available: {remedy}", gib(*.need), gib(*.available))]
pub struct Shortage {
    /// What for, in the plural.
    pub what: String,
    /// Bytes needed.
    pub need: u64,
    /// Bytes available.
    pub available: u64,
    /// What to change.
    pub remedy: &'static str,
}

/// Refuses what would not fit into the memory that is available now; where that cannot be known, everything is allowed.
///
/// # Errors
/// [`Shortage`], with the numbers.
pub fn require(what: &str, need: u64, remedy: &'static str) -> Result<(), Shortage> {
    // Reading the files takes longer than allocating a little.
    if need < 1 << 20 {
        return Ok(());
    }
    require_of(available(), what, need, remedy)
}

/// As [`require`], of a given number of bytes.
///
/// # Errors
/// [`Shortage`], with the numbers.
pub fn require_of(
    available: Option<u64>,
    what: &str,
    need: u64,
    remedy: &'static str,
) -> Result<(), Shortage> {
    match available {
        Some(available) if need > available => Err(Shortage {
            what: what.into(),
            need,
            available,
            remedy,
        }),
        _ => Ok(()),
    }
}

/// Bytes of `count` rows of `width` values of `size` bytes; too many to count are the largest number.
pub fn bytes(count: usize, width: usize, size: usize) -> u64 {
    (count as u64)
        .saturating_mul(width as u64)
        .saturating_mul(size as u64)
}

/// Exactly `count` values in a buffer of exactly that size: a growing one would need up to three times as much.
///
/// # Errors
/// The first error of `values`, or if there is no such buffer.
pub fn gather(values: impl Iterator<Item = io::Result<f32>>, count: usize) -> io::Result<Vec<f32>> {
    let mut all = Vec::new();
    all.try_reserve_exact(count).map_err(io::Error::other)?;
    for value in values {
        all.push(value?);
    }
    Ok(all)
}

/// Bytes that this process may still use: the least of what the machine has left, what its control group allows (containers,
/// services) and what its own limits do (`ulimit -v`). `None` where nothing is known.
pub fn available() -> Option<u64> {
    let machine = read("/proc/meminfo").and_then(|text| {
        let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
        kib(line)
    });
    [machine, of_groups(), of_limits()]
        .into_iter()
        .flatten()
        .min()
}

/// Left within the control groups, from the process's own up to the root: each may have a limit.
fn of_groups() -> Option<u64> {
    let own = read("/proc/self/cgroup")?;
    let mut least = None;
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (root, names) = if controllers.is_empty() {
            ("/sys/fs/cgroup", V2)
        } else if controllers.split(',').any(|c| c == "memory") {
            ("/sys/fs/cgroup/memory", V1)
        } else {
            continue;
        };
        let mut path = path.trim_end_matches('/');
        loop {
            let left = of_group(&names, |name| read(&format!("{root}{path}/{name}")));
            least = least.into_iter().chain(left).min();
            let Some(cut) = path.rfind('/') else { break };
            path = &path[..cut];
        }
    }
    least
}

/// Files of a control group: limit, usage and, of `memory.stat`, what the kernel gives back when asked.
struct Names {
    limit: &'static str,
    usage: &'static str,
    reclaimable: &'static str,
}

const V2: Names = Names {
    limit: "memory.max",
    usage: "memory.current",
    reclaimable: "inactive_file ",
};
const V1: Names = Names {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    reclaimable: "total_inactive_file ",
};

fn of_group(names: &Names, read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    // "max" is no number: no limit.
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let limit = number(names.limit)?;
    let used = number(names.usage)?;
    let reclaimable = read("memory.stat").and_then(|text| {
        let line = text.lines().find_map(|l| l.strip_prefix(names.reclaimable));
        line?.trim().parse::<u64>().ok()
    });
    Some(limit.saturating_sub(used.saturating_sub(reclaimable.unwrap_or(0))))
}

/// Left of the address space that `ulimit -v` allows.
fn of_limits() -> Option<u64> {
    let limits = read("/proc/self/limits")?;
    let line = limits
        .lines()
        .find_map(|l| l.strip_prefix("Max address space"));
    let limit: u64 = line?.split_whitespace().next()?.parse().ok()?;
    let status = read("/proc/self/status")?;
    let used = status.lines().find_map(|l| l.strip_prefix("VmSize:"));
    Some(limit.saturating_sub(kib(used?)?))
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// "  1234 kB" in bytes.
fn kib(text: &str) -> Option<u64> {
    let number = text.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?;
    Some(number.saturating_mul(1024))
}

fn gib(bytes: u64) -> String {
    let gib = bytes as f64 / (1u64 << 30) as f64;
    // Two numbers that differ must not look the same.
    if gib < 10.0 {
        format!("{gib:.2} GiB")
    } else {
        format!("{gib:.1} GiB")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_shortage_has_its_numbers_and_a_way_out() {
        let gib = 1u64 << 30;
        let ask = |available| require_of(available, "the tables", 3 * gib, "cluster fewer images");
        let message = ask(Some(2 * gib)).unwrap_err().to_string();
        assert_eq!(
            message,
            "the tables need 3.00 GiB of memory, 2.00 GiB are available: cluster fewer images"
        );
        assert!(ask(Some(3 * gib)).is_ok() && ask(None).is_ok());
        // No machine has what cannot be counted.
        assert!(require("x", bytes(usize::MAX, usize::MAX, 4), "").is_err());
        assert!(require("x", bytes(1000, 8, 4), "").is_ok());
    }

    #[test]
    fn groups_say_what_is_left() {
        let files = |limit: &'static str| {
            move |name: &str| match name {
                "memory.max" => Some(format!("{limit}\n")),
                "memory.current" => Some("700\n".into()),
                "memory.stat" => Some("anon 5\ninactive_file 200\nactive_file 90\n".into()),
                _ => None,
            }
        };
        assert_eq!(of_group(&V2, files("1000")), Some(500));
        assert_eq!(of_group(&V2, files("300")), Some(0), "already over it");
        assert_eq!(of_group(&V2, files("max")), None);
        assert_eq!(of_group(&V1, files("1000")), None, "another version");
        assert_eq!(kib("    2048 kB"), Some(2048 * 1024));
    }

    #[test]
    fn this_machine_has_some() {
        assert!(available().is_some_and(|b| b > 1 << 20));
    }
}
