//! The command line: nouns, and the options that every command has. Each verb's arguments stand
//! beside what it does, in `commands/<noun>/<verb>.rs`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{Parser, Subcommand};

use crate::commands::{
    cluster, completions, context, doctor, explain, lab, manager, node, service,
};
use crate::text::shortened;
use crate::values::duration::duration;

/// Characters of a refused value that are shown.
const VALUE_SHOWN: usize = 120;

/// Run and look after services on a cluster.
#[derive(Debug, Parser)]
#[command(
    name = "clusterctl",
    version,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 ok, 1 refused, not found or not converged, 2 wrong usage, \
                  3 no manager reachable or no leader, 4 timed out, \
                  5 doctor: a worker would run in part."
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
    /// Managers: who keeps the cluster's state
    #[command(subcommand)]
    Manager(manager::Verb),
    /// The cluster as a whole, snapshots of it, and tokens for joining it
    #[command(subcommand)]
    Cluster(cluster::Verb),
    /// Why a service or task is where it is, or nowhere, and what led to it
    Explain(explain::Args),
    /// Contexts: which clusters this user knows
    #[command(subcommand)]
    Context(context::Verb),
    /// A real cluster on this machine, for trying and testing
    #[command(subcommand)]
    Lab(lab::Verb),
    /// Check whether this machine can be a manager or a worker
    ///
    /// Each check says what it saw, why it matters and what to do. Nothing is changed. Exit codes: 0 all
    /// is well or a warning at most, 1 something fails, 5 nothing fails but a worker would run in part.
    Doctor(Box<doctor::Args>),
    /// Print the completion script of a shell
    Completions(completions::Args),
}

impl Cli {
    /// Parses a command line. Values in refusals are cut: nobody reads 10,000 characters.
    pub fn parse_words(
        words: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<Self, clap::Error> {
        Self::try_parse_from(words).map_err(|mut error| {
            for kind in [ContextKind::InvalidValue, ContextKind::InvalidArg] {
                if let Some(ContextValue::String(text)) = error.get(kind)
                    && text.chars().count() > VALUE_SHOWN
                {
                    let text = shortened(text, VALUE_SHOWN);
                    error.insert(kind, ContextValue::String(text));
                }
            }
            // Clap would list flags that nobody gave.
            let steers = matches!(
                error.get(ContextKind::InvalidArg),
                Some(ContextValue::String(flag)) if flag == "--pause" || flag == "--resume"
            );
            if let Some(ContextValue::Strings(_)) = error.get(ContextKind::PriorArg)
                && steers
            {
                let others = "flags that change the service".to_owned();
                error.insert(ContextKind::PriorArg, ContextValue::String(others));
            }
            error
        })
    }
}

#[cfg(test)]
mod tests;
