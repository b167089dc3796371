//! What every daemon of ours needs and nobody wants to write twice: telemetry, a supervised tree
//! of tasks, shutdown on signals, back-off, a lock on the data directory, durable small files,
//! options from the environment, and what is told to systemd.
//!
//! Nothing here knows what a cluster is. The crate depends on none of ours.

mod backoff;
mod blocking;
mod build;
mod chain;
pub mod fsx;
mod lock;
mod panics;
mod scope;
pub mod settings;
pub mod shutdown;
pub mod systemd;
pub mod telemetry;

pub use backoff::Backoff;
pub use blocking::{Background, blocking};
pub use build::{BuildInfo, build_info};
pub use chain::chain;
pub use lock::{DataDirLock, Error as LockError};
pub use scope::{Failure, OnError, Outcome, Scope, Stuck};
