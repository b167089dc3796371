//! Whole groups in one process, on loopback without TLS: writes, failover, restarts, snapshots.

mod cluster;
pub(crate) mod fixture;
mod seats;
mod store;
mod upgrade;
