//! Moves between revisions: who starts them, how users steer them, what planners may write.

use std::sync::Arc;

use super::Step;
use crate::command::{Refusal, Reply, Steer, WRITTEN_BY_THIS_PLAN};
use crate::id::ServiceId;
use crate::service::{Rollout, RolloutKind, RolloutState, Service};
use crate::task::{Reason, Task};
use crate::validate::{self, Invalid};

impl Step<'_> {
    pub(super) fn roll_back_service(
        &mut self,
        id: ServiceId,
        version: u64,
        to: Option<u32>,
        at_ms: u64,
    ) -> Result<Reply, Refusal> {
        let mut service = self.service_at(id, version)?;
        let Some(to) = to.or(service.previous) else {
            let problem = format!("service `{}` has no earlier revision", service.spec.name);
            return Err(Refusal::NotNow(problem));
        };
        let Some(task) = service.task_spec(to) else {
            let kept: Vec<String> = service.revisions.keys().map(u32::to_string).collect();
            return Err(Refusal::Invalid(Invalid {
                field: "to".into(),
                problem: format!("revision {to} is not kept; there are {}", kept.join(", ")),
            }));
        };
        if to == service.revision || **task == service.spec.task {
            let problem = format!("revision {to} is what the service already asks for");
            return Err(Refusal::NotNow(problem));
        }
        service.note(at_ms, format!("rolled back by a user to revision {to}"));
        self.move_to(&mut service, to, RolloutKind::Rollback, at_ms, "asked for by a user");
        // What was valid then may contradict what was changed since, such as a port.
        validate::service(&service.spec).map_err(Refusal::Invalid)?;
        service.version = self.index;
        service.updated_at_ms = at_ms;
        let new_run = service.spec.mode.is_job();
        self.write_service(service);
        if new_run {
            self.end_run(id);
        }
        Ok(Reply::Service { id, version: self.index })
    }

    pub(super) fn steer_rollout(
        &mut self,
        id: ServiceId,
        steer: Steer,
        at_ms: u64,
    ) -> Result<Reply, Refusal> {
        let mut service = self.existing_service(id)?.clone();
        let name = service.spec.name.clone();
        let canaries = service.canaries();
        let not_now = |what: &str| Refusal::NotNow(format!("service `{name}` {what}"));
        let Some(rollout) = service.rollout.as_mut().filter(|rollout| !rollout.state.is_over())
        else {
            return Err(not_now("has no update under way"));
        };
        let paused = matches!(rollout.state, RolloutState::PausedByUser | RolloutState::Paused);
        let said = match steer {
            Steer::Pause if paused => return Err(not_now("is paused already")),
            Steer::Pause => {
                rollout.state = RolloutState::PausedByUser;
                "paused by a user"
            }
            Steer::Resume if !paused => return Err(not_now("is not paused")),
            Steer::Resume => {
                rollout.state = RolloutState::Running;
                // What failed before does not count again.
                rollout.started_at_ms = at_ms;
                rollout.failures = 0;
                rollout.done = 0;
                "resumed by a user"
            }
            Steer::Promote if canaries == 0 => {
                return Err(not_now("has no canaries that wait for promotion"));
            }
            Steer::Promote => {
                rollout.state = RolloutState::Running;
                rollout.promoted = true;
                // Whoever finds the canaries good has seen what failed.
                rollout.started_at_ms = at_ms;
                rollout.failures = 0;
                "canaries promoted by a user"
            }
        };
        rollout.since_ms = at_ms;
        rollout.progress_at_ms = 0;
        rollout.message = said.into();
        rollout.version = self.index;
        service.note(at_ms, said);
        self.write_service(service);
        Ok(Reply::Service { id, version: self.index })
    }

    /// What the planner says of a rollout.
    pub(super) fn set_rollout(
        &mut self,
        at_ms: u64,
        id: ServiceId,
        version: u64,
        rollout: &Rollout,
    ) -> bool {
        let Some(mut service) = self.rolling(id, version) else { return false };
        let Some(old) = &service.rollout else { return false };
        let told = (old.state, &old.message) != (rollout.state, &rollout.message);
        let mut rollout = rollout.clone();
        rollout.version = self.index;
        if told {
            service.note(at_ms, format!("{}: {}", describe(&rollout), rollout.message));
        }
        service.rollout = Some(rollout);
        self.write_service(service);
        true
    }

    /// A rollout failed and its policy wants the revision before it.
    pub(super) fn roll_back(
        &mut self,
        at_ms: u64,
        id: ServiceId,
        version: u64,
        message: &Arc<str>,
    ) -> bool {
        let Some(service) = self.rolling(id, version) else { return false };
        let Some(rollout) = service.rollout.as_ref() else { return false };
        let from = rollout.from;
        if rollout.kind != RolloutKind::Update || !service.revisions.contains_key(&from) {
            return false;
        }
        let mut back = service.clone();
        back.note(at_ms, format!("rolled back to revision {from}: {message}"));
        self.move_to(&mut back, from, RolloutKind::Rollback, at_ms, message);
        if let Err(invalid) = validate::service(&back.spec) {
            let why = format!("{message}; no way back to revision {from}: {invalid}");
            self.pause_rollout(service, at_ms, why);
            return true;
        }
        let mut service = back;
        // Nobody means the revision that failed when they ask for the one before.
        service.previous = None;
        // The spec changed under whoever read it before.
        service.version = self.index;
        service.updated_at_ms = at_ms;
        self.write_service(service);
        true
    }

    fn pause_rollout(&mut self, mut service: Service, at_ms: u64, why: String) {
        service.note(at_ms, format!("paused: {why}"));
        if let Some(rollout) = &mut service.rollout {
            rollout.state = RolloutState::Paused;
            rollout.since_ms = at_ms;
            rollout.message = why.into();
            rollout.version = self.index;
        }
        self.write_service(service);
    }

    fn rolling(&self, id: ServiceId, version: u64) -> Option<Service> {
        let service = self.existing_service(id).ok()?;
        let rollout = service.rollout.as_ref()?;
        let expected = match version {
            WRITTEN_BY_THIS_PLAN => self.index,
            read => read,
        };
        (rollout.version == expected && !rollout.state.is_over()).then(|| service.clone())
    }

    /// Makes a kept revision the one that tasks should run, and begins the rollout to it. A rollout
    /// that was not over is given up: where it came from stays where to go back to.
    pub(super) fn move_to(
        &self,
        service: &mut Service,
        to: u32,
        kind: RolloutKind,
        at_ms: u64,
        message: &str,
    ) {
        let unfinished = service.rollout.as_ref().filter(|rollout| !rollout.state.is_over());
        let from = match kind {
            // A revision that was being left because it failed is none to go back to.
            RolloutKind::Update => match unfinished {
                Some(Rollout { kind: RolloutKind::Update, from, .. }) => *from,
                Some(_) | None => service.revision,
            },
            RolloutKind::Rollback => service.revision,
        };
        service.previous = Some(from);
        service.revision = to;
        if let Some(task) = service.task_spec(to).cloned()
            && service.spec.task != *task
        {
            let mut spec = (*service.spec).clone();
            spec.task = (*task).clone();
            service.spec = Arc::new(spec);
        }
        if service.spec.mode.is_job() {
            Self::reopen_job(service, at_ms);
            service.rollout = None;
            return;
        }
        let total = self.slots_to_move(service);
        service.rollout = Some(Rollout {
            version: self.index,
            kind,
            state: if total == 0 { RolloutState::Completed } else { RolloutState::Running },
            from,
            to,
            started_at_ms: at_ms,
            since_ms: at_ms,
            total,
            failures: 0,
            done: 0,
            // Until the leader has seen it: its clock and that of who took the request may differ.
            progress_at_ms: 0,
            promoted: false,
            message: if total == 0 { "no task had to move".into() } else { message.into() },
        });
    }

    /// Slots whose task has to make way for another.
    fn slots_to_move(&self, service: &Service) -> u32 {
        let tasks: Vec<&Task> = self.state.tasks_of_service(service.id).collect();
        let moves = |all: &&[&Task]| {
            let slot: Vec<&Task> = all.iter().copied().filter(|task| task.is_wanted()).collect();
            if slot.is_empty() {
                // Spent under another revision: the new one tries it again.
                let spent = |task: &&&Task| task.reason == Reason::Exhausted;
                return all.iter().any(|task| spent(&task) && !service.is_current(task.revision));
            }
            // What ended counts only in a slot that nothing fills.
            let filled = slot.iter().any(|task| task.fills_slot());
            let counts = |task: &Task| !filled || task.fills_slot();
            let beside = |task: &Task| {
                slot.iter().any(|other| counts(other) && task.extras.beside == Some(other.id))
            };
            slot.iter()
                .any(|task| counts(task) && !beside(task) && self.state.is_outdated(service, task))
        };
        super::count(tasks.chunk_by(|a, b| a.slot == b.slot).filter(moves).count())
    }
}

fn describe(rollout: &Rollout) -> String {
    let kind = match rollout.kind {
        RolloutKind::Update => "update",
        RolloutKind::Rollback => "rollback",
    };
    let state = match rollout.state {
        RolloutState::Running => "goes on",
        RolloutState::AwaitingPromotion => "waits for promotion",
        RolloutState::PausedByUser | RolloutState::Paused => "paused",
        RolloutState::Completed => "completed",
    };
    format!("{kind} to revision {} {state}", rollout.to)
}
