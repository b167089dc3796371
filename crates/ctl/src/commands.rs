//! What each verb does, one file per noun and verb.

pub mod cluster;
pub mod completions;
pub mod context;
pub mod doctor;
pub mod explain;
pub mod lab;
pub mod manager;
pub mod node;
pub mod service;

use crate::cli::Command;
use crate::client::Client;
use crate::error::Error;
use crate::{Invocation, contexts};

/// Runs the command; the exit code when it did what was asked.
pub fn run(command: &Command, invocation: &mut Invocation) -> Result<i32, Error> {
    match command {
        Command::Service(verb) => wait(service::run(verb, invocation)).map(|()| 0),
        Command::Node(verb) => wait(node::run(verb, invocation)).map(|()| 0),
        Command::Manager(verb) => wait(manager::run(verb, invocation)).map(|()| 0),
        Command::Cluster(verb) => wait(cluster::run(verb, invocation)).map(|()| 0),
        Command::Explain(args) => wait(explain::run(args, invocation)).map(|()| 0),
        Command::Context(verb) => wait(context::run(verb, invocation)).map(|()| 0),
        Command::Lab(verb) => lab::run(verb, invocation),
        Command::Doctor(args) => wait(doctor::run(args, invocation)),
        Command::Completions(args) => completions::run(args, invocation).map(|()| 0),
    }
}

/// A runtime on this thread alone: starting threads would cost more than most requests.
fn wait<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::refused("starting the runtime").cause(error.to_string()))?;
    let done = runtime.block_on(work);
    // Looking up a name may still be under way; nobody waits for it any more.
    runtime.shutdown_background();
    done
}

impl Invocation {
    fn client(&self) -> Result<Client, Error> {
        Client::new(&contexts::select(&self.global)?, self.global.timeout)
    }
}

/// Does something for each of several objects: all are tried, each failure is told, the first
/// decides how the program ends.
async fn for_each<T>(
    invocation: &mut Invocation,
    objects: &[T],
    mut act: impl AsyncFnMut(&mut Invocation, &T) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut first: Option<Error> = None;
    let last = objects.len().saturating_sub(1);
    for (place, object) in objects.iter().enumerate() {
        if let Err(error) = act(invocation, object).await {
            match first {
                None if place == last => return Err(error),
                None => {
                    invocation.printer.error(&error);
                    first = Some(error);
                }
                Some(_) => invocation.printer.error(&error),
            }
        }
    }
    match first {
        None => Ok(()),
        Some(first) => Err(Error {
            message: format!("not all of {} could be done", objects.len()),
            code: None,
            causes: Vec::new(),
            hint: None,
            exit: first.exit,
        }),
    }
}
