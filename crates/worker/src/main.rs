//! The worker's binary; all of it is in the library.

fn main() -> std::process::ExitCode {
    cluster_worker::cli::main()
}
