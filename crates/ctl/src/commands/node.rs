//! `node ls|inspect|update|drain|rm`

mod drain;
mod inspect;
mod ls;
mod rm;
mod update;

use clap::Subcommand;

use crate::Invocation;
use crate::error::Error;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List workers and managers
    Ls(ls::Args),
    /// Show everything about a node
    Inspect(inspect::Args),
    /// Change a worker's availability or labels
    Update(update::Args),
    /// Give a worker's tasks to other nodes and wait until it is empty
    Drain(drain::Args),
    /// Remove workers that are down and managers that are gone
    Rm(rm::Args),
}

pub async fn run(verb: &Verb, invocation: &mut Invocation) -> Result<(), Error> {
    match verb {
        Verb::Ls(args) => ls::run(args, invocation).await,
        Verb::Inspect(args) => inspect::run(args, invocation).await,
        Verb::Update(args) => update::run(args, invocation).await,
        Verb::Drain(args) => drain::run(args, invocation).await,
        Verb::Rm(args) => rm::run(args, invocation).await,
    }
}

/// Managers are listed among the nodes, but only workers have an availability and labels.
fn require_worker(node: &cluster_pb::types::v1::Node, doing: &str) -> Result<(), Error> {
    if node.role == "manager" {
        let message = format!("{} is a manager; only workers can be {doing}", node.name);
        return Err(Error::refused(message).hint("`clusterctl node ls` shows each node's role"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
