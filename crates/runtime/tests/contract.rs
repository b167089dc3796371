//! The contract suite on every runtime of this crate, and what needs a process to kill.
//!
//! The embedded ones need root, cgroups, overlay, `runc`, and the Debian package busybox-static.

#[path = "contract/killed.rs"]
mod killed;

use std::sync::Arc;

use cluster_runtime::Backend;
use cluster_runtime::contract::{Bench, EmbeddedBench, SimulatedBench};

const SHIM: &str = env!("CARGO_BIN_EXE_cluster-shim");

fn libcontainer() -> Arc<dyn Bench> {
    EmbeddedBench::open(SHIM, Backend::Libcontainer)
}

fn runc() -> Arc<dyn Bench> {
    EmbeddedBench::open(SHIM, Backend::Runc)
}

cluster_runtime::contract_tests!(embedded_libcontainer, libcontainer);
cluster_runtime::contract_tests!(embedded_runc, runc);
cluster_runtime::contract_tests!(simulated, SimulatedBench::open);
