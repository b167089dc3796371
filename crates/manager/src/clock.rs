//! Cluster time: this machine's date when the manager started, carried on by the monotonic clock,
//! so that a clock that jumps moves neither leases nor back-offs.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

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
        self.origin + passed
    }
}

/// The machine's own date, milliseconds since 1970.
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
