//! A bound on how often a stranger can make us log.

use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(10);

/// Lets one line through a window and counts the others.
#[derive(Debug, Default)]
pub struct LogGate {
    last: Option<Instant>,
    suppressed: u64,
}

impl LogGate {
    /// `Some(how many were held back since the last line)` when this line may be written.
    pub fn pass(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.duration_since(last) < WINDOW) {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_window_and_a_count() {
        let mut gate = LogGate::default();
        let start = Instant::now();
        assert_eq!(gate.pass(start), Some(0));
        assert_eq!(gate.pass(start + Duration::from_secs(1)), None);
        assert_eq!(gate.pass(start + Duration::from_secs(9)), None);
        assert_eq!(gate.pass(start + WINDOW), Some(2));
        assert_eq!(gate.pass(start + WINDOW * 2), Some(0));
    }
}
