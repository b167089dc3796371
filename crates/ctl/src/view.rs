//! Objects as `--output json` shows them. Names and types here are promised to scripts: fields may
//! be added, never renamed, removed or retyped. Texts that are not there are empty, numbers null.

mod node;
mod service;
mod task;

pub use self::node::{ClusterView, NodeView};
pub use self::service::{MountView, PortView, ResourcesView, RestartView, ServiceView};
pub use self::task::TaskView;
