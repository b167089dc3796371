//! When to ask for the next certificate.

/// The second, between 50 % and 80 % of the certificate's life, at which to renew it.
///
/// `jitter` in 0..=1 spreads the nodes of a cluster that all joined at once; values outside, and
/// NaN, are taken as the nearest end.
pub fn renew_at(not_before: u64, not_after: u64, jitter: f64) -> u64 {
    let jitter_per_mille = if jitter.is_nan() { 0.0 } else { jitter.clamp(0.0, 1.0) * 1000.0 };
    // Exact integers: the range was clamped to 0..=1000 just above.
    let per_mille = 500 + u128::from(jitter_per_mille as u16) * 300 / 1000;
    let life = u128::from(not_after.saturating_sub(not_before));
    not_before.saturating_add(u64::try_from(life * per_mille / 1000).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_between_half_and_four_fifths() {
        assert_eq!(renew_at(1000, 2000, 0.0), 1500);
        assert_eq!(renew_at(1000, 2000, 1.0), 1800);
        assert_eq!(renew_at(1000, 2000, 0.5), 1650);
        assert_eq!(renew_at(1000, 2000, 7.0), 1800);
        assert_eq!(renew_at(1000, 2000, f64::NAN), 1500);
        assert_eq!(renew_at(2000, 1000, 0.5), 2000);
    }
}
