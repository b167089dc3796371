//! Objects as `--output json` shows them. Names and types here are promised to scripts: fields may
//! be added, never renamed, removed or retyped. Texts that are not there are empty, numbers null.

mod history;
mod node;
mod policy;
mod service;
mod task;

pub use self::history::{EventView, ExplainView, RevisionView, RolloutView, RunView, SlotView};
pub use self::node::{ClusterView, GenericView, ManagerView, NodeView};
pub use self::policy::{
    AffinityView, DisconnectView, HealthView, ProbeView, ScheduleView, UpdateView,
};
pub use self::service::{
    MountView, PortView, ResourcesView, RestartView, ServiceView, TaskSpecView,
};
pub use self::task::{TaskView, task_name};
