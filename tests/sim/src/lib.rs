//! Whole clusters in one thread: the managers, consensus, the log, dispatch, planners and workers
//! of the product, on simulated clocks, network, disks and containers. A seed decides everything,
//! so a run that fails is replayed by its seed.
//!
//! Reading order: `sim` (a run), `faults` (what goes wrong), `invariants` (what must hold), `client`
//! (who uses the cluster), `manager` and `worker` (the machines), `host` (a process on one), `net`,
//! `os` (clocks and randomness).

pub mod client;
pub mod faults;
pub mod host;
pub mod invariants;
pub mod manager;
pub mod net;
pub mod os;
pub mod rng;
pub mod sim;
pub mod trace;
pub mod worker;
