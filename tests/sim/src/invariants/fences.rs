//! Workers never go back: what they write down is never older than what they had.

use std::collections::BTreeMap;

use cluster_worker::assignments::Stamp;

use super::{Look, Violation, broken};

#[derive(Default)]
pub(super) struct Fences {
    known: BTreeMap<usize, Stamp>,
}

impl Fences {
    pub(super) fn check(&mut self, look: &Look<'_>) -> Result<(), Violation> {
        for (worker, stamp) in look.workers {
            let before = self.known.insert(*worker, *stamp).unwrap_or_default();
            if *stamp < before {
                let text = format!("worker {worker} held {before} and went back to {stamp}");
                return broken("workers never go back", text);
            }
        }
        Ok(())
    }
}
