//! Running containers on one node.
//!
//! The crate holds the [`Runtime`] trait, the values that cross it, and what stands behind it: the
//! embedded runtime (no daemon; one small `cluster-shim` process per container, see [`shim`]) and a
//! simulated one for scale tests. One contract suite (feature `testing`) runs on all of them.
//!
//! What never lives here: images (the caller ensures them through `cluster-image` and hands over
//! unpacked layers), networks (the caller wires a namespace and hands over its path), restart
//! policy, and anything that knows about services, slots or managers.

mod cgroup;
#[cfg(feature = "testing")]
pub mod contract;
pub mod embedded;
pub mod error;
pub mod exec;
pub mod logs;
pub mod observe;
mod process;
pub mod runtime;
pub mod shim;
pub mod signal;
pub mod simulated;
pub mod spec;
mod sys;

pub use embedded::{EmbeddedConfig, EmbeddedRuntime};
pub use error::{Error, Result};
pub use exec::{ExecExit, ExecSession, ExecSpec};
pub use logs::{LogLine, LogQuery, LogStream, OutputStream};
pub use observe::{
    Caps, Created, Event, EventStream, Exit, ExitSource, Observed, Started, State, Stats,
};
pub use runtime::Runtime;
pub use shim::Backend;
pub use signal::Signal;
pub use simulated::{ExecAnswer, Script, SimulatedRuntime};
pub use spec::{ContainerId, ContainerSpec, ImageRoot, Limits, LogRotation, Mount};
