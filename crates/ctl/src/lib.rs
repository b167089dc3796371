//! `clusterctl`: what people and scripts use to talk to a cluster.
//!
//! *Flow.* Arguments become a request ([`values`] parses single flags, `commands/<noun>/<verb>`
//! builds the request), [`client`] sends it to whichever manager answers, [`view`] shapes the
//! answer, [`output`] prints it. Data goes to stdout, talk to stderr.
//!
//! What never lives here: rules of the cluster. A spec is checked here too, so that what is wrong
//! can be told with the flag's name, but with the model's rules, and the managers check it again. `clusterctl lab` is a shell over `cluster-lab`.

mod cli;
mod client;
mod commands;
mod contexts;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod output;
mod progress;
#[cfg(test)]
mod testing;
mod text;
mod values;
mod view;

use std::ffi::OsString;
use std::process::ExitCode;

pub use crate::cli::Cli;
pub use crate::error::{Error, Exit};
use crate::output::Printer;

/// What a command gets beside its own arguments.
pub(crate) struct Invocation {
    pub printer: Printer,
    pub global: cli::Global,
}

/// The whole program.
pub fn main() -> ExitCode {
    if let Some(code) = hidden_lab_command() {
        return code_of(code);
    }
    let args: Vec<OsString> = std::env::args_os().collect();
    let cli = match Cli::parse_words(args) {
        Ok(cli) => cli,
        // Prints itself; help and version count as success, the rest as wrong usage.
        Err(error) => error.exit(),
    };
    code_of(run(cli, Printer::for_process()))
}

/// Runs one command to its end; the exit code.
pub(crate) fn run(cli: Cli, printer: Printer) -> i32 {
    let mut invocation = Invocation { printer, global: cli.global };
    match commands::run(&cli.command, &mut invocation) {
        Ok(code) => code,
        Err(error) => {
            invocation.printer.error(&error);
            error.exit.code()
        }
    }
}

/// The lab starts this program as its nodes' first process and the like. It wants to be alone in
/// the process: no runtime, no thread before it.
fn hidden_lab_command() -> Option<i32> {
    let args: Vec<String> = std::env::args().skip(1).take(2).collect();
    match args.as_slice() {
        [noun, name] if noun == "lab" && name.starts_with("__") => {
            let rest: Vec<String> = std::env::args().skip(3).collect();
            cluster_lab::hidden_main(name, &rest)
        }
        _ => None,
    }
}

fn code_of(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1))
}
