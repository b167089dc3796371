//! The routing mesh: every worker accepts connections on every published port
//! and carries them to a task, wherever it runs.

mod config;
mod counters;
mod endpoints;
mod preamble;
mod tls;

pub use config::{Error, Limits, MeshConfig, MeshStatus, PortStatus};
pub use counters::CountersSnapshot;
pub use endpoints::{Backend, Endpoints, PublishedPort};
pub use tls::{BoxStream, Handshake, MeshStream, MeshTls};
