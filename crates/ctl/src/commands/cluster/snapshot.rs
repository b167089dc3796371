//! `cluster snapshot save|inspect|restore`

mod inspect;
mod restore;
mod save;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use clap::Subcommand;
use cluster_archive::Header;
use cluster_model::State;

use crate::Invocation;
use crate::error::Error;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Save the whole state of the cluster as a file
    Save(save::Args),
    /// Check a saved file and show what is in it; needs no cluster
    Inspect(inspect::Args),
    /// Begin a cluster anew from a saved file, on the machine that shall be its first manager
    Restore(restore::Args),
}

pub async fn run(verb: &Verb, invocation: &mut Invocation) -> Result<(), Error> {
    match verb {
        Verb::Save(args) => save::run(args, invocation).await,
        Verb::Inspect(args) => inspect::run(args, invocation),
        Verb::Restore(args) => restore::run(args, invocation),
    }
}

/// Reads and checks a whole file.
fn read(path: &Path) -> Result<(Header, State), Error> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        let mut report = Error::refused(format!("cannot use {}", path.display()));
        let causes = std::iter::successors(Some(error), |error| error.source());
        report.causes.extend(causes.map(ToString::to_string));
        report
    };
    let file = File::open(path).map_err(|error| failed(&error))?;
    cluster_archive::read(BufReader::new(file)).map_err(|error| failed(&error))
}
