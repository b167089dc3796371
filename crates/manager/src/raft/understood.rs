//! Which commands the managers understand, so that the leader takes into the log only what all of
//! them can apply.
//!
//! *Flow:* each manager says with every answer to an append which set of commands is the newest it
//! understands; the leader remembers the last word of each. *Guarantees:* as long as no manager is
//! replaced by an older program, no manager meets a command it does not know. *On failure:* one
//! that was replaced so stops at the first such command and says why, see `machine`.
//! *Assumes:* commands of the oldest set are understood by all; they are never held back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use cluster_model::NodeId;
use cluster_model::command::OLDEST_COMMANDS;

use super::codec;
use super::members::Member;
use super::node::RaftNode;

/// The last word of each manager; clones share it.
#[derive(Clone)]
pub(crate) struct Understood {
    own: u8,
    others: Arc<Mutex<BTreeMap<u64, u8>>>,
}

impl Understood {
    pub(crate) fn new(own: u8) -> Self {
        Self { own, others: Arc::default() }
    }

    /// The newest set of this program.
    pub(crate) fn own(&self) -> u8 {
        self.own
    }

    /// A manager said its newest set; 0 is what programs say that do not know the question.
    pub(crate) fn hear(&self, from: u64, set: u32) {
        let set = u8::try_from(set).unwrap_or(u8::MAX).max(OLDEST_COMMANDS);
        self.others.lock().unwrap_or_else(PoisonError::into_inner).insert(from, set);
    }

    /// What a manager said last; none: it was not heard since this process started.
    fn of(&self, id: NodeId) -> Option<u8> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner).get(&id.0).copied()
    }
}

impl RaftNode {
    /// Whether every manager understands an encoded command; else who does not. Only the leader
    /// knows; another one lets the command pass, for it will not take it.
    pub(crate) fn check_understood(&self, body: &[u8]) -> Result<(), String> {
        let set = codec::set_of(body);
        let leads = self.leader().is_some_and(|(id, _)| id == self.id());
        if set <= OLDEST_COMMANDS || !leads {
            return Ok(());
        }
        let mut members = self.members();
        members.sort_by_key(|member| member.id);
        members.iter().try_for_each(|member| self.check_member(member, set))
    }

    fn check_member(&self, Member { id, address, .. }: &Member, set: u8) -> Result<(), String> {
        let understood = self.understood();
        let known = if *id == self.id() { Some(understood.own()) } else { understood.of(*id) };
        match known {
            Some(known) if known >= set => Ok(()),
            Some(known) => Err(format!(
                "manager {id} at {address} runs an older program, which does not understand this \
                 command (set {set}, it knows up to {known})"
            )),
            None => Err(format!(
                "manager {id} at {address} has not said yet whether it understands this command \
                 (set {set})"
            )),
        }
    }

    /// Whether a manager that is to become a voter understands what all voters understand, so that
    /// what the group may use never shrinks.
    pub(crate) fn check_newcomer(&self, id: NodeId) -> Result<(), String> {
        let understood = self.understood();
        let voters = self.members().into_iter().filter(|member| member.voter && member.id != id);
        let common = voters
            .map(|voter| match voter.id == self.id() {
                true => understood.own(),
                false => understood.of(voter.id).unwrap_or(OLDEST_COMMANDS),
            })
            .min()
            .unwrap_or(OLDEST_COMMANDS);
        match understood.of(id) {
            Some(known) if known < common => Err(format!(
                "manager {id} runs an older program than the others: it knows commands up to set \
                 {known}, they up to {common}; start the newer program there and join again"
            )),
            _ => Ok(()),
        }
    }
}
