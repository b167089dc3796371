//! The two ways in which an operator or an init system asks a daemon to end.

use std::fmt;
use std::io;

use tokio::signal::unix::{self, SignalKind};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Terminate,
    Interrupt,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
        })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("listening for {signal}")]
pub struct Error {
    signal: Signal,
    #[source]
    source: io::Error,
}

/// Listens from the moment it exists, so that a signal during start-up is not lost.
#[derive(Debug)]
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
}

impl Signals {
    /// Must be called inside a tokio runtime.
    pub fn listen() -> Result<Self, Error> {
        let listen = |signal, kind| unix::signal(kind).map_err(|source| Error { signal, source });
        Ok(Self {
            terminate: listen(Signal::Terminate, SignalKind::terminate())?,
            interrupt: listen(Signal::Interrupt, SignalKind::interrupt())?,
        })
    }

    /// The next signal. A second one, during the drain, is the request to stop waiting.
    pub async fn recv(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{Signal as Sent, raise};

    use super::*;

    #[tokio::test]
    async fn both_signals_arrive_even_when_sent_before_the_wait() {
        let mut signals = Signals::listen().unwrap();
        for (sent, expected) in
            [(Sent::SIGTERM, Signal::Terminate), (Sent::SIGINT, Signal::Interrupt)]
        {
            raise(sent).unwrap();
            let wait = std::time::Duration::from_secs(10);
            let got = tokio::time::timeout(wait, signals.recv()).await.unwrap();
            assert_eq!(got, expected);
        }
    }
}
