//! `cluster-manager`: parses flags, starts logging, runs, and turns failures into exit codes.

use std::process::ExitCode;

use cluster_daemon::telemetry;
use cluster_manager::cli::{Cli, LogFormat, Program};
use cluster_manager::host::Host;
use cluster_manager::{recover, setup, unlock};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::runtime::{Builder, Runtime};

/// By how much users' requests step back for heartbeats and consensus: a third of the weight of
/// others where the processor is short, and nothing where it is not.
const USERS_NICE: i32 = 5;

fn main() -> ExitCode {
    match Program::parse_from(std::env::args_os()).unwrap_or_else(|error| error.exit()) {
        Program::Run(cli) => run(*cli),
        Program::Init(cli) => ended(setup::init(&cli)),
        Program::Join(cli) => ended(setup::join(&cli)),
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

fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn run(cli: Cli) -> ExitCode {
    let format = match cli.log_format {
        LogFormat::Text => telemetry::LogFormat::Text,
        LogFormat::Json => telemetry::LogFormat::Json,
        LogFormat::Journal => telemetry::LogFormat::Journal,
    };
    if let Err(error) = telemetry::init(format, "info,openraft=error") {
        return fail(&error.into());
    }
    raise_descriptors();
    let runtimes =
        runtime("manager", || {}).and_then(|own| Ok((own, runtime("users", step_back)?)));
    let (own, users) = match runtimes {
        Ok(runtimes) => runtimes,
        Err(error) => return fail(&error.into()),
    };
    let host = Host { users: Some(users.handle().clone()), ..Host::default() };
    let ended = own.block_on(cluster_manager::serve::run(cli, host));
    // What users still wait for nobody will answer.
    users.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn runtime(name: &str, on_thread: fn()) -> std::io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().thread_name(name).on_thread_start(on_thread).build()
}

/// As many open files as the machine allows: each session and each connection is one.
fn raise_descriptors() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

/// Lets the thread that calls it step back for all others, here and in other programs.
fn step_back() {
    if let Err(error) = rustix::process::nice(USERS_NICE) {
        tracing::warn!(%error, "users' requests could not be given a lower priority");
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
