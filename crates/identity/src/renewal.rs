//! When to ask for the next certificate.

use crate::ca::BACKDATE;

/// The second, between 50 % and 80 % of the time from its making to its end, at which to renew a
/// certificate. It was made an hour after `not_before`: certificates are backdated.
///
/// `jitter` in 0..=1 spreads the nodes of a cluster that all joined at once; values outside, and
/// NaN, are taken as the nearest end.
pub fn renew_at(not_before: u64, not_after: u64, jitter: f64) -> u64 {
    let jitter_per_mille = if jitter.is_nan() { 0.0 } else { jitter.clamp(0.0, 1.0) * 1000.0 };
    // Exact integers: the range was clamped to 0..=1000 just above.
    let per_mille = 500 + u128::from(jitter_per_mille as u16) * 300 / 1000;
    let made = not_before.saturating_add(BACKDATE.as_secs()).min(not_after);
    let life = u128::from(not_after - made);
    made.saturating_add(u64::try_from(life * per_mille / 1000).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_between_half_and_four_fifths_of_the_time_since_it_was_made() {
        let hour = 3600;
        assert_eq!(renew_at(1000, 2000 + hour, 0.0), 1500 + hour);
        assert_eq!(renew_at(1000, 2000 + hour, 1.0), 1800 + hour);
        assert_eq!(renew_at(1000, 2000 + hour, 0.5), 1650 + hour);
        assert_eq!(renew_at(1000, 2000 + hour, 7.0), 1800 + hour);
        assert_eq!(renew_at(1000, 2000 + hour, f64::NAN), 1500 + hour);
        assert_eq!(renew_at(2000, 1000, 0.5), 1000);
        assert_eq!(renew_at(1000, 2000, 0.5), 2000, "shorter than the backdating");
    }
}
