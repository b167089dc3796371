//! Waiting for a value, with a bound and a story when the bound is reached.

use std::time::{Duration, Instant};

/// How often a value is looked at.
const PERIOD: Duration = Duration::from_millis(50);

/// Looks until `look` answers; panics with what it said last when `bound` has passed. Answers how
/// long it took, too.
pub fn until<T>(
    what: &str,
    bound: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> (T, Duration) {
    let started = Instant::now();
    loop {
        match look() {
            Ok(value) => return (value, started.elapsed()),
            Err(last) if started.elapsed() > bound => {
                panic!("{what}: not within {bound:?}; last: {last}");
            }
            Err(_) => std::thread::sleep(PERIOD),
        }
    }
}

/// As [`until`], for a plain condition.
pub fn eventually(what: &str, bound: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    until(what, bound, || if holds() { Ok(()) } else { Err("it does not hold".to_owned()) }).1
}
