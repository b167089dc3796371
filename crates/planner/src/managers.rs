//! The managers' own group: which changes of its voters are safe now, and which dead voter a spare
//! should replace.
//!
//! Only managers that are heard count: a voter that is merely listed keeps nothing alive. Every
//! change needs a heard majority before it, or it cannot be agreed on, and after it, or nothing
//! more could.

use cluster_model::NodeId;

/// A manager that was silent for longer is not heard: many heartbeats, and less than people wait.
pub const HEARD_WITHIN_MS: u64 = 1_500;
/// Entries that a newcomer to the voters may lack.
pub const LAG_MAX: u64 = 1_000;

/// A manager as the leader knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    pub id: NodeId,
    pub name: String,
    pub voter: bool,
    /// How long ago it was last heard, milliseconds; 0 for the leader itself.
    pub silent_ms: u64,
    /// Entries of the log that it does not hold yet.
    pub lag: u64,
}

impl Seat {
    pub fn is_heard(&self) -> bool {
        self.silent_ms <= HEARD_WITHIN_MS
    }
}

/// A change that a user asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Promote(NodeId),
    Demote(NodeId),
    Remove(NodeId),
}

/// What should become of dead voters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replacement {
    /// All is well, or nobody was silent long enough; look again after so long at the latest.
    Nothing { look_in_ms: Option<u64> },
    /// In one step: the spare votes, the dead one does not.
    Swap { promote: NodeId, demote: NodeId },
    /// A dead voter should go and cannot; why, for people.
    Held(String),
}

/// Voters needed to agree, of so many.
fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// How many voters may fail, from now on, before writes stop.
pub fn may_fail(seats: &[Seat]) -> usize {
    let voters = seats.iter().filter(|seat| seat.voter).count();
    let heard = seats.iter().filter(|seat| seat.voter && seat.is_heard()).count();
    heard.saturating_sub(majority(voters))
}

fn list(seats: &[&Seat]) -> String {
    let one = |seat: &&Seat| format!("{} (for {})", seat.name, span(seat.silent_ms));
    seats.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn span(ms: u64) -> String {
    match ms / 1000 {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

/// Whether a group of these voters could agree on anything now; else why not and what to do.
fn agrees(voters: &[&Seat], when: &str) -> Result<(), String> {
    let silent: Vec<&Seat> = voters.iter().copied().filter(|seat| !seat.is_heard()).collect();
    let (heard, needed) = (voters.len() - silent.len(), majority(voters.len()));
    if heard >= needed {
        return Ok(());
    }
    Err(format!(
        "{when} {heard} of {} voters {} heard and {needed} are needed; not heard: {}",
        voters.len(),
        if heard == 1 { "is" } else { "are" },
        list(&silent)
    ))
}

/// Refuses what would leave the group unable to agree, names who is not heard and says what to do.
/// A change that is made already is fine.
pub fn check(seats: &[Seat], change: Change) -> Result<(), String> {
    let voters: Vec<&Seat> = seats.iter().filter(|seat| seat.voter).collect();
    let (Change::Promote(id) | Change::Demote(id) | Change::Remove(id)) = change;
    let Some(seat) = seats.iter().find(|seat| seat.id == id) else {
        return match change {
            Change::Remove(_) => Ok(()),
            _ => Err(format!("manager {id} is not in the group")),
        };
    };
    agrees(&voters, "now").map_err(|why| {
        format!("{why}. Start them again; if they are lost for good: `cluster-manager recover`")
    })?;
    let name = &seat.name;
    let after: Vec<&Seat> = match change {
        Change::Promote(_) if seat.voter => return Ok(()),
        Change::Promote(_) if !seat.is_heard() => {
            let silent = span(seat.silent_ms);
            return Err(format!("{name} is not heard (for {silent}): start it, then promote it"));
        }
        Change::Promote(_) if seat.lag > LAG_MAX => {
            let lag = seat.lag;
            return Err(format!("{name} still lacks {lag} entries of the log; try again shortly"));
        }
        Change::Promote(_) => voters.iter().copied().chain([seat]).collect(),
        Change::Demote(_) | Change::Remove(_) if !seat.voter => return Ok(()),
        Change::Demote(_) | Change::Remove(_) => {
            voters.iter().copied().filter(|other| other.id != id).collect()
        }
    };
    if after.is_empty() {
        return Err(format!(
            "{name} is the only voter; join another manager or promote a spare first"
        ));
    }
    agrees(&after, &format!("without {name}")).map_err(|why| {
        let why = match change {
            Change::Promote(_) => why.replacen("without", "with", 1),
            _ => why,
        };
        format!("{why}. Start them again, or demote or remove those first")
    })
}

/// Which dead voter gives its vote to which spare: the longest silent one to the spare that holds
/// most. One at a time, and never so that too few voters are heard.
pub fn replacement(seats: &[Seat], after_ms: u64) -> Replacement {
    if after_ms == 0 {
        return Replacement::Nothing { look_in_ms: None };
    }
    let voters: Vec<&Seat> = seats.iter().filter(|seat| seat.voter).collect();
    let dead = voters
        .iter()
        .copied()
        .filter(|seat| !seat.is_heard() && seat.silent_ms >= after_ms)
        .max_by_key(|seat| (seat.silent_ms, seat.id));
    let Some(dead) = dead else {
        let silent = voters.iter().filter(|seat| !seat.is_heard());
        let look_in_ms = silent.map(|seat| after_ms.saturating_sub(seat.silent_ms)).min();
        return Replacement::Nothing { look_in_ms };
    };
    let dead_for = span(dead.silent_ms);
    let spare = seats
        .iter()
        .filter(|seat| !seat.voter && seat.is_heard() && seat.lag <= LAG_MAX)
        .min_by_key(|seat| (seat.lag, seat.id));
    let Some(spare) = spare else {
        return Replacement::Held(format!(
            "{} is not heard for {dead_for} and no spare is there to replace it; join one with \
             `cluster-manager --join … --spare`",
            dead.name
        ));
    };
    let after: Vec<&Seat> =
        voters.iter().copied().filter(|seat| seat.id != dead.id).chain([spare]).collect();
    match agrees(&voters, "now").and_then(|()| agrees(&after, "afterwards")) {
        Ok(()) => Replacement::Swap { promote: spare.id, demote: dead.id },
        Err(why) => Replacement::Held(format!("{} cannot be replaced: {why}", dead.name)),
    }
}
