//! The stand-in for `cluster-shim` of this crate's own tests, which run real containers.

fn main() -> std::process::ExitCode {
    cluster_runtime::shim::main()
}
