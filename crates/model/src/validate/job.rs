//! Modes, and what is asked of jobs.

use super::{DAY_MS, DURATION_MAX_MS, Invalid, REPLICAS_MAX, between, invalid, shown};
use crate::apply::SCHEDULED_NAME_MAX;
use crate::spec::{JobPolicy, Mode, Schedule, ServiceSpec};

const CRON_BYTES_MAX: usize = 256;
const TIME_ZONE_BYTES_MAX: usize = 64;
/// Launches kept of each kind.
const KEEP_MAX: u32 = 100;
const YEAR_MS: u64 = 365 * DAY_MS;
const SECOND_MS: u64 = 1_000;

pub(super) fn mode(spec: &ServiceSpec) -> Result<(), Invalid> {
    let replicas = spec.replicas();
    if replicas > REPLICAS_MAX {
        return invalid("replicas", format!("{replicas} is more than {REPLICAS_MAX}"));
    }
    if let Mode::ReplicatedJob { completions, max_concurrent } = spec.mode {
        if completions == 0 {
            return invalid("replicas", "is 0, but a job completes at least once; write 1 or more");
        }
        if max_concurrent > completions {
            let problem = format!(
                "{max_concurrent} is more than the completions, {completions}; write at most that, \
                 or 0 for all at once"
            );
            return invalid("max_concurrent", problem);
        }
    }
    Ok(())
}

pub(super) fn policy(spec: &ServiceSpec) -> Result<(), Invalid> {
    let JobPolicy { ttl_after_finished_ms, max_run_duration_ms, schedule: timetable } = &spec.job;
    let is_job = spec.mode.is_job();
    for (field, given) in [
        ("job.schedule", timetable.is_some()),
        ("job.ttl_after_finished", ttl_after_finished_ms.is_some()),
        ("job.max_run_duration", max_run_duration_ms.is_some()),
    ] {
        if given && !is_job {
            return invalid(field, "is only for the modes replicated-job and global-job");
        }
    }
    if let Some(ttl) = *ttl_after_finished_ms {
        between("job.ttl_after_finished", ttl, 0, YEAR_MS, "1h")?;
    }
    if let Some(longest) = *max_run_duration_ms {
        between("job.max_run_duration", longest, SECOND_MS, YEAR_MS, "1h")?;
    }
    match timetable {
        Some(timetable) => schedule(spec, timetable),
        None => Ok(()),
    }
}

fn schedule(spec: &ServiceSpec, schedule: &Schedule) -> Result<(), Invalid> {
    if spec.name.len() > SCHEDULED_NAME_MAX {
        let problem = format!(
            "is {} characters long; a scheduled service's has at most {SCHEDULED_NAME_MAX}, \
             because its launches append a number",
            spec.name.len()
        );
        return invalid("name", problem);
    }
    let Schedule { cron, time_zone, overlap: _, starting_deadline_ms, keep_succeeded, keep_failed } =
        schedule;
    printable("job.schedule.cron", cron, CRON_BYTES_MAX, "*/5 * * * *")?;
    if cron.trim().is_empty() {
        return invalid("job.schedule.cron", "is empty; write five fields, such as `*/5 * * * *`");
    }
    printable("job.schedule.time_zone", time_zone, TIME_ZONE_BYTES_MAX, "Europe/Berlin")?;
    if let Some(deadline) = *starting_deadline_ms {
        let field = "job.schedule.starting_deadline";
        between(field, deadline, SECOND_MS, DURATION_MAX_MS, "5m")?;
    }
    for (field, keep) in [("keep_succeeded", keep_succeeded), ("keep_failed", keep_failed)] {
        if *keep > KEEP_MAX {
            let problem = format!("{keep} is more than {KEEP_MAX}; write for example 3");
            return invalid(format!("job.schedule.{field}"), problem);
        }
    }
    Ok(())
}

fn printable(field: &str, value: &str, most: usize, example: &str) -> Result<(), Invalid> {
    if value.len() > most {
        let problem = format!(
            "is {} characters long, more than {most}; write for example {example}",
            value.len()
        );
        return invalid(field, problem);
    }
    if value.contains(char::is_control) {
        let problem =
            format!("`{}` contains control characters; write for example {example}", shown(value));
        return invalid(field, problem);
    }
    Ok(())
}
