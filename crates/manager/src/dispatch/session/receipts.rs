//! When a worker is told which of its reports are recorded. It keeps them until then, and nobody waits for
//! that; told alone, each would cost a manager of thousands as much as an assignment.

use std::time::Duration;

use tokio::time::Instant;

/// How long one waits for another message to go with, for each session of this manager. With a few
/// workers it is nothing.
const PAUSE: Duration = Duration::from_micros(300);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// So many wait no longer; a worker sends no more than four reports ahead.
const WAITING_MAX: u64 = 2;

pub(super) struct Receipts {
    /// Reports up to this one are recorded.
    recorded: u64,
    /// The worker knows it of those up to this one.
    told: u64,
    at: Instant,
}

impl Receipts {
    pub fn new() -> Self {
        Self { recorded: 0, told: 0, at: Instant::now() }
    }

    /// Reports up to `sequence` are recorded; none beyond those before means that a message has just gone
    /// out. The number is the worker's, so it may be anything.
    /// Answers whether the worker is to be told now.
    pub fn recorded(&mut self, sequence: u64, now: Instant, sessions: usize) -> bool {
        let went_out = sequence <= self.recorded;
        if !self.are_owed() {
            let sessions = u32::try_from(sessions).unwrap_or(u32::MAX);
            self.at = now + PAUSE.saturating_mul(sessions).min(PAUSE_MAX);
        }
        self.recorded = self.recorded.max(sequence);
        let waiting = self.recorded - self.told;
        waiting >= WAITING_MAX || (went_out && waiting > 0)
    }

    pub fn are_owed(&self) -> bool {
        self.recorded > self.told
    }

    /// When the worker is told at the latest, if anything is owed.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// What to tell.
    pub fn take(&mut self) -> u64 {
        self.told = self.recorded;
        self.told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_goes_with_something_else_or_soon() {
        let now = Instant::now();
        let mut receipts = Receipts::new();
        assert!(!receipts.recorded(0, now, 3), "nothing to tell with what went out");
        assert!(!receipts.recorded(1, now, 3) && receipts.are_owed());
        assert_eq!(receipts.at(), now + PAUSE * 3);
        // A heartbeat is answered meanwhile.
        assert!(receipts.recorded(1, now, 3));
        assert_eq!(receipts.take(), 1);
        assert!(!receipts.are_owed());
        // Thousands of sessions: longer, but with a bound, which later reports do not move.
        assert!(!receipts.recorded(2, now, 5_000));
        assert_eq!(receipts.at(), now + PAUSE_MAX);
        assert!(receipts.recorded(3, now + PAUSE_MAX / 2, 5_000), "two are enough");
        assert_eq!((receipts.at(), receipts.take()), (now + PAUSE_MAX, 3));
        assert!(!receipts.recorded(1, now, 3), "a worker that counts backwards harms nobody");
    }
}
