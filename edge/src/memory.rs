//! Memory that nobody uses goes back to the system.
//!
//! Cameras that come and go bring threads that come and go, and glibc gives each of them one of up to eight heaps a core, none of
//! which shrinks: after a thousand cameras a run had 35 MiB in use and held 180. A few heaps, trimmed now and then, hold little
//! more than what is in use.

/// Heaps for all threads: enough that they seldom wait for one another.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const HEAPS: i32 = 4;

/// Has threads share a few heaps; to be called before they are started.
pub fn share_heaps() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: takes two numbers, and may be called at any time.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, HEAPS);
    }
}

/// Gives free pages back. Takes some milliseconds and stops nobody for longer than his heap takes.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: takes a number, and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Bytes that are in use, of those that the allocator has from the system: what grows without end is a leak, what only the
/// system sees grow is memory in pieces. `None` where nobody keeps count.
pub fn in_use() -> Option<u64> {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: takes nothing, and may be called at any time.
        let info = unsafe { libc::mallinfo2() };
        Some((info.uordblks + info.hblkhd) as u64)
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    None
}
