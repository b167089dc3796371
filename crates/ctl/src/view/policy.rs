//! Policies of a spec.

use cluster_pb::types::v1 as pb;
use serde::Serialize;

#[derive(Debug, Serialize)]
pub struct UpdateView {
    /// A number or a percentage; `0` is all.
    pub parallelism: String,
    pub delay_ms: u64,
    pub monitor_ms: u64,
    /// `stop-first` or `start-first`
    pub order: &'static str,
    /// `pause`, `continue` or `rollback`
    pub failure_action: &'static str,
    pub max_failure_ratio: f64,
    /// Null: none.
    pub progress_deadline_ms: Option<u64>,
    pub canary: u32,
    pub auto_promote: bool,
}

#[derive(Debug, Serialize)]
pub struct DisconnectView {
    /// `replace`, `wait` or `stop-after`
    pub policy: &'static str,
    /// Of stop-after.
    pub after_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
pub struct ScheduleView {
    pub cron: String,
    pub time_zone: String,
    /// `allow`, `forbid` or `replace`
    pub overlap: &'static str,
    pub starting_deadline_ms: Option<u64>,
    pub keep_succeeded: u32,
    pub keep_failed: u32,
}

#[derive(Debug, Serialize)]
pub struct HealthView {
    /// The image's HEALTHCHECK is not honoured.
    pub ignore_image: bool,
    pub liveness: Option<ProbeView>,
    pub readiness: Option<ProbeView>,
    pub startup: Option<ProbeView>,
}

#[derive(Debug, Serialize)]
pub struct ProbeView {
    /// `exec`, `http` or `tcp`
    pub kind: &'static str,
    pub command: Vec<String>,
    pub port: Option<u32>,
    pub path: String,
    pub interval_ms: u64,
    pub timeout_ms: u64,
    pub retries: u32,
    pub start_period_ms: u64,
    pub start_interval_ms: u64,
}

#[derive(Debug, Serialize)]
pub struct AffinityView {
    /// Empty when it is about nodes.
    pub service: String,
    /// A constraint; empty when it is about a service.
    pub node: String,
    /// Negative is anti-affinity.
    pub weight: i32,
}

impl From<pb::UpdatePolicy> for UpdateView {
    fn from(policy: pb::UpdatePolicy) -> Self {
        use pb::update_policy::{FailureAction, Order};
        Self {
            order: match policy.order() {
                Order::StartFirst => "start-first",
                Order::StopFirst | Order::Unspecified => "stop-first",
            },
            failure_action: match policy.failure_action() {
                FailureAction::Continue => "continue",
                FailureAction::Rollback => "rollback",
                FailureAction::Pause | FailureAction::Unspecified => "pause",
            },
            parallelism: match policy.parallelism.as_str() {
                "" => "1".to_owned(),
                amount => amount.to_owned(),
            },
            delay_ms: policy.delay_ms,
            monitor_ms: policy.monitor_ms.unwrap_or(5_000),
            max_failure_ratio: f64::from(policy.max_failure_ratio_ppm) / 1e6,
            progress_deadline_ms: match policy.progress_deadline_ms {
                None => Some(600_000),
                Some(0) => None,
                some => some,
            },
            canary: policy.canary,
            auto_promote: policy.auto_promote,
        }
    }
}

impl From<pb::Disconnect> for DisconnectView {
    fn from(disconnect: pb::Disconnect) -> Self {
        use pb::disconnect::Policy;
        match disconnect.policy() {
            Policy::Replace | Policy::Unspecified => Self { policy: "replace", after_ms: None },
            Policy::Wait => Self { policy: "wait", after_ms: None },
            Policy::StopAfter => Self { policy: "stop-after", after_ms: Some(disconnect.after_ms) },
        }
    }
}

impl From<pb::Schedule> for ScheduleView {
    fn from(schedule: pb::Schedule) -> Self {
        use pb::schedule::Overlap;
        Self {
            overlap: match schedule.overlap() {
                Overlap::Allow => "allow",
                Overlap::Replace => "replace",
                Overlap::Forbid | Overlap::Unspecified => "forbid",
            },
            time_zone: match schedule.time_zone.as_str() {
                "" => "UTC".to_owned(),
                zone => zone.to_owned(),
            },
            cron: schedule.cron,
            starting_deadline_ms: schedule.starting_deadline_ms,
            keep_succeeded: schedule.keep_succeeded.unwrap_or(3),
            keep_failed: schedule.keep_failed.unwrap_or(1),
        }
    }
}

impl From<pb::Health> for HealthView {
    fn from(health: pb::Health) -> Self {
        Self {
            ignore_image: health.ignore_image,
            liveness: health.liveness.map(ProbeView::from),
            readiness: health.readiness.map(ProbeView::from),
            startup: health.startup.map(ProbeView::from),
        }
    }
}

impl From<pb::Probe> for ProbeView {
    fn from(probe: pb::Probe) -> Self {
        use pb::probe::Check;
        let (kind, command, port, path) = match probe.check {
            Some(Check::Exec(exec)) => ("exec", exec.command, None, String::new()),
            Some(Check::Http(http)) => ("http", Vec::new(), Some(http.port), http.path),
            Some(Check::Tcp(tcp)) => ("tcp", Vec::new(), Some(tcp.port), String::new()),
            None => ("", Vec::new(), None, String::new()),
        };
        Self {
            kind,
            command,
            port,
            path,
            interval_ms: probe.interval_ms.unwrap_or(30_000),
            timeout_ms: probe.timeout_ms.unwrap_or(30_000),
            retries: probe.retries.unwrap_or(3),
            start_period_ms: probe.start_period_ms,
            start_interval_ms: probe.start_interval_ms.unwrap_or(5_000),
        }
    }
}

impl From<pb::Affinity> for AffinityView {
    fn from(affinity: pb::Affinity) -> Self {
        Self { service: affinity.service, node: affinity.node, weight: affinity.weight }
    }
}
