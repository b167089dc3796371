//! The process beside each container; see `cluster_runtime::shim`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cluster_runtime::shim::main()
}
