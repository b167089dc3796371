//! The cluster state: tables, their indexes and read access. Writing is `apply`'s alone.
//!
//! Tables are persistent maps, so a clone is a consistent view that costs next to nothing, and all
//! iteration is in key order.

mod read;

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::fit::{leaving, unusable};
use crate::id::{NodeId, ServiceId, TaskId};
use crate::node::{Node, NodeState};
use crate::security::Security;
use crate::service::Service;
use crate::spec::Resources;
use crate::task::Task;

/// Everything the managers agree on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Tables", into = "Tables")]
pub struct State {
    pub(crate) tables: Tables,
    // Derived from the tables, rebuilt when a snapshot is read.
    /// The same values as in the table: what looks at a service reads its tasks in one walk.
    slots: OrdMap<(ServiceId, u32, TaskId), Arc<Task>>,
    /// With the service of each: a node that comes or goes concerns services, and to look hundreds of
    /// tasks up to learn which is what a thousand such nodes a second cannot afford.
    node_tasks: OrdMap<(NodeId, TaskId), ServiceId>,
    /// Tasks without a node that are not over.
    unassigned: OrdSet<TaskId>,
    service_names: OrdMap<String, ServiceId>,
    ports: OrdMap<u16, ServiceId>,
    /// Ports that services open on the nodes of their tasks.
    host_ports: OrdSet<(u16, ServiceId)>,
    /// Jobs by the scheduled service that launched them, removed ones that still end included.
    children: OrdSet<(ServiceId, ServiceId)>,
    node_names: OrdMap<String, NodeId>,
    /// Nodes that are down: mostly none, so that to ask it for every task costs nothing.
    down: OrdSet<NodeId>,
    usage: OrdMap<NodeId, Usage>,
    /// The nodes that take tasks, by the number of tasks that hold resources on them: who places one
    /// task does not look at all nodes.
    by_load: OrdSet<(u32, NodeId)>,
}

/// What is stored; the rest of the state follows from it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tables {
    pub cluster: Option<Arc<Cluster>>,
    #[serde(deserialize_with = "read::table")]
    pub nodes: OrdMap<NodeId, Arc<Node>>,
    #[serde(deserialize_with = "read::table")]
    pub services: OrdMap<ServiceId, Arc<Service>>,
    #[serde(deserialize_with = "read::table")]
    pub tasks: OrdMap<TaskId, Arc<Task>>,
    /// Log index of the last change to any endpoint.
    pub endpoints_version: u64,
    /// At the end: states of older releases have none.
    #[serde(deserialize_with = "crate::security::tail::deserialize")]
    pub security: Option<Arc<Security>>,
}

/// What the unfinished tasks of a node hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub reserved: Resources,
    pub tasks: u32,
    /// The part of `reserved` and `tasks` whose tasks are being stopped.
    pub leaving: Resources,
    pub leaving_tasks: u32,
}

impl Usage {
    fn add(&mut self, held: Resources, leaving: bool) {
        self.tasks += 1;
        self.reserved.cpu_nanos += held.cpu_nanos;
        self.reserved.memory_bytes += held.memory_bytes;
        if leaving {
            self.leaving_tasks += 1;
            self.leaving.cpu_nanos += held.cpu_nanos;
            self.leaving.memory_bytes += held.memory_bytes;
        }
    }

    fn subtract(&mut self, held: Resources, leaving: bool) {
        let less = |from: &mut Resources| {
            from.cpu_nanos = from.cpu_nanos.saturating_sub(held.cpu_nanos);
            from.memory_bytes = from.memory_bytes.saturating_sub(held.memory_bytes);
        };
        self.tasks = self.tasks.saturating_sub(1);
        less(&mut self.reserved);
        if leaving {
            self.leaving_tasks = self.leaving_tasks.saturating_sub(1);
            less(&mut self.leaving);
        }
    }
}

impl From<Tables> for State {
    fn from(tables: Tables) -> Self {
        // Shares the values with the state's own; nothing below changes them.
        let known = tables.clone();
        let mut state = State { tables, ..State::default() };
        for node in known.nodes.values() {
            state.index_node(node);
        }
        for service in known.services.values() {
            state.index_service(service);
        }
        for task in known.tasks.values() {
            state.index_task(None, Some(task));
            state.slots.insert(slot_key(task), task.clone());
        }
        state
    }
}

