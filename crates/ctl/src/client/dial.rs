//! Finding a manager that answers.

use std::time::Duration;

use cluster_identity::{ChannelOptions, ConnectError, connect};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};
use tonic::transport::Channel;

use super::Client;
use crate::error::Error;

/// Bound on one manager.
const ONE_MANAGER: Duration = Duration::from_secs(3);
/// A manager that has not answered by then gets competition from the next in the list: one that
/// lost power would else cost every command [`ONE_MANAGER`].
const PATIENCE: Duration = Duration::from_millis(100);

impl Client {
    /// A channel to the first manager that answers, and its place in the list. Managers that
    /// proved useless are asked again only when no other is left.
    pub(super) async fn dial(&mut self) -> Result<(usize, Channel), Error> {
        if self.useless.len() >= self.managers.len() {
            self.useless.clear();
        }
        let options = ChannelOptions {
            connect_timeout: ONE_MANAGER.min(self.timeout),
            ..self.options.clone()
        };
        let places: Vec<usize> =
            (0..self.managers.len()).filter(|place| !self.useless.contains(place)).collect();
        let mut waiting = places.into_iter().peekable();
        let mut attempts = FuturesUnordered::new();
        let mut failures: Vec<(usize, ConnectError)> = Vec::new();
        let begin = Instant::now();
        let mut next_at = begin;
        loop {
            let is_time = Instant::now() >= next_at || attempts.is_empty();
            if let Some(place) = waiting.next_if(|_| is_time) {
                let (tls, address) = (self.tls.clone(), self.managers[place].clone());
                let options = options.clone();
                attempts.push(async move { (place, connect(&address, &tls, &options).await) });
                next_at = Instant::now() + PATIENCE;
            }
            if attempts.is_empty() {
                return Err(self.nobody_answers(failures));
            }
            tokio::select! {
                Some((place, outcome)) = attempts.next() => match outcome {
                    Ok(channel) => return Ok((place, channel)),
                    Err(error) => {
                        failures.push((place, error));
                        next_at = Instant::now();
                    }
                },
                () = sleep_until(next_at), if waiting.len() > 0 => {}
                () = sleep_until(begin + self.timeout) => {
                    return Err(self.nobody_answers(failures));
                }
            }
        }
    }

    fn nobody_answers(&self, mut failures: Vec<(usize, ConnectError)>) -> Error {
        failures.sort_by_key(|(place, _)| *place);
        let ours = failures.iter().map(|(_, error)| error).find(|error| is_ours(error));
        if let Some(error) = ours {
            return Error { exit: crate::Exit::Unreachable, ..Error::caused(error) }.hint(
                "get a new context file from a manager's data folder (admin.json) and import it",
            );
        }
        let mut error =
            Error::unreachable(format!("no manager of the context `{}` answers", self.context));
        for (place, address) in self.managers.iter().enumerate() {
            let failure = failures.iter().find(|(failed, _)| *failed == place);
            error = match failure {
                Some((_, failure)) => error.cause(chain(failure)),
                None => error.cause(format!("{address} did not answer within {:?}", self.timeout)),
            };
        }
        match failures.first().and_then(|(_, error)| hint(error)) {
            Some(hint) => error.hint(hint),
            None => error.hint("check that the managers run and that this machine reaches them"),
        }
    }
}

/// The trouble is our own certificate, whoever is asked.
fn is_ours(error: &ConnectError) -> bool {
    matches!(error, ConnectError::OwnExpired { .. })
}

fn hint(error: &ConnectError) -> Option<&'static str> {
    match error {
        ConnectError::OtherCluster { .. }
        | ConnectError::WrongPeer { .. }
        | ConnectError::RefusedForeign { .. } => Some(
            "this context is of another cluster; `clusterctl context ls` shows those there are",
        ),
        ConnectError::NotTls { .. }
        | ConnectError::WrongProtocol { .. }
        | ConnectError::Closed { .. } => {
            Some("check the managers' addresses in the context (`clusterctl context show`)")
        }
        ConnectError::PeerExpired { .. }
        | ConnectError::PeerNotYetValid { .. }
        | ConnectError::OwnNotYetValid { .. }
        | ConnectError::RefusedDates { .. } => {
            Some("compare this machine's clock with the managers' clocks")
        }
        _ => None,
    }
}

/// An error with everything behind it, in one line; a cause that only repeats is left out.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}
