//! Chaos on a lab: faults drawn from a seed, clients that never rest, and a judge.
//!
//! *Flow.* [`run`] draws a plan (`schedule`), lets clients loose (`load`), does one fault after the
//! other and undoes it (`inject`), while a monitor counts what really runs (`census`) and what
//! daemons use (`gauges`). Then the faults stop: desired must equal running within a bound, what is
//! removed must leave nothing, and the history is judged (`check`). The [`Verdict`] says it all.
//!
//! What lives here: breaking a cluster and judging it from outside, with the public API and the
//! kernel. What never does: looking into daemons, or repairing what they should repair.

mod census;
mod check;
mod condition;
mod error;
mod gauges;
mod history;
mod inject;
mod load;
mod monitor;
mod run;
mod schedule;
mod verdict;

use std::collections::BTreeSet;
use std::time::Duration;

pub use crate::check::Objection;
pub use crate::error::{Error, Result};
pub use crate::run::run;
pub use crate::schedule::Fault;
pub use crate::verdict::Verdict;

/// What a run does.
#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    /// How long faults are done; start and judgement come on top.
    pub lasts: Duration,
    pub faults: Vec<Fault>,
    /// An image of the example web server that every worker has.
    pub image: String,
    /// After the last fault, desired equals running within so long.
    pub converges_within: Duration,
}

impl Options {
    pub fn new(seed: u64, lasts: Duration) -> Self {
        Self {
            seed,
            lasts,
            faults: Fault::ALL.to_vec(),
            image: "web:1".to_owned(),
            converges_within: Duration::from_secs(60),
        }
    }

    /// Reads `workers,leader,…`; each word once, in the order of [`Fault::ALL`].
    pub fn parse_faults(text: &str) -> std::result::Result<Vec<Fault>, String> {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        let faults: BTreeSet<Fault> =
            words.map(str::parse).collect::<std::result::Result<_, _>>()?;
        if faults.is_empty() {
            return Err("names no fault".to_owned());
        }
        Ok(faults.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_from_a_list() {
        assert_eq!(
            Options::parse_faults("leader, workers"),
            Ok(vec![Fault::Workers, Fault::Leader])
        );
        assert!(Options::parse_faults("").is_err());
        let error = Options::parse_faults("worker").unwrap_err();
        assert!(error.contains("workers, managers, leader"), "{error}");
    }
}
