//! The library that this process has loaded, and what it says while it works.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;

use crate::runtime::{RuntimeConfig, RuntimeError, library};

/// There can be only one library in a process, and only one environment.
static LOADED: Mutex<Option<Arc<Loaded>>> = Mutex::new(None);

thread_local! {
    /// What ONNX Runtime has warned of on this thread since [`listening`] began.
    static HEARD: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// A loaded library.
pub(super) struct Loaded {
    pub library: PathBuf,
    pub environment: Environment,
    /// Its build: version, commit and compiler flags.
    pub build: &'static str,
}

impl Loaded {
    /// Name of the library's file.
    pub(super) fn name(&self) -> String {
        let name = self.library.file_name().unwrap_or(self.library.as_os_str());
        name.display().to_string()
    }
}

/// The library, loaded now if it was not yet: a missing one must be an error, and `ort` itself would panic.
pub(super) fn load(config: &RuntimeConfig) -> Result<Arc<Loaded>, RuntimeError> {
    let fail = |reason: String| RuntimeError::Library { reason };
    // Loading touches only this slot: a panic elsewhere leaves it whole.
    let mut slot = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(loaded) = slot.as_ref() {
        if let Some(wanted) = &config.library
            && library::find(Some(wanted))?.as_ref() != Some(&loaded.library)
        {
            return Err(fail(format!(
                "{} is asked for, but this process has loaded {} and can load only one",
                wanted.display(),
                loaded.library.display()
            )));
        }
        return Ok(Arc::clone(loaded));
    }
    let library = library::find(config.library.as_deref())?.ok_or_else(|| {
        fail(
            "no library was found in a `.deps` folder here or above, nor beside the program".into(),
        )
    })?;
    let environment = ort::init_from(&library)
        .map_err(|e| fail(e.to_string()))?
        .with_name("reid")
        .with_telemetry(false)
        .with_logger(Arc::new(hear))
        .build()
        .map_err(|e| fail(e.to_string()))?;
    // Warnings are the only way in which some providers say that they do nothing.
    environment.set_log_level(LogLevel::Warning);
    let loaded = Arc::new(Loaded {
        library,
        environment,
        build: ort::info(),
    });
    *slot = Some(Arc::clone(&loaded));
    Ok(loaded)
}

/// What the library logs. While somebody listens, it is that one's to report.
fn hear(level: LogLevel, _category: &str, _id: &str, place: &str, message: &str) {
    let serious = level >= LogLevel::Warning;
    let listened = HEARD.with_borrow_mut(|heard| match heard {
        Some(list) if serious => {
            list.push(message.to_string());
            true
        }
        _ => false,
    });
    match level {
        LogLevel::Error | LogLevel::Fatal if !listened => {
            tracing::error!(target: "onnxruntime", place, "{message}");
        }
        LogLevel::Warning if !listened => tracing::warn!(target: "onnxruntime", place, "{message}"),
        _ => tracing::debug!(target: "onnxruntime", place, "{message}"),
    }
}

/// Does `work` and returns what the library warned of meanwhile on this thread.
pub(super) fn listening<T>(work: impl FnOnce() -> T) -> (T, Vec<String>) {
    HEARD.set(Some(Vec::new()));
    let result = work();
    (result, HEARD.take().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_heard_by_the_thread_that_causes_them() {
        let (value, heard) = listening(|| {
            hear(LogLevel::Warning, "", "", "", "slow");
            hear(LogLevel::Info, "", "", "", "hello");
            hear(LogLevel::Error, "", "", "", "broken");
            let elsewhere = std::thread::spawn(|| hear(LogLevel::Error, "", "", "", "elsewhere"));
            assert!(elsewhere.join().is_ok());
            7
        });
        assert_eq!(value, 7);
        assert_eq!(heard, ["slow", "broken"]);
        hear(LogLevel::Warning, "", "", "", "nobody listens");
        assert!(listening(|| ()).1.is_empty());
    }
}
