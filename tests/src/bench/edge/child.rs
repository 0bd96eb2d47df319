//! Another program run to its end: what it said, how long it took, what processor time and memory it used.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// How often the memory is looked at. The kernel keeps the highest value, so only what is taken within the last such
/// moment of a life can be missed.
const LOOK: Duration = Duration::from_millis(20);

/// A program that has ended well.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Standard output.
    pub stdout: String,
    /// From start to end, seconds.
    pub wall_secs: f64,
    /// Processor time, user and system, seconds; to 1/100 s.
    pub cpu_secs: f64,
    /// Highest resident set (VmHWM).
    pub peak_bytes: u64,
}

impl Finished {
    /// The last line of standard output, with `wall_secs`, `cpu_secs` and `process_peak_bytes` added.
    ///
    /// # Errors
    /// If it is no JSON object.
    pub fn json(&self) -> Result<Value> {
        let line = self.stdout.lines().last().unwrap_or_default();
        let mut value: Value =
            serde_json::from_str(line).with_context(|| format!("not JSON: {line:?}"))?;
        let fields = value
            .as_object_mut()
            .with_context(|| format!("no JSON object: {line:?}"))?;
        fields.insert("wall_secs".into(), self.wall_secs.into());
        fields.insert("cpu_secs".into(), self.cpu_secs.into());
        fields.insert("process_peak_bytes".into(), self.peak_bytes.into());
        Ok(value)
    }
}

/// Words of a command line.
pub fn words(items: &[&dyn AsRef<OsStr>]) -> Vec<OsString> {
    items.iter().map(|i| i.as_ref().to_owned()).collect()
}

/// Runs a program to its end.
///
/// # Errors
/// If it cannot be started, fails (with the end of what it said), or takes longer than `limit` (it is then killed).
pub fn run(command: &mut Command, limit: Duration) -> Result<Finished> {
    let name = format!("{}", command.get_program().display());
    let before = children_cpu_seconds()?;
    let began = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let mut peak_bytes = 0;
    let status = loop {
        peak_bytes = peak_bytes.max(high_water(child.id()));
        if let Some(status) = child.try_wait().with_context(|| name.clone())? {
            break status;
        }
        if began.elapsed() > limit {
            end(&mut child);
            bail!("{name} did not end within {} s", limit.as_secs());
        }
        std::thread::sleep(LOOK);
    };
    let wall_secs = began.elapsed().as_secs_f64();
    let (stdout, stderr) = (joined(stdout), joined(stderr));
    if !status.success() {
        let tail: Vec<&str> = stderr.lines().rev().take(12).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        bail!("{name} ended with {status}: {}", tail.join("\n"));
    }
    Ok(Finished {
        stdout,
        wall_secs,
        cpu_secs: children_cpu_seconds()? - before,
        peak_bytes,
    })
}

/// Kills a child and waits for it.
pub fn end(child: &mut Child) {
    // Both fail only for a child that has ended already.
    let _ = child.kill();
    let _ = child.wait();
}

fn drain<R: Read + Send + 'static>(pipe: Option<R>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What came before an error is kept.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn joined(thread: JoinHandle<String>) -> String {
    thread.join().unwrap_or_default()
}

/// Highest resident set of a process so far; 0 once it is gone.
pub fn high_water(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .map_or(0, |kib| kib << 10)
}

/// Processor time of all finished child processes so far, user and system together.
fn children_cpu_seconds() -> Result<f64> {
    ticks(&[13, 14])
}

/// Processor time of this process so far, user and system together.
///
/// # Errors
/// Without /proc.
pub fn own_cpu_seconds() -> Result<f64> {
    ticks(&[11, 12])
}

/// Sum of fields of /proc/self/stat, counted after the name in brackets, in ticks of 1/100 s.
fn ticks(fields: &[usize]) -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat").context("/proc/self/stat")?;
    let values: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let sum: Option<f64> = fields
        .iter()
        .map(|&i| values.get(i)?.parse::<f64>().ok())
        .sum();
    Ok(sum.context("/proc/self/stat has no times")? / 100.0)
}

/// Processor time of this thread so far, seconds.
///
/// # Errors
/// Where the kernel keeps no schedule statistics.
pub fn thread_cpu_seconds() -> Result<f64> {
    let path = "/proc/thread-self/schedstat";
    let text = fs::read_to_string(path).context(path)?;
    let nanoseconds = text.split_whitespace().next().and_then(|n| n.parse().ok());
    nanoseconds
        .map(|n: f64| n / 1e9)
        .with_context(|| format!("{path}: {text:?}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn time_memory_and_failures_of_a_program_are_seen() {
        let minute = Duration::from_secs(60);
        let mut python = Command::new("python3");
        python.args([
            "-c",
            "import time\nx = bytearray(80 << 20)\nend = time.process_time() + 0.4\nwhile time.process_time() < end: pass\nprint('said')\nprint('{\"a\": 1}')",
        ]);
        let done = run(&mut python, minute).unwrap();
        let value = done.json().unwrap();
        assert_eq!(value["a"], 1);
        assert!(done.cpu_secs >= 0.35 && done.wall_secs >= 0.4, "{done:?}");
        assert!(
            done.peak_bytes > 80 << 20 && done.peak_bytes < 400 << 20,
            "{}",
            done.peak_bytes
        );
        let mut failing = Command::new("python3");
        failing.args(["-c", "import sys; sys.exit('the reason')"]);
        let error = run(&mut failing, minute).unwrap_err().to_string();
        assert!(error.contains("the reason"), "{error}");
        let mut endless = Command::new("python3");
        endless.args(["-c", "import time; time.sleep(100)"]);
        let error = run(&mut endless, Duration::from_millis(300))
            .unwrap_err()
            .to_string();
        assert!(error.contains("did not end"), "{error}");
    }
}
