//! Services: create, update, remove; ports are allocated here.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Step;
use crate::command::{Refusal, Reply};
use crate::id::{ServiceId, TaskId};
use crate::service::{PublishedPort, REVISIONS_KEPT, Service};
use crate::spec::ServiceSpec;
use crate::task::{Desired, Reason};
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
        validate::service(spec).map_err(Refusal::Invalid)?;
        if self.state.service(id).is_some() {
            return Err(Refusal::IdTaken(id.to_string()));
        }
        if self.state.service_named(&spec.name).is_some() {
            return Err(Refusal::NameTaken { kind: "service".into(), name: spec.name.clone() });
        }
        let ports = self.allocate_ports(id, spec, &[])?;
        self.write_service(Service {
            id,
            version: self.index,
            created_at_ms: at_ms,
            updated_at_ms: at_ms,
            spec: spec.clone(),
            revision: 1,
            revisions: BTreeMap::from([(1, Arc::new(spec.task.clone()))]),
            ports,
            removed: false,
        });
        Ok(Reply::Service { id, version: self.index })
    }

    pub(super) fn update_service(
        &mut self,
        id: ServiceId,
        version: u64,
        spec: &Arc<ServiceSpec>,
        at_ms: u64,
    ) -> Result<Reply, Refusal> {
        let mut service = self.existing_service(id)?.clone();
        if service.version != version {
            return Err(Refusal::VersionMoved {
                kind: "service".into(),
                read: version,
                current: service.version,
            });
        }
        validate::service(spec).map_err(Refusal::Invalid)?;
        if service.spec.name != spec.name {
            return Err(Refusal::Immutable { field: "name".into() });
        }
        service.ports = self.allocate_ports(id, spec, &service.ports)?;
        if service.spec.task != spec.task {
            service.revision += 1;
            service.revisions.insert(service.revision, Arc::new(spec.task.clone()));
            self.drop_old_revisions(&mut service);
        }
        service.spec = spec.clone();
        service.version = self.index;
        service.updated_at_ms = at_ms;
        self.write_service(service);
        Ok(Reply::Service { id, version: self.index })
    }

    pub(super) fn remove_service(&mut self, id: ServiceId) -> Result<Reply, Refusal> {
        let mut service = self.existing_service(id)?.clone();
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
        Ok(Reply::Done)
    }

    fn existing_service(&self, id: ServiceId) -> Result<&Service, Refusal> {
        let missing = || Refusal::NotFound { kind: "service".into(), id: id.to_string() };
        self.state.service(id).filter(|service| !service.removed).ok_or_else(missing)
    }

    fn write_service(&mut self, service: Service) {
        let old = self.state.service(service.id);
        if old.map(|old| (&old.ports, old.removed)) != Some((&service.ports, service.removed)) {
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
        for wanted in spec.ports.iter().filter(|port| port.published != 0) {
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
        in_use.sort_unstable();
        in_use.dedup();
        while service.revisions.len() > REVISIONS_KEPT {
            let oldest_free = service
                .revisions
                .keys()
                .copied()
                .find(|number| in_use.binary_search(number).is_err());
            match oldest_free {
                Some(number) if number < service.revision => service.revisions.remove(&number),
                _ => break,
            };
        }
    }
}
