//! The command line: nouns, and the options that every command has. Each verb's arguments stand
//! beside what it does, in `commands/<noun>/<verb>.rs`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::commands::{cluster, completions, context, lab, node, service};
use crate::values::duration::duration;

/// Run and look after services on a cluster.
#[derive(Debug, Parser)]
#[command(
    name = "clusterctl",
    version,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 ok, 1 refused, not found or not converged, 2 wrong usage, \
                  3 no manager reachable or no leader, 4 timed out."
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The context that names the cluster [env: CLUSTERCTL_CONTEXT; default: the current one]
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "context_file")]
    pub context: Option<String>,

    /// A context file to use instead of a stored context [env: CLUSTERCTL_CONTEXT_FILE]
    #[arg(long, global = true, value_name = "PATH")]
    pub context_file: Option<PathBuf>,

    /// How long to look for a manager, and how long each answer may take
    #[arg(long, global = true, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub timeout: Duration,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Services: what shall run
    #[command(subcommand)]
    Service(service::Verb),
    /// Nodes: where it runs
    #[command(subcommand)]
    Node(node::Verb),
    /// The cluster as a whole, and tokens for joining it
    #[command(subcommand)]
    Cluster(cluster::Verb),
    /// Contexts: which clusters this user knows
    #[command(subcommand)]
    Context(context::Verb),
    /// A real cluster on this machine, for trying and testing
    #[command(subcommand)]
    Lab(lab::Verb),
    /// Print the completion script of a shell
    Completions(completions::Args),
}

#[cfg(test)]
mod tests;
