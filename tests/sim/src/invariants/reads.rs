//! Compare-and-set is linearizable for each object: of two changes made from one version at most
//! one is acknowledged, and a read sees what was acknowledged before it began.

use std::collections::{BTreeMap, BTreeSet};

use crate::client::{Call, Outcome, What};

use super::{Look, Violation, broken};

#[derive(Default)]
pub(super) struct Reads {
    /// Acknowledged versions of a service with the moment of the acknowledgement.
    acknowledged: BTreeMap<String, Vec<(u64, u64)>>,
    bases: BTreeSet<(String, u64)>,
    /// When somebody first asked for a removal.
    removal: BTreeMap<String, u64>,
    /// A read that was told that the service is gone: when it was over.
    gone: BTreeMap<String, u64>,
    /// What reads were told, with the moment they were over.
    read: BTreeMap<String, Vec<(u64, u64)>>,
}

const NAME: &str = "reads and compare-and-set are linearizable";

impl Reads {
    pub(super) fn check(&mut self, look: &Look<'_>) -> Result<(), Violation> {
        // Requests under way when a removal is asked for may see either.
        for call in look.calls {
            if let What::RemovalAsked { id } = &call.what {
                let begun = self.removal.entry(id.clone()).or_insert(call.begun);
                *begun = (*begun).min(call.begun);
            }
        }
        for call in look.calls {
            match &call.what {
                What::Create { outcome: Outcome::Done((id, version)), .. } => {
                    self.wrote(id, *version, call.over);
                }
                What::Update { id, base, outcome: Outcome::Done(version) } => {
                    if !self.bases.insert((id.clone(), *base)) {
                        let text = format!("two changes of {id} from version {base} succeeded");
                        return broken(NAME, text);
                    }
                    self.wrote(id, *version, call.over);
                }
                What::Read { id, outcome: Outcome::Done(version) } => {
                    self.judge(id, *version, call)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn wrote(&mut self, id: &str, version: u64, over: u64) {
        self.acknowledged.entry(id.to_owned()).or_default().push((over, version));
    }

    fn judge(&mut self, id: &str, version: Option<u64>, call: &Call) -> Result<(), Violation> {
        let newest = |known: Option<&Vec<(u64, u64)>>| {
            let before = known.into_iter().flatten().filter(|(over, _)| *over < call.begun);
            before.map(|(_, version)| *version).max()
        };
        let written = newest(self.acknowledged.get(id)).max(newest(self.read.get(id)));
        match version {
            Some(found) => {
                if written.is_some_and(|written| found < written) {
                    let text = format!("a read of {id} found version {found} after {written:?}");
                    return broken(NAME, text);
                }
                if self.gone.get(id).is_some_and(|over| *over < call.begun) {
                    return broken(NAME, format!("a read of {id} found it after it was gone"));
                }
                self.read.entry(id.to_owned()).or_default().push((call.over, found));
            }
            // Whoever asked for the removal may still wait for the answer: judged at the end.
            None => {
                self.gone.entry(id.to_owned()).or_insert(call.over);
            }
        }
        Ok(())
    }

    /// Once every request has ended: what a read did not find, somebody had asked to remove.
    pub(super) fn at_the_end(&self) -> Result<(), Violation> {
        for (id, over) in &self.gone {
            if self.removal.get(id).is_none_or(|begun| begun > over) {
                let text = format!("a read did not find {id}, which nobody had asked to remove");
                return broken(NAME, text);
            }
        }
        Ok(())
    }
}
