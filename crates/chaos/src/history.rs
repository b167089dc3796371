//! What clients asked and what they were told, in the order of one clock.
//!
//! Every write carries a *mark* of its own, so that whoever sees the object later knows which write
//! it shows. A failure that does not say "this changed nothing" is [`Outcome::Unknown`]: the write
//! may have happened, now or later.

use std::collections::BTreeMap;

/// Microseconds since the run began.
pub type Micros = u64;

/// The label that tells which write an object shows; 0 for what no client wrote.
pub type Mark = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Service,
    /// Managers write these too: versions move without a client's doing.
    Node,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    Create {
        name: String,
        mark: Mark,
    },
    /// Only if the object still has the version that was read.
    Update {
        kind: Kind,
        id: String,
        read: u64,
        mark: Mark,
    },
    Remove {
        id: String,
        read: u64,
    },
    /// A linearizable read by name.
    Read {
        kind: Kind,
        name: String,
    },
}

impl Call {
    /// Its line in the verdict.
    pub fn noun(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Update { kind: Kind::Service, .. } => "update",
            Self::Update { kind: Kind::Node, .. } => "drain",
            Self::Remove { .. } => "remove",
            Self::Read { .. } => "read",
        }
    }

    pub fn is_write(&self) -> bool {
        !matches!(self, Self::Read { .. })
    }
}

/// An object as somebody saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub id: String,
    pub version: u64,
    pub mark: Mark,
    /// Log index of the state it was seen in.
    pub index: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Created {
        id: String,
        version: u64,
    },
    Updated {
        version: u64,
    },
    Removed,
    Found(Seen),
    Missing,
    /// It certainly changed nothing.
    Refused(Refusal),
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    VersionMoved,
    NotFound,
    NameTaken,
    /// No leader, no manager, too busy: it was not even tried.
    Unavailable,
    Other(&'static str),
}

impl Outcome {
    pub fn is_done(&self) -> bool {
        !matches!(self, Self::Refused(_) | Self::Unknown)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    pub client: u32,
    pub invoked: Micros,
    /// When the answer came, or when the client gave up.
    pub returned: Micros,
    pub call: Call,
    pub outcome: Outcome,
}

/// What a watch delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    pub at: Micros,
    pub seen: Seen,
}

#[derive(Clone, Debug, Default)]
pub struct History {
    pub ops: Vec<Op>,
    pub sightings: Vec<Sighting>,
}

/// How many requests of one kind ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub done: u64,
    pub refused: u64,
    pub unknown: u64,
}

impl History {
    pub fn counts(&self) -> BTreeMap<&'static str, Counts> {
        let mut counts: BTreeMap<&'static str, Counts> = BTreeMap::new();
        for op in &self.ops {
            let line = counts.entry(op.call.noun()).or_default();
            match op.outcome {
                Outcome::Refused(_) => line.refused += 1,
                Outcome::Unknown => line.unknown += 1,
                _ => line.done += 1,
            }
        }
        counts
    }

    /// From each of these moments, how long until a write was acknowledged that had been asked for
    /// after it; `None` where none was.
    pub fn next_ack(&self, moment: Micros) -> Option<Micros> {
        let acks = self
            .ops
            .iter()
            .filter(|op| op.call.is_write() && op.outcome.is_done() && op.invoked >= moment);
        acks.map(|op| op.returned - moment).min()
    }
}
