//! When the core of the worker last went round.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Beaten by the loop that keeps the session, every few seconds whatever happens, and read by the
/// watchdog.
#[derive(Debug)]
pub struct Pulse(Mutex<Instant>);

/// The loop beats at least so often where nothing happens.
pub const PERIOD: Duration = Duration::from_secs(5);

impl Default for Pulse {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

impl Pulse {
    pub fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// How long ago the last one was.
    pub fn age(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_beat_makes_it_young() {
        let pulse = Pulse::default();
        tokio::time::advance(PERIOD).await;
        assert_eq!(pulse.age(), PERIOD);
        pulse.beat();
        assert_eq!(pulse.age(), Duration::ZERO);
    }
}
