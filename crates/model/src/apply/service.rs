//! Services: create, update, remove; ports are allocated here.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster_mutants::{Mutant, is};

use super::{Step, job};
use crate::command::{Refusal, Reply};
use crate::id::{ServiceId, TaskId};
use crate::service::{JobRun, PublishedPort, REVISIONS_KEPT, Revision, RolloutKind, Service};
use crate::spec::ServiceSpec;
use crate::task::{Desired, Reason, Task};
use crate::validate;

/// Ports handed out to services that ask for any.
const DYNAMIC_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;

impl Step<'_> {
    pub(super) fn create_service(
        &mut self,
        id: ServiceId,
        spec: &Arc<ServiceSpec>,
        at_ms: u64,
    ) -> Result<Reply, Refusal> {
        self.put_new_service(id, spec, at_ms, None)?;
        Ok(Reply::Service { id, version: self.index })
    }

    /// A job that a schedule launches; answers its name.
    pub(super) fn create_child(
        &mut self,
        id: ServiceId,
        spec: &Arc<ServiceSpec>,
        at_ms: u64,
        parent: ServiceId,
    ) -> Result<String, Refusal> {
        self.put_new_service(id, spec, at_ms, Some(parent))?;
        Ok(spec.name.clone())
    }

    fn put_new_service(
        &mut self,
        id: ServiceId,
        spec: &Arc<ServiceSpec>,
        at_ms: u64,
        parent: Option<ServiceId>,
    ) -> Result<(), Refusal> {
        validate::service(spec).map_err(Refusal::Invalid)?;
        job::check_scheduled(spec).map_err(Refusal::Invalid)?;
        if self.state.service(id).is_some() {
            return Err(Refusal::IdTaken(id.to_string()));
        }
        if self.state.service_named(&spec.name).is_some() {
            return Err(Refusal::NameTaken { kind: "service".into(), name: spec.name.clone() });
        }
        let ports = self.allocate_ports(id, spec, &[])?;
        let first = Revision { task: Arc::new(spec.task.clone()), created_at_ms: at_ms };
        let mut service = Service {
            id,
            version: self.index,
            created_at_ms: at_ms,
            updated_at_ms: at_ms,
            spec: spec.clone(),
            revision: 1,
            revisions: BTreeMap::from([(1, first)]),
            previous: None,
            rollout: None,
            ports,
            removed: false,
            parent,
            run: JobRun { started_at_ms: at_ms, ..JobRun::default() },
            last_launch_ms: at_ms,
            events: Vec::new(),
            disconnect_before: None,
        };
        service.note(at_ms, "created");
        self.write_service(service);
        Ok(())
    }

    /// A service that has not changed since a user read it.
    pub(super) fn service_at(&self, id: ServiceId, version: u64) -> Result<Service, Refusal> {
        let service = self.existing_service(id)?;
        if service.version != version && !is(Mutant::ForgottenCompare) {
            return Err(Refusal::VersionMoved {
                kind: "service".into(),
                read: version,
                current: service.version,
            });
        }
        Ok(service.clone())
    }

    pub(super) fn update_service(
        &mut self,
        id: ServiceId,
        version: u64,
        spec: &Arc<ServiceSpec>,
        at_ms: u64,
        give_up: &[TaskId],
    ) -> Result<Reply, Refusal> {
        let mut service = self.service_at(id, version)?;
        validate::service(spec).map_err(Refusal::Invalid)?;
        if service.spec.name != spec.name {
            return Err(Refusal::Immutable { field: "name".into() });
        }
        if std::mem::discriminant(&service.spec.mode) != std::mem::discriminant(&spec.mode) {
            return Err(Refusal::Immutable { field: "mode".into() });
        }
        if service.spec.job.schedule.is_some() != spec.job.schedule.is_some() {
            return Err(Refusal::Immutable { field: "job.schedule".into() });
        }
        self.check_given_up(&service, spec, give_up)?;
        service.ports = self.allocate_ports(id, spec, &service.ports)?;
        let (before, wanted) = (service.spec.replicas(), spec.replicas());
        if before != wanted {
            service.note(at_ms, format!("scaled from {before} to {wanted}"));
        }
        if service.spec.disconnect != spec.disconnect {
            service.disconnect_before = Some((service.spec.disconnect, self.index));
        }
        let new_task = service.spec.task != spec.task;
        Self::reopen_if_more(&mut service, spec, at_ms);
        // Moments of a schedule that was not in force are not made up for.
        let moments = |spec: &ServiceSpec| {
            let schedule = spec.job.schedule.as_ref()?;
            Some((schedule.cron.clone(), schedule.time_zone.clone()))
        };
        if moments(&service.spec) != moments(spec) {
            service.last_launch_ms = at_ms;
        }
        service.spec = spec.clone();
        if new_task {
            let number = service.revisions.keys().next_back().map_or(1, |last| last + 1);
            let task = Arc::new(spec.task.clone());
            service.revisions.insert(number, Revision { task, created_at_ms: at_ms });
            service.note(at_ms, format!("updated by a user to revision {number}"));
            self.move_to(&mut service, number, RolloutKind::Update, at_ms, "begun by an update");
            self.drop_old_revisions(&mut service);
        }
        service.version = self.index;
        service.updated_at_ms = at_ms;
        let new_run = new_task && service.spec.mode.is_job();
        self.write_service(service);
        if new_run {
            self.end_run(id);
        }
        for task in give_up {
            self.give_up_slot(id, *task);
        }
        Ok(Reply::Service { id, version: self.index })
    }

    fn check_given_up(
        &self,
        service: &Service,
        spec: &ServiceSpec,
        give_up: &[TaskId],
    ) -> Result<(), Refusal> {
        let refuse = |problem: String| {
            Err(Refusal::Invalid(validate::Invalid { field: "remove".into(), problem }))
        };
        let fewer = service.spec.replicas().saturating_sub(spec.replicas()) as usize;
        if give_up.len() > fewer {
            return refuse(format!(
                "names {} tasks, but the service shrinks by {fewer}",
                give_up.len()
            ));
        }
        for id in give_up {
            let task = self.state.task(*id).filter(|task| task.service == service.id);
            if !task.is_some_and(Task::fills_slot) {
                return refuse(format!(
                    "task `{id}` is no present task of service `{}`",
                    service.spec.name
                ));
            }
        }
        Ok(())
    }

    fn give_up_slot(&mut self, service: ServiceId, task: TaskId) {
        let Some(slot) = self.state.task(task).map(|task| task.slot) else { return };
        let tasks: Vec<Task> = self.state.tasks_of_slot(service, slot).cloned().collect();
        for mut task in tasks.into_iter().filter(|task| task.desired != Desired::Remove) {
            task.desired = Desired::Remove;
            task.reason = Reason::ScaleDown;
            self.write_task(task);
        }
    }

    pub(super) fn remove_service(
        &mut self,
        id: ServiceId,
        version: Option<u64>,
    ) -> Result<Reply, Refusal> {
        let mut service = match version {
            Some(version) => self.service_at(id, version)?,
            None => self.existing_service(id)?.clone(),
        };
        let scheduled = service.spec.job.schedule.is_some();
        let tasks: Vec<TaskId> = self.state.tasks_of_service(id).map(|task| task.id).collect();
        for task in &tasks {
            let Some(mut task) = self.state.task(*task).cloned() else { continue };
            task.desired = Desired::Remove;
            task.reason = Reason::ServiceRemoved;
            self.write_task(task);
        }
        if self.state.tasks_of_service(id).next().is_none() {
            if !service.ports.is_empty() {
                self.state.tables.endpoints_version = self.index;
            }
            self.state.remove_service(id);
        } else {
            service.removed = true;
            service.version = self.index;
            self.write_service(service);
        }
        if scheduled {
            self.remove_children(id);
        }
        Ok(Reply::Done)
    }

    pub(super) fn existing_service(&self, id: ServiceId) -> Result<&Service, Refusal> {
        let missing = || Refusal::NotFound { kind: "service".into(), id: id.to_string() };
        self.state.service(id).filter(|service| !service.removed).ok_or_else(missing)
    }

    pub(super) fn write_service(&mut self, service: Service) {
        let old = self.state.service(service.id);
        let ports = |service: &Service| match service.removed {
            true => Vec::new(),
            false => service.ports.clone(),
        };
        if old.map(ports).unwrap_or_default() != ports(&service) {
            self.state.tables.endpoints_version = self.index;
        }
        self.state.put_service(Arc::new(service));
    }

    /// The ports a spec gets: fixed ones as asked unless another service holds them; for the others
    /// the one this service had for the same target, else the lowest free one.
    fn allocate_ports(
        &self,
        id: ServiceId,
        spec: &ServiceSpec,
        held: &[PublishedPort],
    ) -> Result<Vec<PublishedPort>, Refusal> {
        let mut ports: Vec<PublishedPort> = Vec::with_capacity(spec.ports.len());
        for port in &spec.task.host_ports {
            let owner = self.state.port_owner(port.published).filter(|owner| *owner != id);
            if let Some(owner) = owner.and_then(|owner| self.state.service(owner)) {
                return Err(Refusal::PortTaken {
                    port: port.published,
                    service: owner.spec.name.clone(),
                });
            }
        }
        // No worker can listen where a task of its node does.
        let on_hosts = |port: u16| self.state.host_port_owner(port, id);
        for wanted in spec.ports.iter().filter(|port| port.published != 0) {
            if let Some(owner) = on_hosts(wanted.published) {
                return Err(Refusal::PortTaken {
                    port: wanted.published,
                    service: owner.spec.name.clone(),
                });
            }
            let owner = self.state.port_owner(wanted.published).filter(|owner| *owner != id);
            if let Some(owner) = owner.and_then(|owner| self.state.service(owner)) {
                return Err(Refusal::PortTaken {
                    port: wanted.published,
                    service: owner.spec.name.clone(),
                });
            }
            ports.push(PublishedPort { published: wanted.published, target: wanted.target });
        }
        for wanted in spec.ports.iter().filter(|port| port.published == 0) {
            let free = |port: &u16| {
                !ports.iter().any(|taken| taken.published == *port)
                    && on_hosts(*port).is_none()
                    && self.state.port_owner(*port).is_none_or(|owner| owner == id)
            };
            let kept = held.iter().find(|port| {
                port.target == wanted.target
                    && DYNAMIC_PORTS.contains(&port.published)
                    && free(&port.published)
            });
            let published = match kept {
                Some(port) => port.published,
                None => DYNAMIC_PORTS.clone().find(|port| free(port)).ok_or(Refusal::NoFreePort)?,
            };
            ports.push(PublishedPort { published, target: wanted.target });
        }
        Ok(ports)
    }

    /// Keeps the newest revisions and those that tasks still use.
    fn drop_old_revisions(&self, service: &mut Service) {
        let mut in_use: Vec<u32> =
            self.state.tasks_of_service(service.id).map(|task| task.revision).collect();
        in_use.extend(service.previous);
        in_use.extend(service.rollout.as_ref().map(|rollout| rollout.from));
        in_use.push(service.revision);
        in_use.sort_unstable();
        in_use.dedup();
        while service.revisions.len() > REVISIONS_KEPT {
            let oldest_free = service
                .revisions
                .keys()
                .copied()
                .find(|number| in_use.binary_search(number).is_err());
            match oldest_free {
                Some(number) => service.revisions.remove(&number),
                None => break,
            };
        }
    }
}
