//! Where the time of networks goes, operator by operator: what `reid-train profile` prints.
//!
//! Off, it costs one look at a flag per operator. Times are wall times of whole operators, so a row says how fast the
//! operator ran on all threads together.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Instant;

/// Direction of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// From input to output.
    Forward,
    /// From the output's gradient to those of input and parameters.
    Backward,
}

/// What an operator has to do at least.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Work {
    /// Operator and the sizes that matter.
    pub operator: String,
    /// Floating-point operations of the matrix products, a multiplication and an addition counting two.
    pub flops: f64,
    /// Bytes that must be read or written, each tensor once.
    pub bytes: f64,
}

/// One line of a profile: all calls of one operator with the same sizes in one direction.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Operator and the sizes that matter.
    pub operator: String,
    /// Direction.
    pub direction: Direction,
    /// Calls.
    pub calls: u64,
    /// Wall time of all of them.
    pub seconds: f64,
    /// Floating-point operations of the matrix products of all of them.
    pub flops: f64,
    /// Bytes that had to be moved by all of them.
    pub bytes: f64,
}

type Rows = BTreeMap<(String, Direction), Row>;

thread_local! {
    /// What the networks of this thread did; `None` while nobody measures.
    static ROWS: RefCell<Option<Rows>> = const { RefCell::new(None) };
}

/// Forgets what was measured and starts measuring networks that this thread runs.
pub fn start() {
    ROWS.set(Some(Rows::new()));
}

/// Stops measuring and hands over what was measured, the most expensive first.
pub fn finish() -> Vec<Row> {
    let mut all: Vec<Row> = ROWS.take().unwrap_or_default().into_values().collect();
    all.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    all
}

/// Whether measuring is on.
pub(super) fn on() -> bool {
    ROWS.with_borrow(Option::is_some)
}

/// Adds a call that began at `since`.
pub(super) fn add(work: Work, direction: Direction, since: Instant) {
    let seconds = since.elapsed().as_secs_f64();
    ROWS.with_borrow_mut(|rows| {
        let Some(rows) = rows else {
            return;
        };
        let key = (work.operator, direction);
        let row = rows.entry(key.clone()).or_insert_with(|| Row {
            operator: key.0,
            direction,
            calls: 0,
            seconds: 0.0,
            flops: 0.0,
            bytes: 0.0,
        });
        row.calls += 1;
        row.seconds += seconds;
        row.flops += work.flops;
        row.bytes += work.bytes;
    });
}

/// Runs `f`, counted as a call of `operator` if measuring is on.
pub fn timed<T>(operator: &str, direction: Direction, f: impl FnOnce() -> T) -> T {
    if !on() {
        return f();
    }
    let since = Instant::now();
    let result = f();
    let work = Work {
        operator: operator.to_owned(),
        ..Work::default()
    };
    add(work, direction, since);
    result
}

/// A table for people; `steps` is the number of training steps measured.
pub fn table(rows: &[Row], steps: usize) -> String {
    use std::fmt::Write;
    let total: f64 = rows.iter().map(|r| r.seconds).sum();
    let steps = steps.max(1) as f64;
    let mut text = format!(
        "{:<34} {:<8} {:>6} {:>9} {:>6} {:>8} {:>7}\n",
        "operator", "pass", "calls", "ms/step", "%", "GFLOP/s", "GB/s"
    );
    for r in rows {
        let pass = match r.direction {
            Direction::Forward => "forward",
            Direction::Backward => "backward",
        };
        let rate = |amount: f64| match amount {
            0.0 => "-".to_owned(),
            _ => format!("{:.1}", amount / r.seconds.max(1e-12) / 1e9),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:<34} {pass:<8} {:>6.0} {:>9.3} {:>6.1} {:>8} {:>7}",
            r.operator,
            r.calls as f64 / steps,
            1e3 * r.seconds / steps,
            100.0 * r.seconds / total.max(1e-12),
            rate(r.flops),
            rate(r.bytes)
        );
    }
    let _ = writeln!(text, "{:<34} {:>25.3}", "all", 1e3 * total / steps);
    text
}
