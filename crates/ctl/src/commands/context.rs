//! `context ls|use|show|import|renew|rm`

mod import;
mod ls;
pub(super) mod renew;
mod rm;
mod select;
mod show;

use clap::Subcommand;

use crate::Invocation;
use crate::error::Error;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List the contexts
    Ls(ls::Args),
    /// Make a context the current one
    Use(select::Args),
    /// Show a context, without its key
    Show(show::Args),
    /// Keep a context file, and make it the current context
    Import(import::Args),
    /// Get a fresh certificate for a context, and the CA that counts now
    Renew(renew::Args),
    /// Forget contexts
    Rm(rm::Args),
}

pub async fn run(verb: &Verb, invocation: &mut Invocation) -> Result<(), Error> {
    match verb {
        Verb::Ls(args) => ls::run(args, invocation),
        Verb::Use(args) => select::run(args, invocation),
        Verb::Show(args) => show::run(args, invocation),
        Verb::Import(args) => import::run(args, invocation),
        Verb::Renew(args) => renew::run(args, invocation).await,
        Verb::Rm(args) => rm::run(args, invocation),
    }
}
