//! The program `clusterctl`; everything is in the library.

fn main() -> std::process::ExitCode {
    cluster_ctl::main()
}
