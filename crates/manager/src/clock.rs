//! Cluster time: this machine's date when the manager started, carried on by the monotonic clock,
//! so that a clock that jumps moves neither leases nor back-offs.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// What stands for a moment that the monotonic clock cannot express.
const FAR: std::time::Duration = std::time::Duration::from_secs(365 * 24 * 3600);

#[derive(Clone, Copy, Debug)]
pub struct ClusterClock {
    origin: Instant,
    origin_ms: u64,
}

impl ClusterClock {
    pub fn start() -> Self {
        Self { origin: Instant::now(), origin_ms: wall_ms() }
    }

    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        self.at_ms(Instant::now())
    }

    /// The cluster time of a moment of this process.
    pub fn at_ms(&self, moment: Instant) -> u64 {
        let passed = moment.saturating_duration_since(self.origin).as_millis();
        self.origin_ms.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// The moment of this process at which a cluster time is reached.
    pub fn instant_at(&self, at_ms: u64) -> Instant {
        let passed = std::time::Duration::from_millis(at_ms.saturating_sub(self.origin_ms));
        self.origin.checked_add(passed).unwrap_or_else(|| self.origin + FAR)
    }
}

/// The machine's own date, milliseconds since 1970.
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_cluster_time_agree_and_no_time_is_too_late() {
        let clock = ClusterClock::start();
        let now_ms = clock.now_ms();
        assert!(clock.at_ms(clock.instant_at(now_ms + 1500)) == now_ms + 1500);
        assert!(clock.instant_at(0) <= Instant::now());
        assert!(clock.instant_at(u64::MAX) > Instant::now());
    }
}
