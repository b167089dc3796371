//! The rollout that a wait watches: whose it is, and what its states mean for the wait.

use cluster_pb::types::v1 as pb;

use super::Verdict;

/// The service before the change that is waited for.
#[derive(Clone, Debug, Default)]
pub struct Before {
    /// Its revision; none when it did not exist.
    pub revision: Option<u32>,
    /// Its rollout: the same one seen afterwards is not the change's doing.
    pub rollout: Option<pb::Rollout>,
    /// The change is itself a rollback.
    pub going_back: bool,
}

#[derive(Debug)]
pub(super) struct Moving {
    before: Before,
    now: Option<pb::Rollout>,
    /// Why the managers gave the update up.
    gave_up: Option<String>,
}

impl Moving {
    pub fn new(before: Before) -> Self {
        Self { before, now: None, gave_up: None }
    }

    pub fn observe(&mut self, service: &pb::Service) {
        self.now.clone_from(&service.rollout);
        if let Some(rollout) = self.now.as_ref().filter(|rollout| rollout.kind == "rollback")
            && self.is_new()
            && !self.before.going_back
            && self.gave_up.is_none()
        {
            self.gave_up = Some(rollout.message.clone());
        }
    }

    /// It began with or after the change that is waited for.
    fn is_new(&self) -> bool {
        let identity = |rollout: &pb::Rollout| {
            (rollout.kind.clone(), rollout.from, rollout.to, rollout.started_at_ms)
        };
        self.now.as_ref().map(identity) != self.before.rollout.as_ref().map(identity)
    }

    /// Slots move, or will without a user's word.
    pub fn is_active(&self) -> bool {
        self.now.as_ref().is_some_and(|rollout| rollout.state == "running")
    }

    /// How the wait ends because of the rollout, if it does.
    pub fn verdict(&self) -> Option<Verdict> {
        let rollout = self.now.as_ref()?;
        let pb::Rollout { kind, to, message, .. } = rollout;
        let reason = match (rollout.state.as_str(), &self.gave_up) {
            ("awaiting-promotion", _) => return Some(Verdict::Awaiting),
            ("completed", Some(why)) => {
                format!("the update failed and was rolled back to revision {to}: {why}")
            }
            ("paused", Some(why)) => {
                format!("the update failed ({why}) and the rollback is paused: {message}")
            }
            ("paused", None) => format!("the {kind} to revision {to} is paused: {message}"),
            ("paused-by-user", _) => {
                format!("the {kind} to revision {to} is paused by a user; --resume lets it go on")
            }
            _ => return None,
        };
        Some(match self.is_new() {
            true => Verdict::Failing { reason },
            // It was so before, and the change asked for nothing else.
            false => Verdict::StillPaused { reason },
        })
    }

    /// For people; empty when there is nothing to tell.
    pub fn describe(&self) -> String {
        let Some(rollout) = &self.now else { return String::new() };
        match (rollout.state.as_str(), &self.gave_up) {
            ("running", Some(why)) => {
                format!("rolling back to revision {}: {why}", rollout.to)
            }
            _ => String::new(),
        }
    }
}
