//! `lab …`: a shell over `cluster-lab`. All of it is synchronous and wants root.

mod chaos;
mod down;
mod exec;
mod fault;
mod links;
mod load_image;
mod logs;
mod status;
mod up;

use std::path::Path;

use clap::Subcommand;
use cluster_lab::Lab;

use crate::Invocation;
use crate::error::{Error, Exit};

/// What a lab is called unless told otherwise.
const DEFAULT_NAME: &str = "lab";

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start a cluster of real processes, and make it the current context
    Up(Box<up::Args>),
    /// Show each node: role, address, state
    Status(status::Args),
    /// Cut a node's power: agent, shims and containers die at once
    Kill(fault::Args),
    /// Switch a node on again, with the data it had
    Start(fault::Args),
    /// Freeze every process of a node
    Pause(fault::Args),
    /// Let a frozen node go on
    Resume(fault::Args),
    /// Cut a node off the network, silently
    Cut(fault::CutArgs),
    /// Delay, lose or slow down what goes to and from a node
    Shape(links::Args),
    /// Connect a node again, at full speed
    Heal(fault::Args),
    /// Leave a node's disk no free byte (labs built with --disk)
    FillDisk(fault::Args),
    /// Give a node's disk its room back
    FreeDisk(fault::Args),
    /// Kill a node's agent alone; its containers live on
    KillAgent(fault::Args),
    /// Start the agent of a node again
    StartAgent(fault::Args),
    /// Break the lab at random for a while, under load, and judge what it does
    Chaos(Box<chaos::Args>),
    /// Import an image archive on every worker
    LoadImage(load_image::Args),
    /// Run a command on a node, or as the client that reaches all nodes
    Exec(exec::Args),
    /// Print what a node's agent logged
    Logs(logs::Args),
    /// Remove the lab and everything in it
    Down(down::Args),
}

pub fn run(verb: &Verb, invocation: &mut Invocation) -> Result<i32, Error> {
    let done = match verb {
        Verb::Up(args) => up::run(args, invocation),
        Verb::Status(args) => status::run(args, invocation),
        Verb::Kill(args) => fault::run(args, invocation, Lab::kill),
        Verb::Start(args) => fault::run(args, invocation, Lab::start),
        Verb::Pause(args) => fault::run(args, invocation, Lab::pause),
        Verb::Resume(args) => fault::run(args, invocation, Lab::resume),
        Verb::Cut(args) => fault::cut(args, invocation),
        Verb::Shape(args) => links::run(args, invocation),
        Verb::Heal(args) => fault::run(args, invocation, Lab::heal),
        Verb::FillDisk(args) => fault::run(args, invocation, Lab::fill_disk),
        Verb::FreeDisk(args) => fault::run(args, invocation, Lab::free_disk),
        Verb::Chaos(args) => return chaos::run(args, invocation),
        Verb::KillAgent(args) => fault::run(args, invocation, Lab::kill_agent),
        Verb::StartAgent(args) => fault::run(args, invocation, Lab::start_agent),
        Verb::LoadImage(args) => load_image::run(args, invocation),
        Verb::Exec(args) => return exec::run(args),
        Verb::Logs(args) => logs::run(args, invocation),
        Verb::Down(args) => down::run(args, invocation),
    };
    done.map(|()| 0)
}

#[derive(Clone, Debug, clap::Args)]
struct Which {
    /// The lab's name (default: the only one there is, else `lab`)
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

impl Which {
    fn name(&self) -> String {
        let only = || {
            let mut names = Lab::names_in(&cluster_lab::default_base());
            if names.len() == 1 { names.pop() } else { None }
        };
        self.name.clone().or_else(only).unwrap_or_else(|| DEFAULT_NAME.to_owned())
    }

    fn open(&self) -> Result<Lab, Error> {
        Lab::open(&self.name()).map_err(|error| explain(&error))
    }
}

fn explain(error: &cluster_lab::Error) -> Error {
    let exit = match error {
        cluster_lab::Error::BadOption { .. } => Exit::Usage,
        cluster_lab::Error::TimedOut { .. } => Exit::TimedOut,
        _ => Exit::Refused,
    };
    let mut report = Error::caused(error);
    // Ends of logs come as several lines; they are causes, not part of the sentence.
    let lines: Vec<String> = report.message.lines().map(str::to_owned).collect();
    if let [first, rest @ ..] = lines.as_slice() {
        report.message.clone_from(first);
        report.causes.splice(0..0, rest.iter().cloned());
    }
    Error { exit, ..report }
}

fn io_error(doing: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::refused(format!("{doing} {}", path.display())).cause(error.to_string())
}