impl From<State> for Tables {
    fn from(state: State) -> Self {
        state.tables
    }
}

/// Reading.
impl State {
    pub fn cluster(&self) -> Option<&Cluster> {
        self.tables.cluster.as_deref()
    }

    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.tables.nodes.get(&id).map(Arc::as_ref)
    }

    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = &Node> {
        self.tables.nodes.values().map(Arc::as_ref)
    }

    /// All nodes with what their tasks hold, in one walk over both.
    pub fn nodes_in_use(&self) -> impl Iterator<Item = (&Node, Usage)> {
        let mut usage = self.usage.iter().peekable();
        self.nodes().map(move |node| {
            while usage.next_if(|(id, _)| **id < node.id).is_some() {}
            let held = usage.next_if(|(id, _)| **id == node.id);
            (node, held.map(|(_, usage)| *usage).unwrap_or_default())
        })
    }

    /// The nodes that take tasks, with the number of tasks that hold resources on them, the emptiest
    /// first; then in the order of ids.
    pub fn nodes_by_load(&self) -> impl Iterator<Item = (&Node, u32)> {
        self.by_load.iter().filter_map(|(tasks, id)| Some((self.node(*id)?, *tasks)))
    }

    pub fn node_count(&self) -> usize {
        self.tables.nodes.len()
    }

    pub fn node_named(&self, name: &str) -> Option<NodeId> {
        self.node_names.get(name).copied()
    }

    pub fn service(&self, id: ServiceId) -> Option<&Service> {
        self.tables.services.get(&id).map(Arc::as_ref)
    }

    /// All services, removed ones whose tasks still end included.
    pub fn services(&self) -> impl DoubleEndedIterator<Item = &Service> {
        self.tables.services.values().map(Arc::as_ref)
    }

    pub fn service_named(&self, name: &str) -> Option<ServiceId> {
        self.service_names.get(name).copied()
    }

    /// Services by name, from the first after a name on; without removed ones.
    pub fn services_named_after(&self, name: &str) -> impl Iterator<Item = &Service> {
        let after = (Bound::Excluded(name), Bound::Unbounded);
        let ids = self.service_names.range::<_, str>(after).map(|(_, id)| *id);
        ids.filter_map(|id| self.service(id))
    }

    pub fn is_down(&self, id: NodeId) -> bool {
        !self.down.is_empty() && self.down.contains(&id)
    }

    /// The service that publishes a port.
    pub fn port_owner(&self, port: u16) -> Option<ServiceId> {
        self.ports.get(&port).copied()
    }

    /// A service other than this one that opens the port on the nodes of its tasks.
    pub fn host_port_owner(&self, port: u16, except: ServiceId) -> Option<&Service> {
        let owners = self.host_ports.range((port, ServiceId(0))..=(port, ServiceId(u64::MAX)));
        let other = owners.map(|(_, id)| *id).find(|id| *id != except)?;
        self.service(other)
    }

    /// The jobs that a scheduled service launched, removed ones whose tasks still end included.
    pub fn children(&self, parent: ServiceId) -> impl Iterator<Item = &Service> {
        let children = (parent, ServiceId(0))..=(parent, ServiceId(u64::MAX));
        self.children.range(children).filter_map(|(_, id)| self.service(*id))
    }

    pub fn task(&self, id: TaskId) -> Option<&Task> {
        self.tables.tasks.get(&id).map(Arc::as_ref)
    }

    pub fn tasks(&self) -> impl DoubleEndedIterator<Item = &Task> {
        self.tables.tasks.values().map(Arc::as_ref)
    }

    /// Tasks by id, from the first after an id on.
    pub fn tasks_after(&self, id: TaskId) -> impl Iterator<Item = &Task> {
        let after = (Bound::Excluded(id), Bound::Unbounded);
        self.tables.tasks.range(after).map(|(_, task)| task.as_ref())
    }

    pub fn task_count(&self) -> usize {
        self.tables.tasks.len()
    }

    /// Tasks of a service by slot, oldest id order within a slot undefined but fixed.
    pub fn tasks_of_service(&self, id: ServiceId) -> impl Iterator<Item = &Task> {
        self.slots
            .range((id, 0, TaskId(0))..=(id, u32::MAX, TaskId(u64::MAX)))
            .map(|(_, task)| task.as_ref())
    }

    /// The highest slot of a service that any task is known of; 0 if there is none.
    pub(crate) fn top_slot(&self, id: ServiceId) -> u32 {
        let slots = (id, 0, TaskId(0))..=(id, u32::MAX, TaskId(u64::MAX));
        self.slots.range(slots).next_back().map_or(0, |((_, slot, _), _)| *slot)
    }

    pub fn tasks_of_slot(&self, id: ServiceId, slot: u32) -> impl Iterator<Item = &Task> {
        self.slots
            .range((id, slot, TaskId(0))..=(id, slot, TaskId(u64::MAX)))
            .map(|(_, task)| task.as_ref())
    }

    pub fn tasks_of_node(&self, id: NodeId) -> impl Iterator<Item = &Task> {
        self.tasks_of_node_from(id, TaskId(0))
    }

    /// By id, from an id on.
    pub fn tasks_of_node_from(&self, id: NodeId, from: TaskId) -> impl Iterator<Item = &Task> {
        self.known_of_node(id, from).filter_map(|(task, _)| self.task(task))
    }

    /// The tasks of a node that belong to some services; the others are not even looked up.
    pub fn tasks_of_node_in(
        &self,
        id: NodeId,
        of: impl Fn(ServiceId) -> bool,
    ) -> impl Iterator<Item = &Task> {
        let mut last = None;
        self.known_of_node(id, TaskId(0)).filter_map(move |(task, service)| {
            // Tasks that were made together follow each other.
            let (_, wanted) = last
                .filter(|(known, _)| *known == service)
                .unwrap_or_else(|| (service, of(service)));
            last = Some((service, wanted));
            wanted.then(|| self.task(task)).flatten()
        })
    }

    /// The services that have tasks on a node.
    pub fn services_of_node(&self, id: NodeId) -> BTreeSet<ServiceId> {
        let mut services = BTreeSet::new();
        let mut last = None;
        for (_, service) in self.known_of_node(id, TaskId(0)) {
            if last.replace(service) != Some(service) {
                services.insert(service);
            }
        }
        services
    }

    fn known_of_node(
        &self,
        id: NodeId,
        from: TaskId,
    ) -> impl Iterator<Item = (TaskId, ServiceId)> + '_ {
        let tasks = self.node_tasks.range((id, from)..=(id, TaskId(u64::MAX)));
        tasks.map(|((_, task), service)| (*task, *service))
    }

    /// The slot of a task has to move for the service's present revision.
    pub fn is_outdated(&self, service: &Service, task: &Task) -> bool {
        // Mostly it runs the present revision, whatever its node is.
        task.revision != service.revision
            && service.is_outdated(task.revision, task.node.and_then(|node| self.node(node)))
    }

    /// Tasks that wait for a node.
    pub fn unassigned_tasks(&self) -> impl Iterator<Item = &Task> {
        self.unassigned.iter().filter_map(|task| self.task(*task))
    }

    pub fn usage(&self, id: NodeId) -> Usage {
        self.usage.get(&id).copied().unwrap_or_default()
    }

    pub fn endpoints_version(&self) -> u64 {
        self.tables.endpoints_version
    }
}

