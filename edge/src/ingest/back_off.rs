//! How long to wait before a lost camera is opened again.
//!
//! The wait doubles up to a limit and is drawn anew from its upper half each time: cameras that were lost together, by a
//! switch or a recorder that was restarted, do not come back together.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// First wait, before it is shortened at random.
const FIRST: Duration = Duration::from_millis(500);
/// First wait after a wrong password, before it is shortened at random: cameras lock accounts that are tried too often.
const FIRST_REFUSED: Duration = Duration::from_secs(10);

/// Waits of one camera.
#[derive(Debug)]
pub(super) struct BackOff {
    state: u64,
    attempt: u32,
    longest: Duration,
}

impl BackOff {
    /// Waits of at most `longest`; another sequence for every camera and in every process.
    pub(super) fn new(camera: &str, longest: Duration) -> Self {
        BackOff::with_seed(RandomState::new().hash_one(camera), longest)
    }

    fn with_seed(seed: u64, longest: Duration) -> Self {
        BackOff {
            state: seed,
            attempt: 0,
            longest,
        }
    }

    /// After a stream that has settled.
    pub(super) fn reset(&mut self) {
        self.attempt = 0;
    }

    /// The next wait; longer ones if the camera has refused user and password.
    pub(super) fn next(&mut self, refused: bool) -> Duration {
        let (first, longest) = if refused {
            (FIRST_REFUSED, self.longest.max(FIRST_REFUSED))
        } else {
            (FIRST.min(self.longest), self.longest)
        };
        let doubled = first.saturating_mul(1 << self.attempt.min(20)).min(longest);
        self.attempt = self.attempt.saturating_add(1);
        doubled.mul_f64(0.5 + 0.5 * self.random())
    }

    /// 0..1, by splitmix64.
    fn random(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_stay_in_their_upper_half() {
        for seed in 0..200 {
            let mut waits = BackOff::with_seed(seed, Duration::from_secs(30));
            for base in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0] {
                let wait = waits.next(false).as_secs_f64();
                assert!((0.5 * base..=base).contains(&wait), "{wait} of {base}");
            }
            waits.reset();
            assert!(waits.next(false) <= FIRST);
        }
        let mut short = BackOff::with_seed(1, Duration::from_millis(500));
        let longest = (0..100).map(|_| short.next(false)).max();
        assert!(longest <= Some(Duration::from_millis(500)));
    }

    #[test]
    fn a_year_of_attempts_does_not_overflow() {
        let mut waits = BackOff::with_seed(3, Duration::from_secs(3600));
        let last = (0..100_000).map(|_| waits.next(false)).last();
        assert!(last >= Some(Duration::from_secs(1800)));
    }

    #[test]
    fn a_wrong_password_is_not_tried_again_soon() {
        for seed in 0..200 {
            let mut waits = BackOff::with_seed(seed, Duration::from_secs(1));
            assert!(waits.next(true) >= Duration::from_secs(5));
            assert!(waits.next(true) <= Duration::from_secs(10));
        }
    }

    #[test]
    fn cameras_lost_together_do_not_come_back_together() {
        let mut waits: Vec<u128> = (0..50)
            .map(|i| {
                BackOff::new(&format!("camera {i}"), Duration::from_secs(30))
                    .next(false)
                    .as_micros()
            })
            .collect();
        waits.sort_unstable();
        waits.dedup();
        assert!(waits.len() > 40, "{} different waits", waits.len());
    }
}
