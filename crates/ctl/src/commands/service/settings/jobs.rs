//! Jobs and schedules.

use clap::ValueEnum;
use cluster_pb::types::v1 as pb;

use super::put;
use crate::error::Error;
use crate::values::amount::count;
use crate::values::duration::{Span, span, span_above_zero, span_from_zero};

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Jobs and schedules")]
pub struct Jobs {
    /// Tasks of a replicated job that run at once; 0: all (default: 0)
    #[arg(long, value_name = "N", value_parser = count, allow_hyphen_values = true)]
    max_concurrent: Option<u32>,

    /// Launch the job at these moments: five fields as in crontab(5), such as "*/5 * * * *"
    #[arg(long, value_name = "CRON", allow_hyphen_values = true)]
    schedule: Option<String>,

    /// Time zone of the schedule, such as Europe/Berlin (default: UTC)
    #[arg(long, value_name = "ZONE")]
    schedule_timezone: Option<String>,

    /// When a launch is due while another still runs: allow both, forbid the new one, or replace
    /// the old one (default: forbid)
    #[arg(long, value_name = "POLICY")]
    schedule_overlap: Option<Overlap>,

    /// Skip a launch that is later than so long; '' takes it back (default: however late)
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = span_above_zero,
        allow_hyphen_values = true
    )]
    schedule_starting_deadline: Option<Span>,

    /// Launches that ended well and are kept (default: 3)
    #[arg(long, value_name = "N", value_parser = count, allow_hyphen_values = true)]
    schedule_keep_succeeded: Option<u32>,

    /// Launches that failed and are kept (default: 1)
    #[arg(long, value_name = "N", value_parser = count, allow_hyphen_values = true)]
    schedule_keep_failed: Option<u32>,

    /// Remove a job so long after it finished; '' keeps it (default: it stays)
    #[arg(long, value_name = "DURATION", value_parser = span_from_zero, allow_hyphen_values = true)]
    ttl_after_finished: Option<Span>,

    /// Stop a run that takes longer (default: no bound)
    #[arg(long, value_name = "DURATION", value_parser = span, allow_hyphen_values = true)]
    max_run_duration: Option<Span>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Overlap {
    Allow,
    Forbid,
    Replace,
}

impl Jobs {
    pub fn has_schedule(&self) -> bool {
        self.schedule.as_deref().is_some_and(|cron| !cron.is_empty())
    }

    pub fn apply(&self, spec: &mut pb::ServiceSpec) -> Result<(), Error> {
        if let Some(most) = self.max_concurrent {
            if spec.mode() != pb::service_spec::Mode::ReplicatedJob && most != 0 {
                return Err(Error::usage(
                    "--max-concurrent: is only for replicated jobs, made with --mode replicated-job; a \
                     service keeps the mode that it was created with",
                ));
            }
            spec.max_concurrent = most;
        }
        let job = spec.job.get_or_insert_default();
        put(&mut job.ttl_after_finished_ms, self.ttl_after_finished.map(|span| span.0));
        put(&mut job.max_run_duration_ms, self.max_run_duration.map(|span| span.0));
        if let Some(cron) = self.schedule.as_deref() {
            cron.clone_into(&mut job.schedule.get_or_insert_default().cron);
        }
        match &mut job.schedule {
            Some(schedule) => {
                self.apply_schedule(schedule);
                Ok(())
            }
            None => self.refuse_orphans(),
        }
    }

    fn apply_schedule(&self, schedule: &mut pb::Schedule) {
        use pb::schedule::Overlap as Wire;
        put(&mut schedule.time_zone, self.schedule_timezone.clone());
        if let Some(overlap) = self.schedule_overlap {
            schedule.set_overlap(match overlap {
                Overlap::Allow => Wire::Allow,
                Overlap::Forbid => Wire::Forbid,
                Overlap::Replace => Wire::Replace,
            });
        }
        let deadline = self.schedule_starting_deadline.map(|span| span.0);
        put(&mut schedule.starting_deadline_ms, deadline);
        put(&mut schedule.keep_succeeded, self.schedule_keep_succeeded.map(Some));
        put(&mut schedule.keep_failed, self.schedule_keep_failed.map(Some));
    }

    /// Flags that mean nothing without a schedule.
    fn refuse_orphans(&self) -> Result<(), Error> {
        for (flag, given) in [
            ("--schedule-timezone", self.schedule_timezone.is_some()),
            ("--schedule-overlap", self.schedule_overlap.is_some()),
            ("--schedule-starting-deadline", self.schedule_starting_deadline.is_some()),
            ("--schedule-keep-succeeded", self.schedule_keep_succeeded.is_some()),
            ("--schedule-keep-failed", self.schedule_keep_failed.is_some()),
        ] {
            if given {
                let message = format!("{flag}: needs a schedule; add --schedule \"*/5 * * * *\"");
                return Err(Error::usage(message));
            }
        }
        Ok(())
    }
}