/// Writing, for `apply`: each call keeps table and indexes in step.
impl State {
    pub(crate) fn put_node(&mut self, node: Arc<Node>) {
        if let Some(old) = self.tables.nodes.get(&node.id) {
            self.node_names.remove(&old.name);
        }
        self.index_node(&node);
        self.tables.nodes.insert(node.id, node);
    }

    fn index_node(&mut self, node: &Node) {
        self.node_names.insert(node.name.clone(), node.id);
        if node.state == NodeState::Down {
            self.down.insert(node.id);
        } else if !self.down.is_empty() {
            self.down.remove(&node.id);
        }
        let load = (self.usage(node.id).tasks, node.id);
        if unusable(node).is_none() {
            self.by_load.insert(load);
        } else {
            self.by_load.remove(&load);
        }
    }

    pub(crate) fn remove_node(&mut self, id: NodeId) {
        if let Some(old) = self.tables.nodes.remove(&id) {
            self.node_names.remove(&old.name);
        }
        self.down.remove(&id);
        self.by_load.remove(&(self.usage(id).tasks, id));
        self.usage.remove(&id);
    }

    pub(crate) fn put_service(&mut self, service: Arc<Service>) {
        self.unindex_service(service.id);
        self.index_service(&service);
        self.tables.services.insert(service.id, service);
    }

