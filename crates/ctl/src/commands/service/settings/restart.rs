//! `--restart-…`: what happens when a task has ended by itself.

use clap::ValueEnum;
use cluster_pb::types::v1 as pb;

use super::put;
use crate::values::amount::{Attempts, attempts};
use crate::values::duration::{Delay, Span, delay, span, span_above_zero};

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Restart of tasks that ended by themselves")]
pub struct Restart {
    /// When a task that ended by itself is replaced; of a job, any is on-failure (default: any)
    #[arg(long, value_name = "WHEN")]
    restart_condition: Option<Condition>,

    /// Time before each replacement, or backoff: at once, then 1s, 2s, 4s … (default: backoff)
    #[arg(long, value_name = "DURATION", value_parser = delay, allow_hyphen_values = true)]
    restart_delay: Option<Delay>,

    /// Longest wait of the backoff; '' takes it back (default: 60s)
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = span_above_zero,
        allow_hyphen_values = true
    )]
    restart_max_delay: Option<Span>,

    /// Replacements allowed in one slot, or unlimited (default: unlimited)
    #[arg(long, value_name = "N", value_parser = attempts, allow_hyphen_values = true)]
    restart_max_attempts: Option<Attempts>,

    /// Count only replacements of the last so long (default: all)
    #[arg(long, value_name = "DURATION", value_parser = span, allow_hyphen_values = true)]
    restart_window: Option<Span>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Condition {
    None,
    OnFailure,
    Any,
}

impl Restart {
    pub fn apply(&self, restart: &mut pb::RestartPolicy) {
        use pb::restart_policy::Condition as Wire;
        if let Some(condition) = self.restart_condition {
            restart.set_condition(match condition {
                Condition::None => Wire::None,
                Condition::OnFailure => Wire::OnFailure,
                Condition::Any => Wire::Any,
            });
        }
        match self.restart_delay {
            Some(Delay::BackOff) => restart.delay_ms = None,
            Some(Delay::Fixed(ms)) => restart.delay_ms = Some(ms),
            None => {}
        }
        match self.restart_max_attempts {
            Some(Attempts::Unlimited) => restart.max_attempts = None,
            Some(Attempts::AtMost(count)) => restart.max_attempts = Some(count),
            None => {}
        }
        put(&mut restart.max_delay_ms, self.restart_max_delay.map(|span| span.0));
        put(&mut restart.window_ms, self.restart_window.map(|span| span.0));
    }
}
