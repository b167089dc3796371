//! How long a client that keeps one connection waits, learned from how its connections ended.
//!
//! A server that is slow looks like one that is gone. Thousands of clients that leave it at once make
//! it slower still, for a new connection costs it more than the old one did; with fixed limits it may
//! then never get well again. So limits that prove too short are doubled, and are what they were once
//! a connection has lasted. A second server that really goes soon after the first is noticed later
//! for that.

use std::time::Duration;

/// A connection that lasted so long was a good one.
const STEADY: Duration = Duration::from_secs(30);
/// Limits are doubled so often at most.
const DOUBLINGS_MAX: u32 = 4;

/// Limits of one client, one connection after the other. Pure: the caller has the clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    /// Connections and tries in a row that ended because nothing came in time.
    timeouts: u32,
}

impl Patience {
    /// A limit as it is now.
    pub fn stretch(&self, limit: Duration) -> Duration {
        limit * (1 << self.timeouts.min(DOUBLINGS_MAX))
    }

    /// A connection, or the try to make one, ended after so long: because the other side said nothing
    /// in time, or for another reason. Answers whether it was a good one.
    pub fn ended(&mut self, lasted: Duration, timed_out: bool) -> bool {
        let steady = lasted >= STEADY;
        if steady {
            self.timeouts = 0;
        }
        if timed_out {
            self.timeouts = self.timeouts.saturating_add(1);
        }
        steady
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(600);
    const SHORT: Duration = Duration::from_secs(2);

    #[test]
    fn limits_that_prove_too_short_grow_and_a_good_connection_makes_them_short_again() {
        let mut patience = Patience::default();
        assert_eq!(patience.stretch(LIMIT), LIMIT);
        assert!(!patience.ended(SHORT, true));
        assert_eq!(patience.stretch(LIMIT), LIMIT * 2);
        patience.ended(SHORT, false);
        assert_eq!(patience.stretch(LIMIT), LIMIT * 2, "a refusal says nothing about slowness");
        for _ in 0..100 {
            patience.ended(SHORT, true);
        }
        assert_eq!(patience.stretch(LIMIT), LIMIT * 16, "bounded");
        assert!(patience.ended(STEADY, true));
        assert_eq!(patience.stretch(LIMIT), LIMIT * 2, "a good one that went silent in the end");
        assert!(patience.ended(STEADY, false));
        assert_eq!(patience.stretch(LIMIT), LIMIT);
    }
}