    fn index_service(&mut self, service: &Service) {
        self.children.extend(service.parent.map(|parent| (parent, service.id)));
        if service.removed {
            return;
        }
        let host_ports = service.spec.task.host_ports.iter();
        self.host_ports.extend(host_ports.map(|port| (port.published, service.id)));
        self.service_names.insert(service.spec.name.clone(), service.id);
        for port in &service.ports {
            self.ports.insert(port.published, service.id);
        }
    }

    pub(crate) fn remove_service(&mut self, id: ServiceId) {
        self.unindex_service(id);
        self.tables.services.remove(&id);
    }

    fn unindex_service(&mut self, id: ServiceId) {
        let Some(old) = self.tables.services.get(&id) else { return };
        if let Some(parent) = old.parent {
            self.children.remove(&(parent, id));
        }
        if old.removed {
            return;
        }
        for port in &old.spec.task.host_ports {
            self.host_ports.remove(&(port.published, id));
        }
        self.service_names.remove(&old.spec.name);
        for port in &old.ports {
            self.ports.remove(&port.published);
        }
    }

    /// Indexes are written only where they change: most writes move a task's state and nothing else.
    pub(crate) fn put_task(&mut self, task: Arc<Task>) {
        let old = self.tables.tasks.insert(task.id, task.clone());
        self.index_task(old.as_deref(), Some(&task));
        if let Some(old) = old.filter(|old| slot_key(old) != slot_key(&task)) {
            self.slots.remove(&slot_key(&old));
        }
        self.slots.insert(slot_key(&task), task);
    }

    pub(crate) fn remove_task(&mut self, id: TaskId) {
        let Some(old) = self.tables.tasks.remove(&id) else { return };
        self.index_task(Some(&old), None);
        self.slots.remove(&slot_key(&old));
    }

    /// What is known of nodes and of waiting tasks, when a task becomes another.
    fn index_task(&mut self, old: Option<&Task>, new: Option<&Task>) {
        let node = |task: Option<&Task>| task.and_then(|task| Some((task.node?, task.id)));
        if node(old) != node(new) {
            if let Some(known) = node(old) {
                self.node_tasks.remove(&known);
            }
            self.node_tasks.extend(node(new).zip(new.map(|task| task.service)));
        }
        let waits = |task: &&Task| task.node.is_none() && !task.status.state.is_terminal();
        match (old.filter(waits), new.filter(waits)) {
            (Some(old), None) => drop(self.unassigned.remove(&old.id)),
            (None, Some(new)) => drop(self.unassigned.insert(new.id)),
            _ => {}
        }
        let holds = |task: &Task| {
            let node = task.node.filter(|_| task.holds_resources())?;
            Some((node, task.service, task.revision, leaving(task)))
        };
        let (old, new) = (old.map(|task| (task, holds(task))), new.map(|task| (task, holds(task))));
        if old.and_then(|(_, holds)| holds) == new.and_then(|(_, holds)| holds) {
            return;
        }
        if let Some((task, Some((node, .., leaving)))) = old {
            let held = self.reservation(task);
            self.change_usage(node, |usage| usage.subtract(held, leaving));
        }
        if let Some((task, Some((node, .., leaving)))) = new {
            let held = self.reservation(task);
            self.change_usage(node, |usage| usage.add(held, leaving));
        }
    }

    fn change_usage(&mut self, node: NodeId, change: impl FnOnce(&mut Usage)) {
        let usage = self.usage.entry(node).or_default();
        let before = usage.tasks;
        change(usage);
        let after = usage.tasks;
        // Nothing held is not remembered, or two equal states would differ.
        if *usage == Usage::default() {
            self.usage.remove(&node);
        }
        // A node that takes no tasks, or was removed, may still have some.
        if before != after && self.by_load.remove(&(before, node)).is_some() {
            self.by_load.insert((after, node));
        }
    }

    /// What a task reserves: its revision's reservation. Revisions outlive their tasks, so this
    /// answers the same when the task is put and when it is taken away.
    fn reservation(&self, task: &Task) -> Resources {
        self.service(task.service)
            .and_then(|service| service.task_spec(task.revision))
            .map(|spec| spec.reservations)
            .unwrap_or_default()
    }
}

fn slot_key(task: &Task) -> (ServiceId, u32, TaskId) {
    (task.service, task.slot, task.id)
}
