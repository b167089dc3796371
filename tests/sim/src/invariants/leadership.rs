//! A term has one leader.

use std::collections::BTreeMap;

use cluster_model::NodeId;

use super::{Look, Violation, broken};

#[derive(Default)]
pub(super) struct OneLeader {
    known: BTreeMap<u64, NodeId>,
}

impl OneLeader {
    pub(super) fn check(&mut self, look: &Look<'_>) -> Result<(), Violation> {
        for seen in look.managers {
            if !seen.leadership.this_node_leads_and_caught_up {
                continue;
            }
            let term = seen.leadership.term;
            let first = *self.known.entry(term).or_insert(seen.id);
            if first != seen.id {
                let text = format!("{first} and {} lead in term {term}", seen.id);
                return broken("one leader a term", text);
            }
        }
        Ok(())
    }
}
