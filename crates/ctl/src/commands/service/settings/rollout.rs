//! `--update-…` and `--rollback-…`: how tasks move between revisions.

use clap::ValueEnum;
use cluster_pb::types::v1 as pb;
use cluster_pb::types::v1::update_policy::{FailureAction as WireAction, Order as WireOrder};

use super::put;
use crate::error::Error;
use crate::values::amount::{count, ratio, share};
use crate::values::duration::milliseconds;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Order {
    StopFirst,
    StartFirst,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum UpdateAction {
    Pause,
    Continue,
    Rollback,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RollbackAction {
    Pause,
    Continue,
}

impl From<UpdateAction> for WireAction {
    fn from(action: UpdateAction) -> Self {
        match action {
            UpdateAction::Pause => WireAction::Pause,
            UpdateAction::Continue => WireAction::Continue,
            UpdateAction::Rollback => WireAction::Rollback,
        }
    }
}

impl From<RollbackAction> for WireAction {
    fn from(action: RollbackAction) -> Self {
        match action {
            RollbackAction::Pause => WireAction::Pause,
            RollbackAction::Continue => WireAction::Continue,
        }
    }
}

/// The flags of one policy, with the policy's name before each.
macro_rules! policy {
    ($name:ident, $prefix:literal, $word:literal, $heading:literal, $action:ty) => {
        #[derive(Clone, Debug, clap::Args)]
        #[command(next_help_heading = $heading)]
        pub struct $name {
            #[arg(
                id = concat!($prefix, "-parallelism"),
                long = concat!($prefix, "-parallelism"),
                value_name = "N|N%",
                value_parser = share,
                allow_hyphen_values = true,
                help = "Slots that move at once, a number or a percentage; 0: all (default: 1)"
            )]
            parallelism: Option<String>,

            #[arg(
                id = concat!($prefix, "-delay"),
                long = concat!($prefix, "-delay"),
                value_name = "DURATION",
                value_parser = milliseconds,
                allow_hyphen_values = true,
                help = "Wait after a slot's new task runs before the next slot (default: 0s)"
            )]
            delay: Option<u64>,

            #[arg(
                id = concat!($prefix, "-monitor"),
                long = concat!($prefix, "-monitor"),
                value_name = "DURATION",
                value_parser = milliseconds,
                allow_hyphen_values = true,
                help = "A new task that fails within so long counts as a failure (default: 5s)"
            )]
            monitor: Option<u64>,

            #[arg(
                id = concat!($prefix, "-order"),
                long = concat!($prefix, "-order"),
                value_name = "ORDER",
                help = "stop-first: a slot's old task is gone before the new one runs; \
                        start-first: the new one is healthy before the old one stops (default: \
                        stop-first)"
            )]
            order: Option<Order>,

            #[arg(
                id = concat!($prefix, "-failure-action"),
                long = concat!($prefix, "-failure-action"),
                value_name = "ACTION",
                help = "What happens when too many slots failed (default: pause)"
            )]
            failure_action: Option<$action>,

            #[arg(
                id = concat!($prefix, "-max-failure-ratio"),
                long = concat!($prefix, "-max-failure-ratio"),
                value_name = "RATIO",
                value_parser = ratio,
                allow_hyphen_values = true,
                help = "Share of slots that may fail, 0 to 1 (default: 0)"
            )]
            max_failure_ratio: Option<u32>,

            #[arg(
                id = concat!($prefix, "-progress-deadline"),
                long = concat!($prefix, "-progress-deadline"),
                value_name = "DURATION",
                value_parser = milliseconds,
                allow_hyphen_values = true,
                help = concat!(
                    "When no slot comes up for so long the ", $word,
                    " has failed; 0: never (default: 10m)"
                )
            )]
            progress_deadline: Option<u64>,
        }

        impl $name {
            pub fn apply(&self, policy: &mut pb::UpdatePolicy) {
                put(&mut policy.parallelism, self.parallelism.clone());
                put(&mut policy.delay_ms, self.delay);
                put(&mut policy.monitor_ms, self.monitor.map(Some));
                if let Some(order) = self.order {
                    policy.set_order(match order {
                        Order::StopFirst => WireOrder::StopFirst,
                        Order::StartFirst => WireOrder::StartFirst,
                    });
                }
                if let Some(action) = self.failure_action {
                    policy.set_failure_action(action.into());
                }
                put(&mut policy.max_failure_ratio_ppm, self.max_failure_ratio);
                put(&mut policy.progress_deadline_ms, self.progress_deadline.map(Some));
            }
        }
    };
}

policy!(Update, "update", "update", "Update: how tasks move to a new revision", UpdateAction);
policy!(Rollback, "rollback", "rollback", "Rollback: how tasks move back", RollbackAction);

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Update: how tasks move to a new revision")]
pub struct Canary {
    /// New tasks that start beside the old ones and wait for `service promote` (default: 0)
    #[arg(long, value_name = "N", value_parser = count, allow_hyphen_values = true)]
    update_canary: Option<u32>,

    /// Healthy canaries promote themselves
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    update_auto_promote: Option<bool>,
}

impl Canary {
    pub fn apply(&self, policy: &mut pb::UpdatePolicy) -> Result<(), Error> {
        put(&mut policy.canary, self.update_canary);
        put(&mut policy.auto_promote, self.update_auto_promote);
        if self.update_auto_promote == Some(true) && policy.canary == 0 {
            return Err(Error::usage(
                "--update-auto-promote: there are no canaries; add for example --update-canary 1",
            ));
        }
        Ok(())
    }
}
