//! `cluster-manager`: parses flags, starts logging, runs, and turns failures into exit codes.

use std::process::ExitCode;

use cluster_daemon::telemetry;
use cluster_manager::cli::{Cli, LogFormat, Program};
use cluster_manager::{recover, unlock};

fn main() -> ExitCode {
    match Program::parse_from(std::env::args_os()).unwrap_or_else(|error| error.exit()) {
        Program::Run(cli) => run(*cli),
        Program::Recover(cli) => match recover::run(&cli, &mut say) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        },
        Program::Unlock(cli) => match unlock::ask(&cli) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        },
    }
}

fn run(cli: Cli) -> ExitCode {
    let format = match cli.log_format {
        LogFormat::Text => telemetry::LogFormat::Text,
        LogFormat::Json => telemetry::LogFormat::Json,
    };
    if let Err(error) = telemetry::init(format, "info,openraft=error") {
        return fail(&error.into());
    }
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return fail(&error.into()),
        };
    match runtime.block_on(cluster_manager::serve::run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn say(text: &str) {
    use std::io::Write as _;
    // A reader that left wants no more.
    let _ = writeln!(std::io::stdout(), "{text}");
}

#[expect(clippy::print_stderr, reason = "the last words of a program go to the terminal")]
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::from(1)
}
