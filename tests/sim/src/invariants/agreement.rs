//! Managers that have applied the same entries hold the same state.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};

use super::{Look, Violation, broken};

/// Log positions remembered; managers lag behind each other by less.
const KEPT: usize = 20_000;

#[derive(Default)]
pub(super) struct Agreement {
    /// Fingerprint of the state and the term, by index.
    known: BTreeMap<u64, (u64, u64)>,
}

impl Agreement {
    pub(super) fn check(&mut self, look: &Look<'_>) -> Result<(), Violation> {
        for seen in look.managers {
            let bytes = serde_json::to_vec(&seen.view.state).unwrap_or_default();
            let mut hasher = DefaultHasher::new();
            hasher.write(&bytes);
            let (index, print) = (seen.view.applied_index, (hasher.finish(), seen.view.term));
            let first = *self.known.entry(index).or_insert(print);
            if first != print {
                let text = format!(
                    "manager {} at index {index} holds {print:x?}, another held {first:x?}",
                    seen.host + 1
                );
                return broken("replicas are equal at equal index", text);
            }
            if self.known.len() > KEPT {
                self.known.pop_first();
            }
        }
        Ok(())
    }
}
