//! Reports and assignments: what passes between managers and workers.

use std::sync::Arc;

use cluster_model::spec::Disconnect;
use cluster_model::{Desired, Observed, Service, StatusReport, Task};
use cluster_pb::dispatcher::v1 as pb;

use crate::DecodeError;
use crate::spec::{refuse, task_spec_to_pb};

/// Longest text of a report that is kept.
const TEXT_MAX: usize = 512;

/// Tasks of an unfinished life that a worker should know of. `with_spec` is false when the worker
/// was sent the task's spec before in this session.
pub fn assignment(service: &Service, task: &Task, with_spec: bool) -> pb::Assignment {
    let spec = service.task_spec(task.revision).filter(|_| with_spec);
    pb::Assignment {
        task_id: task.id.to_string(),
        service_id: task.service.to_string(),
        service_name: service.spec.name.clone(),
        slot: task.slot,
        revision: task.revision,
        desired_state: task.desired.to_string(),
        withdrawn: task.withdrawn,
        spec: spec.map(|spec| task_spec_to_pb(spec)),
        target_ports: service.ports.iter().map(|port| port.target.into()).collect(),
        generic: task
            .extras
            .generic
            .iter()
            .map(|(kind, names)| pb::GenericHold { kind: kind.clone(), names: names.clone() })
            .collect(),
        stop_after_ms: match service.spec.disconnect {
            Disconnect::StopAfter { after_ms } => after_ms,
            Disconnect::Replace | Disconnect::Wait => 0,
        },
    }
}

pub fn report_from_pb(report: pb::TaskReport) -> Result<StatusReport, DecodeError> {
    let task = report.task_id.parse().map_err(|error| refuse("task_id", error))?;
    let text = |text: String| -> Option<Arc<str>> {
        (!text.is_empty()).then(|| text.chars().take(TEXT_MAX).collect::<String>().into())
    };
    Ok(StatusReport {
        task,
        state: observed_from_str(&report.state)?,
        at_ms: report.at_ms,
        message: text(report.message),
        error: text(report.error),
        exit_code: report.exit_code,
        oom: report.oom,
        ready: report.ready,
        readiness: report.readiness,
    })
}

pub fn report_to_pb(report: &StatusReport) -> pb::TaskReport {
    let text = |text: &Option<Arc<str>>| text.as_deref().unwrap_or("").to_owned();
    pb::TaskReport {
        task_id: report.task.to_string(),
        state: report.state.to_string(),
        at_ms: report.at_ms,
        message: text(&report.message),
        error: text(&report.error),
        exit_code: report.exit_code,
        oom: report.oom,
        ready: report.ready,
        readiness: report.readiness,
    }
}

pub fn desired_from_str(text: &str) -> Result<Desired, DecodeError> {
    Ok(match text {
        "ready" => Desired::Ready,
        "running" => Desired::Running,
        "complete" => Desired::Complete,
        "shutdown" => Desired::Shutdown,
        "remove" => Desired::Remove,
        _ => return Err(refuse("desired_state", format!("`{text}` is unknown"))),
    })
}

pub fn observed_from_str(text: &str) -> Result<Observed, DecodeError> {
    Ok(match text {
        "new" => Observed::New,
        "pending" => Observed::Pending,
        "assigned" => Observed::Assigned,
        "accepted" => Observed::Accepted,
        "preparing" => Observed::Preparing,
        "ready" => Observed::Ready,
        "starting" => Observed::Starting,
        "running" => Observed::Running,
        "complete" => Observed::Complete,
        "shutdown" => Observed::Shutdown,
        "failed" => Observed::Failed,
        "rejected" => Observed::Rejected,
        "lost" => Observed::Lost,
        _ => return Err(refuse("observed_state", format!("`{text}` is unknown"))),
    })
}
