//! `cargo xtask <command>`: everything a person or CI does with this repository beyond
//! `cargo build`. It needs nothing but cargo; what a command needs besides, it installs (`test`)
//! or names.

mod bench;
mod cargo;
mod chaos;
mod cluster;
mod deb;
mod demo;
mod fuzz;
mod image;
mod interrupt;
mod lint;
mod phases;
mod setup;
mod sim;
mod test;
mod tidy;
mod verify;
mod vm_lab;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, show, check and measure this repository")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build everything, start a cluster on this machine and watch it repair itself.
    Demo(demo::Args),
    /// Set up what is missing, then run every test.
    Test(test::Args),
    /// Check format, lints, layers and house rules; changes nothing.
    Verify,
    /// Build everything, start a cluster and break it at random under load; judge what it does.
    Chaos(chaos::Args),
    /// Measure the promises of the design, beside Docker Swarm where it is installed.
    Bench(bench::Args),
    /// Search every parser of outside input for inputs that break it, for a bounded time.
    Fuzz(fuzz::Args),
    /// Simulate whole clusters under faults; a seed decides and replays a run.
    Sim(sim::Args),
    /// Pack the demo web server into images/web.tar of the target folder.
    Image,
    /// Build Debian packages of managers, workers and clusterctl, and check them.
    Deb(deb::Args),
    /// Check shell scripts and systemd units.
    Lint,
    /// A cluster on virtual machines of this computer: up, test, down.
    VmLab(vm_lab::Args),
    /// Check layers and house rules alone.
    Tidy,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Chaos(args) => chaos::run(&args),
        Command::Verify => verify::run(),
        Command::Bench(args) => bench::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Sim(args) => sim::run(&args),
        Command::Image => image::run(),
        Command::Deb(args) => deb::run(&args),
        Command::Lint => lint::run(),
        Command::VmLab(args) => vm_lab::run(&args),
        Command::Tidy => tidy::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
