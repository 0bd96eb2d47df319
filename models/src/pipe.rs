//! Standard output that nobody reads any longer.

/// Lets the program end without a word when whoever read its output has gone (`reid-train methods | head -1`), as other
/// command-line tools do. Rust's own choice, an error at the next line, is a panic in `println!`.
///
/// For programs that answer and end. What runs for days must not die of a closed pipe.
pub fn end_with_reader() {
    // SAFETY: a plain system call, made before the program has other threads or handlers.
    #[cfg(unix)]
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}
