//! Update and rollback policies, and amounts.

use super::{DURATION_MAX_MS, Invalid, at_most, invalid};
use crate::spec::rollout::PPM;
use crate::spec::{Amount, FailureAction, Mode, ServiceSpec, UpdatePolicy};

pub(super) fn policies(spec: &ServiceSpec) -> Result<(), Invalid> {
    if spec.mode.is_job() {
        let problem = "is not for jobs: an update begins another run; leave the policy out";
        for (field, policy) in [("update", &spec.update), ("rollback", &spec.rollback)] {
            if *policy != UpdatePolicy::default() {
                return invalid(field, problem);
            }
        }
        return Ok(());
    }
    policy("update", &spec.update)?;
    policy("rollback", &spec.rollback)?;
    if let Mode::Replicated { replicas } = spec.mode
        && spec.update.canary > replicas
        // A service scaled to nothing keeps its policy for later.
        && replicas != 0
    {
        let plural = if replicas == 1 { "" } else { "s" };
        let problem = format!(
            "{} is more than the {replicas} replica{plural}; write for example 1",
            spec.update.canary
        );
        return invalid("update.canary", problem);
    }
    if spec.rollback.failure_action == FailureAction::Rollback {
        let problem = "is rollback, but a rollback that fails has nowhere to go; use pause or \
                       continue";
        return invalid("rollback.failure_action", problem);
    }
    if spec.rollback.canary != 0 {
        return invalid("rollback.canary", "is not for rollbacks; leave it 0");
    }
    if spec.rollback.auto_promote {
        return invalid("rollback.auto_promote", "is not for rollbacks; leave it out");
    }
    Ok(())
}

fn policy(field: &str, policy: &UpdatePolicy) -> Result<(), Invalid> {
    let UpdatePolicy {
        parallelism,
        delay_ms,
        monitor_ms,
        order: _,
        failure_action: _,
        max_failure_ratio_ppm,
        progress_deadline_ms,
        canary: _,
        auto_promote: _,
    } = policy;
    amount(&format!("{field}.parallelism"), *parallelism)?;
    at_most(&format!("{field}.delay"), *delay_ms, DURATION_MAX_MS)?;
    at_most(&format!("{field}.monitor"), *monitor_ms, DURATION_MAX_MS)?;
    let deadline = progress_deadline_ms.unwrap_or(0);
    at_most(&format!("{field}.progress_deadline"), deadline, DURATION_MAX_MS)?;
    if *max_failure_ratio_ppm > PPM {
        let problem = format!(
            "{max_failure_ratio_ppm} millionths are more than all of {PPM}; write a ratio of 0 to \
             1, such as 0.25"
        );
        return invalid(format!("{field}.max_failure_ratio"), problem);
    }
    Ok(())
}

pub(super) fn amount(field: &str, amount: Amount) -> Result<(), Invalid> {
    match amount {
        Amount::Count(_) | Amount::Percent(1..=100) => Ok(()),
        Amount::Percent(percent) => {
            let problem = format!("{percent}% is not 1% to 100%; write for example 2 or 25%");
            invalid(field, problem)
        }
    }
}
