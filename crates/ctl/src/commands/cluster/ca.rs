//! `cluster ca info|rotate`

mod info;
mod rotate;

use clap::Subcommand;

use crate::Invocation;
use crate::error::Error;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show the CA, how long certificates live, and how far a change of the CA is
    Info(info::Args),
    /// Replace the CA: every node gets a new certificate, no task is restarted
    ///
    /// A new CA signs from the first moment on, and everybody trusts it at once, because the old one
    /// signed it. When every node has a certificate of the new one, the old one is dropped, and with
    /// it the join tokens and the contexts that name it. This command renews the context it uses;
    /// others are renewed with `clusterctl context renew` while the change is under way, or
    /// imported anew from a manager's admin.json afterwards.
    ///
    /// The change goes on when this command is stopped; `clusterctl cluster ca info` shows how far
    /// it is.
    Rotate(rotate::Args),
}

pub async fn run(verb: &Verb, invocation: &mut Invocation) -> Result<(), Error> {
    match verb {
        Verb::Info(args) => info::run(args, invocation).await,
        Verb::Rotate(args) => rotate::run(args, invocation).await,
    }
}
