//! The harness of the black-box tests: a lab of real daemons, driven through `clusterctl` as a user
//! would, watched through its JSON, through HTTP, and through the kernel's list of processes.
//!
//! Waits are bounded and on values. A lab that a test leaves is taken down and must leave nothing.

pub mod cluster;
pub mod http;
pub mod image;
pub mod install;
pub mod manager;
pub mod traffic;
pub mod unit;
pub mod wait;

pub use cluster::{Cluster, Ran, Task};
pub use traffic::Traffic;
pub use wait::{eventually, until};
