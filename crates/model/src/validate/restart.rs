//! Restart policies.

use super::{DURATION_MAX_MS, Invalid, at_most, between, invalid};
use crate::spec::RestartPolicy;

/// Attempts within a window are counted over the tasks that are remembered, so they are few.
const WINDOW_ATTEMPTS_MAX: u32 = 50;
const SECOND_MS: u64 = 1_000;

pub(super) fn restart(policy: &RestartPolicy) -> Result<(), Invalid> {
    let RestartPolicy { condition: _, delay_ms, max_attempts, window_ms, max_delay_ms } = policy;
    at_most("restart.delay", delay_ms.unwrap_or(0), DURATION_MAX_MS)?;
    if let Some(window) = *window_ms {
        between("restart.window", window, SECOND_MS, DURATION_MAX_MS, "10m")?;
        if let Some(attempts) = max_attempts.filter(|attempts| *attempts > WINDOW_ATTEMPTS_MAX) {
            let problem = format!(
                "{attempts} is more than {WINDOW_ATTEMPTS_MAX}, the most that a window can count; \
                 write for example 5, or take the window out"
            );
            return invalid("restart.max_attempts", problem);
        }
    }
    if let Some(longest) = *max_delay_ms {
        between("restart.max_delay", longest, SECOND_MS, DURATION_MAX_MS, "60s")?;
    }
    Ok(())
}
