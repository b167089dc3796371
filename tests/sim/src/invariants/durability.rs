//! What was acknowledged stays: a created service is there until somebody asked for its removal,
//! and an acknowledged version is reached by every manager that comes this far.

use std::collections::{BTreeMap, BTreeSet};

use cluster_model::ServiceId;

use crate::client::{Outcome, What};

use super::{Look, Seen, Violation, broken};

#[derive(Default)]
pub(super) struct Durability {
    /// Highest acknowledged version, by service. A version is the log index that wrote it.
    acknowledged: BTreeMap<String, u64>,
    /// Somebody asked for its removal, whatever was answered.
    removals: BTreeSet<String>,
}

impl Durability {
    pub(super) fn check(&mut self, look: &Look<'_>) -> Result<(), Violation> {
        for call in look.calls {
            match &call.what {
                What::Create { outcome: Outcome::Done((id, version)), .. }
                | What::Update { id, outcome: Outcome::Done(version), .. } => {
                    let known = self.acknowledged.entry(id.clone()).or_default();
                    *known = (*known).max(*version);
                }
                What::RemovalAsked { id } => {
                    self.removals.insert(id.clone());
                }
                _ => {}
            }
        }
        look.managers.iter().try_for_each(|seen| self.holds(seen))
    }

    fn holds(&self, seen: &Seen) -> Result<(), Violation> {
        for (id, version) in &self.acknowledged {
            if self.removals.contains(id) || *version > seen.view.applied_index {
                continue;
            }
            let service = id.parse::<ServiceId>().ok().and_then(|id| seen.view.state.service(id));
            let found = service.map(|service| service.version);
            if found.is_none_or(|found| found < *version) {
                let text = format!(
                    "service {id} was acknowledged at version {version}; manager {} at index {} \
                     has {found:?}",
                    seen.host + 1,
                    seen.view.applied_index
                );
                return broken("no acknowledged write is lost", text);
            }
        }
        Ok(())
    }
}
