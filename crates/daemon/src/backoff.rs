//! Exponential back-off with full jitter: each delay is anywhere between 0 and a bound that
//! doubles up to a cap, so that clients that failed together do not come back together.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    attempt: u32,
    rng: StdRng,
}

impl Backoff {
    /// Bounds `first`, twice that, … up to `cap`; seeded by the system.
    pub fn new(first: Duration, cap: Duration) -> Self {
        Self::with_rng(first, cap, StdRng::from_rng(&mut rand::rng()))
    }

    /// As [`Backoff::new`], with delays that depend on `rng` only.
    pub fn with_rng(first: Duration, cap: Duration, rng: StdRng) -> Self {
        Self { first, cap: cap.max(first), attempt: 0, rng }
    }

    /// The next delay to wait. Never ends; who wants to give up counts [`Backoff::attempts`].
    pub fn next_delay(&mut self) -> Duration {
        let bound = self.bound();
        self.attempt = self.attempt.saturating_add(1);
        bound.mul_f64(self.rng.random_range(0.0..=1.0))
    }

    /// The largest delay that [`Backoff::next_delay`] can return now.
    pub fn bound(&self) -> Duration {
        self.first.saturating_mul(1u32.checked_shl(self.attempt).unwrap_or(u32::MAX)).min(self.cap)
    }

    /// Delays asked for since the start or the last [`Backoff::reset`].
    pub fn attempts(&self) -> u32 {
        self.attempt
    }

    /// After a success: the next failure is a first one again.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeded(seed: u64) -> Backoff {
        let rng = StdRng::seed_from_u64(seed);
        Backoff::with_rng(Duration::from_millis(100), Duration::from_secs(2), rng)
    }

    #[test]
    fn bound_doubles_up_to_the_cap_and_resets() {
        let mut backoff = seeded(1);
        let bounds: Vec<u128> = (0..7)
            .map(|_| {
                let bound = backoff.bound();
                assert!(backoff.next_delay() <= bound);
                bound.as_millis()
            })
            .collect();
        assert_eq!(bounds, [100, 200, 400, 800, 1600, 2000, 2000]);
        for _ in 0..100 {
            assert!(backoff.next_delay() <= Duration::from_secs(2));
        }
        backoff.reset();
        assert_eq!(backoff.bound(), Duration::from_millis(100));
        assert_eq!(backoff.attempts(), 0);
    }

    #[test]
    fn jitter_is_full_and_follows_the_seed() {
        let delays = |seed| {
            let mut backoff = seeded(seed);
            (0..200).map(|_| backoff.next_delay()).collect::<Vec<_>>()
        };
        assert_eq!(delays(7), delays(7));
        assert_ne!(delays(7), delays(8));
        let late = &delays(7)[10..];
        assert!(late.iter().any(|delay| *delay < Duration::from_millis(300)));
        assert!(late.iter().any(|delay| *delay > Duration::from_millis(1700)));
    }

    #[test]
    fn a_cap_below_the_first_delay_does_not_shrink_it() {
        let backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(1));
        assert_eq!(backoff.bound(), Duration::from_secs(5));
    }
}
