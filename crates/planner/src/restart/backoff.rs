//! How long a successor waits: not at all the first time, then 1 s, 2 s, 4 s … 60 s.
//!
//! The jitter comes from the ended task's id, so that every leader computes the same wait and
//! tasks that failed together do not come back together.

use cluster_model::Task;
use cluster_model::spec::RestartPolicy;

use crate::ids::scramble;

const FIRST_MS: u64 = 1_000;
/// The longest wait of a policy that does not say.
const CAP_MS: u64 = 60_000;
/// Waits vary by a tenth to either side.
const JITTER_PERCENT: u64 = 10;

/// The successor's count of restarts and its wait.
///
/// A run longer than the cap ends the series. With a limit of attempts the count goes on, since
/// the limit is for the slot under its revision, but the wait is still spared. A fixed delay is
/// taken as it is, except that attempts that fail before they start are spread out all the same.
pub(super) fn next(policy: &RestartPolicy, ended: &Task) -> (u32, u64) {
    let cap_ms = cap_ms(policy);
    let long = ran_long(ended, cap_ms);
    let counted = if long && policy.max_attempts.is_none() { 0 } else { ended.restarts };
    let restarts = counted.saturating_add(1);
    let series_ms = if long { 0 } else { jittered(series_ms(restarts, cap_ms), ended.id.0) };
    let delay_ms = match policy.delay_ms {
        // What never started would fail again as fast as it can be asked to.
        Some(fixed) if ended.status.started_at_ms == 0 => fixed.max(series_ms),
        Some(fixed) => fixed,
        None => series_ms,
    };
    (restarts, delay_ms)
}

/// No wait under this policy is longer.
pub(super) fn longest_ms(policy: &RestartPolicy) -> u64 {
    let cap_ms = cap_ms(policy);
    let jitter_ms = cap_ms / 100 * JITTER_PERCENT + JITTER_PERCENT;
    policy.delay_ms.unwrap_or_default().max(cap_ms.saturating_add(jitter_ms))
}

fn cap_ms(policy: &RestartPolicy) -> u64 {
    policy.max_delay_ms.unwrap_or(CAP_MS)
}

/// Both times are of the agent's clock.
fn ran_long(task: &Task, cap_ms: u64) -> bool {
    let status = &task.status;
    status.started_at_ms > 0 && status.at_ms.saturating_sub(status.started_at_ms) > cap_ms
}

fn series_ms(restarts: u32, cap_ms: u64) -> u64 {
    match restarts {
        0 | 1 => 0,
        n => 1u64
            .checked_shl(n - 2)
            .map_or(cap_ms, |factor| FIRST_MS.saturating_mul(factor))
            .min(cap_ms),
    }
}

fn jittered(delay_ms: u64, id: u64) -> u64 {
    let span = delay_ms.saturating_mul(JITTER_PERCENT) / 100;
    let part = scramble(id) % (2 * span + 1);
    delay_ms - span + part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_is_at_once_then_doubles_up_to_a_minute() {
        let series: Vec<u64> = (1..=10).map(|restarts| series_ms(restarts, CAP_MS)).collect();
        let golden = [0, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000];
        assert_eq!(series, golden);
        assert_eq!(series_ms(u32::MAX, CAP_MS), CAP_MS);
        let capped: Vec<u64> = (1..=5).map(|restarts| series_ms(restarts, 3_000)).collect();
        assert_eq!(capped, [0, 1_000, 2_000, 3_000, 3_000]);
    }

    #[test]
    fn jitter_is_fixed_by_the_id_and_bounded() {
        assert_eq!(jittered(0, 7), 0);
        let waits: Vec<u64> = (0..1000).map(|id| jittered(60_000, id)).collect();
        assert!(waits.iter().all(|wait| (54_000..=66_000).contains(wait)));
        assert!(waits.iter().any(|wait| *wait < 56_000) && waits.iter().any(|wait| *wait > 64_000));
        // Golden: a change of the jitter is a change that users can see.
        assert_eq!([1, 2, 3].map(|id| jittered(1_000, id)), [1_093, 1_024, 944]);
    }
}
