//! Endpoints: which tasks answer on which published port. Computed from the state, so that every
//! manager hands the same to its workers.

use crate::id::{NodeId, ServiceId, TaskId};
use crate::node::NodeState;
use crate::service::{PublishedPort, Service};
use crate::state::State;
use crate::task::Task;

/// Where new connections to one service may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEndpoints {
    pub service: ServiceId,
    pub name: String,
    pub ports: Vec<PublishedPort>,
    pub backends: Vec<Backend>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    pub task: TaskId,
    pub node: NodeId,
    pub address: String,
    pub mesh_port: u16,
}

/// Whether clients reach a service by a port of the mesh.
pub fn is_published(service: &Service) -> bool {
    !service.removed && !service.ports.is_empty()
}

/// The endpoints of one service; none when it publishes nothing or is gone.
pub fn of_service(state: &State, id: ServiceId) -> Option<ServiceEndpoints> {
    let service = state.service(id).filter(|service| is_published(service))?;
    let backends = state.tasks_of_service(id).filter_map(|task| backend(state, task));
    Some(ServiceEndpoints {
        service: id,
        name: service.spec.name.clone(),
        ports: service.ports.clone(),
        backends: backends.collect(),
    })
}

/// Where new connections to a task may go; none when it takes none.
pub fn backend(state: &State, task: &Task) -> Option<Backend> {
    if !task.serves() {
        return None;
    }
    let node = state.node(task.node?).filter(|node| node.state == NodeState::Ready)?;
    Some(Backend {
        task: task.id,
        node: node.id,
        address: node.description.address.clone(),
        mesh_port: node.description.mesh_port,
    })
}

/// Ids of all services that publish a port.
pub fn publishing_services(state: &State) -> impl Iterator<Item = ServiceId> + '_ {
    state.services().filter(|service| is_published(service)).map(|service| service.id)
}
