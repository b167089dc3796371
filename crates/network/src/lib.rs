//! Node-local networking of a worker: the bridge its containers live on, and
//! the routing mesh that carries published ports to them.
//!
//! Both halves are fed with whole snapshots or plain ids and know nothing of
//! the cluster's objects: no specs, no state machine, no gRPC. What a worker
//! was told by a manager enters here as [`mesh::Endpoints`]; what runs on the
//! machine is read back from the kernel, never from a file of our own.

pub mod bridge;
pub mod mesh;

pub use bridge::{Attachment, Bridge, BridgeConfig, Notice, Subnet, survey};
pub use mesh::{Backend, Endpoints, Mesh, MeshConfig, MeshStatus, MeshTls, PublishedPort};
