//! One body, three machine-code versions, chosen at run time.

/// Compiles a function's body for AVX-512, for AVX2 and for the baseline, and calls the best the processor has.
///
/// Rust never contracts `a * b + c` to a fused operation by itself, so that elementwise results are the same on all.
macro_rules! vectorised {
    ($(#[$meta:meta])* fn $name:ident($($arg:ident : $ty:ty),* $(,)?) $body:block) => {
        $(#[$meta])*
        pub(super) fn $name($($arg: $ty),*) {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body($($arg: $ty),*) $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
                fn v4($($arg: $ty),*) { body($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                fn v3($($arg: $ty),*) { body($($arg),*) }
                if $crate::simd::has_avx512() {
                    // SAFETY: the processor has these instructions.
                    return unsafe { v4($($arg),*) };
                }
                if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
                    // SAFETY: as above.
                    return unsafe { v3($($arg),*) };
                }
            }
            body($($arg),*)
        }
    };
}
pub(crate) use vectorised;

/// Whether the AVX-512 versions can run here.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx512() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("avx512f") && has!("avx512vl") && has!("avx512dq") && has!("avx512bw")
}

/// Channels handled together: one AVX-512 register.
pub(crate) const LANES: usize = 16;

/// Independent partial sums, so that the compiler can keep its registers busy.
const SUMS: usize = 16;

/// Squared Euclidean distance from the differences themselves: exact for equal rows, where `|a|^2 - 2 a.b + |b|^2` is
/// rounding.
pub(crate) fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; SUMS];
    let (a_lanes, a_rest) = a.as_chunks::<SUMS>();
    let (b_lanes, b_rest) = b.as_chunks::<SUMS>();
    for (x, y) in a_lanes.iter().zip(b_lanes) {
        for lane in 0..SUMS {
            sums[lane] += (x[lane] - y[lane]) * (x[lane] - y[lane]);
        }
    }
    let rest: f32 = a_rest
        .iter()
        .zip(b_rest)
        .map(|(x, y)| (x - y) * (x - y))
        .sum();
    sums.iter().sum::<f32>() + rest
}
