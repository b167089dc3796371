//! Are acknowledged writes kept, and is compare-and-set linearizable for each object?
//!
//! Versions are log indexes, hence a witness: if the history is linearizable at all, it is so in
//! the order of the versions. What is left to check is that this order agrees with the clients'
//! clock and with what each of them was told; that takes no search.
//!
//! | rule | objects to |
//! | --- | --- |
//! | `ghost` | a mark that was refused, or seen before it was asked for, or seen with another id or version |
//! | `order` | a write acknowledged before another began has the larger version |
//! | `cas` | a write between the version that an update read and the one it made |
//! | `lost` | a read that shows less than was acknowledged, read or watched before it began |
//! | `index` | a view older than the index it claims; indexes that go back |
//! | `undead` | an object seen or changed after its removal was acknowledged |
//! | `missing` | "there is none" although there was one all the time |
//! | `twins` | two objects of one name |
//! | `refusal` | "the version moved" although nobody moved it |

use std::collections::{BTreeMap, HashMap};

use super::Objection;
use crate::history::{Call, History, Kind, Mark, Micros, Op, Outcome, Refusal, Seen, Sighting};

/// A write whose version is known, from its answer or from who saw its mark.
#[derive(Clone, Copy)]
struct Write<'a> {
    version: u64,
    op: &'a Op,
    /// The version it replaced; none for a creation.
    read: Option<u64>,
}

/// Everything that concerns one object.
#[derive(Default)]
struct Life<'a> {
    kind: Option<Kind>,
    /// Ordered by version.
    writes: Vec<Write<'a>>,
    /// Updates of unknown fate that nobody saw the effect of.
    open: Vec<&'a Op>,
    updates: Vec<&'a Op>,
    removals: Vec<&'a Op>,
    /// What was seen, from when on the viewer must have known it, and until when it was fresh.
    views: Vec<View<'a>>,
}

#[derive(Clone, Copy)]
struct View<'a> {
    /// When it was asked for; none for a watch, which promises no freshness.
    asked: Option<Micros>,
    at: Micros,
    seen: &'a Seen,
}

pub fn judge(history: &History) -> Vec<Objection> {
    let mut objections = Vec::new();
    let marks = marks(history);
    let lives = lives(history, &marks, &mut objections);
    for (id, life) in &lives {
        order(id, life, &mut objections);
        compare_and_set(id, life, &mut objections);
        views(id, life, &mut objections);
        removal(id, life, &mut objections);
        refusals(id, life, &mut objections);
    }
    indexes(history, &mut objections);
    names(history, &lives, &mut objections);
    objections
}

fn mark_of(op: &Op) -> Option<Mark> {
    match op.call {
        Call::Create { mark, .. } | Call::Update { mark, .. } => Some(mark),
        _ => None,
    }
}

fn marks(history: &History) -> HashMap<Mark, &Op> {
    history.ops.iter().filter_map(|op| Some((mark_of(op)?, op))).collect()
}

fn all_views(history: &History) -> impl Iterator<Item = View<'_>> {
    let read = history.ops.iter().filter_map(|op| match &op.outcome {
        Outcome::Found(seen) => Some(View { asked: Some(op.invoked), at: op.returned, seen }),
        _ => None,
    });
    let watched = history.sightings.iter();
    read.chain(watched.map(|Sighting { at, seen }| View { asked: None, at: *at, seen }))
}

fn lives<'a>(
    history: &'a History,
    marks: &HashMap<Mark, &'a Op>,
    objections: &mut Vec<Objection>,
) -> BTreeMap<&'a str, Life<'a>> {
    let mut lives: BTreeMap<&str, Life> = BTreeMap::new();
    // Whose effect was seen although its client was never told.
    let mut found: HashMap<Mark, &Seen> = HashMap::new();
    for view in all_views(history) {
        lives.entry(&view.seen.id).or_default().views.push(view);
        if view.seen.mark == 0 {
            continue;
        }
        match marks.get(&view.seen.mark) {
            None => {
                objections.push(Objection::new("ghost", format!("nobody wrote {:?}", view.seen)))
            }
            Some(op) => {
                ghost(op, view, objections);
                let first = found.entry(view.seen.mark).or_insert(view.seen);
                if view.seen.version < first.version {
                    *first = view.seen;
                }
            }
        }
    }
    for op in &history.ops {
        match &op.call {
            Call::Create { mark, .. } => {
                let known = match &op.outcome {
                    Outcome::Created { id, version } => Some((id.as_str(), *version)),
                    Outcome::Unknown => {
                        found.get(mark).map(|seen| (seen.id.as_str(), seen.version))
                    }
                    _ => None,
                };
                if let Some((id, version)) = known {
                    let life = lives.entry(id).or_default();
                    life.kind = Some(Kind::Service);
                    life.writes.push(Write { version, op, read: None });
                }
            }
            Call::Update { kind, id, read, mark } => {
                let life = lives.entry(id).or_default();
                life.kind = Some(*kind);
                life.updates.push(op);
                let read = Some(*read);
                match (&op.outcome, found.get(mark)) {
                    (Outcome::Updated { version }, _) => {
                        life.writes.push(Write { version: *version, op, read });
                    }
                    // Of a node this is only a bound: managers may have moved it on since.
                    (Outcome::Unknown, Some(seen)) if *kind == Kind::Service => {
                        life.writes.push(Write { version: seen.version, op, read });
                    }
                    (Outcome::Unknown, _) => life.open.push(op),
                    _ => {}
                }
            }
            Call::Remove { id, .. } => lives.entry(id).or_default().removals.push(op),
            Call::Read { .. } => {}
        }
    }
    for life in lives.values_mut() {
        life.writes.sort_by_key(|write| write.version);
        life.views.sort_by_key(|view| view.at);
    }
    lives
}

/// Whether a view and the write it shows fit together.
fn ghost(op: &Op, view: View<'_>, objections: &mut Vec<Objection>) {
    let seen = view.seen;
    let problem = match (&op.call, &op.outcome) {
        (_, Outcome::Refused(_)) => Some("shows a write that was refused"),
        _ if op.invoked > view.at => Some("was seen before it was asked for"),
        (Call::Update { id, .. }, _) if *id != seen.id => Some("is on another object"),
        (_, Outcome::Created { id, .. }) if *id != seen.id => Some("is on another object"),
        (_, Outcome::Created { version, .. }) if *version != seen.version => {
            Some("has another version than its writer was told")
        }
        (Call::Update { kind: Kind::Service, .. }, Outcome::Updated { version })
            if *version != seen.version =>
        {
            Some("has another version than its writer was told")
        }
        (Call::Update { kind: Kind::Node, .. }, Outcome::Updated { version })
            if *version > seen.version =>
        {
            Some("was seen at a version before it")
        }
        _ => None,
    };
    if let Some(problem) = problem {
        objections.push(Objection::new("ghost", format!("{seen:?} {problem}: {op:?}")));
    }
}

/// Versions of `done` so far, as time passes: the largest one known by each moment.
struct Known {
    /// (moment, largest version by then), both rising.
    steps: Vec<(Micros, u64)>,
}

impl Known {
    fn new(mut events: Vec<(Micros, u64)>) -> Self {
        events.sort_unstable();
        let mut steps: Vec<(Micros, u64)> = Vec::with_capacity(events.len());
        for (at, version) in events {
            if steps.last().is_none_or(|(_, top)| version > *top) {
                steps.push((at, version));
            }
        }
        Self { steps }
    }

    /// The largest version known strictly before the moment.
    fn before(&self, moment: Micros) -> u64 {
        let place = self.steps.partition_point(|(at, _)| *at < moment);
        place.checked_sub(1).map_or(0, |place| self.steps[place].1)
    }
}

fn acknowledged<'a>(life: &'a Life<'a>) -> impl Iterator<Item = (Micros, u64)> + 'a {
    let done = life.writes.iter().filter(|write| write.op.outcome.is_done());
    done.map(|write| (write.op.returned, write.version))
}

fn order(id: &str, life: &Life<'_>, objections: &mut Vec<Objection>) {
    let known = Known::new(acknowledged(life).collect());
    for write in &life.writes {
        let before = known.before(write.op.invoked);
        if before >= write.version {
            let detail = format!(
                "{id}: version {before} was acknowledged before the write of version {} began: {:?}",
                write.version, write.op
            );
            objections.push(Objection::new("order", detail));
        }
    }
    for pair in life.writes.windows(2).filter(|pair| pair[0].version == pair[1].version) {
        let detail = format!("{id}: two writes of one version: {:?} {:?}", pair[0].op, pair[1].op);
        objections.push(Objection::new("order", detail));
    }
}

fn compare_and_set(id: &str, life: &Life<'_>, objections: &mut Vec<Objection>) {
    for (place, write) in life.writes.iter().enumerate() {
        let Some(read) = write.read else { continue };
        let before = place.checked_sub(1).map(|place| life.writes[place]);
        if let Some(between) = before.filter(|before| before.version > read) {
            let detail = format!(
                "{id}: version {} came between the read version {read} and {}: {:?} {:?}",
                between.version, write.version, between.op, write.op
            );
            objections.push(Objection::new("cas", detail));
        }
    }
}

fn views(id: &str, life: &Life<'_>, objections: &mut Vec<Objection>) {
    let seen = life.views.iter().map(|view| (view.at, view.seen.version));
    let known = Known::new(acknowledged(life).chain(seen).collect());
    for view in &life.views {
        let Seen { version, index, mark, .. } = view.seen;
        if let Some(before) = view.asked.map(|asked| known.before(asked)).filter(|b| b > version) {
            let detail =
                format!("{id}: version {before} was known before this was asked: {view:?}");
            objections.push(Objection::new("lost", detail));
        }
        let place = life.writes.partition_point(|write| write.version <= *index);
        let newest = place.checked_sub(1).map(|place| life.writes[place]);
        if let Some(newest) = newest.filter(|newest| newest.version > *version) {
            let detail = format!(
                "{id}: a view at index {index} shows version {version} and not {}",
                newest.version
            );
            objections.push(Objection::new("index", detail));
        }
        // The write that the version stands for, where managers write too.
        let place = life.writes.partition_point(|write| write.version <= *version);
        let shown = place.checked_sub(1).map(|place| life.writes[place]);
        let unseen = life.open.iter().any(|op| mark_of(op) == Some(*mark));
        if let Some(shown) = shown.filter(|shown| mark_of(shown.op) != Some(*mark) && !unseen) {
            let detail =
                format!("{id}: {view:?} does not show the write before it: {:?}", shown.op);
            objections.push(Objection::new("lost", detail));
        }
    }
}

fn removal(id: &str, life: &Life<'_>, objections: &mut Vec<Objection>) {
    let done = life.removals.iter().filter(|op| op.outcome.is_done());
    let Some(removed) = done.map(|op| op.returned).min() else { return };
    for view in life.views.iter().filter(|view| view.asked.is_some_and(|asked| asked > removed)) {
        objections
            .push(Objection::new("undead", format!("{id} is seen after its removal: {view:?}")));
    }
    let done = life.updates.iter().filter(|op| op.outcome.is_done() && op.invoked > removed);
    for op in done {
        objections
            .push(Objection::new("undead", format!("{id} is changed after its removal: {op:?}")));
    }
}

/// Whether anybody may have removed it before that moment.
fn maybe_removed(life: &Life<'_>, by: Micros) -> bool {
    life.removals.iter().any(|op| op.invoked <= by && !matches!(op.outcome, Outcome::Refused(_)))
}

fn refusals(id: &str, life: &Life<'_>, objections: &mut Vec<Objection>) {
    for op in life.updates.iter().chain(&life.removals) {
        let read = match &op.call {
            Call::Update { kind: Kind::Service, read, .. } | Call::Remove { read, .. } => *read,
            _ => continue,
        };
        let problem = match op.outcome {
            Outcome::Refused(Refusal::VersionMoved) => {
                let written =
                    |write: &&Write<'_>| write.version > read && write.op.invoked <= op.returned;
                let moved = life.writes.iter().find(written).is_some()
                    || life.open.iter().any(|other| other.invoked <= op.returned)
                    || maybe_removed(life, op.returned);
                (!moved).then_some("nobody moved the version")
            }
            Outcome::Refused(Refusal::NotFound) => {
                (!maybe_removed(life, op.returned)).then_some("nobody removed it")
            }
            _ => None,
        };
        if let Some(problem) = problem {
            objections.push(Objection::new("refusal", format!("{id}: {problem}: {op:?}")));
        }
    }
}

/// One log for all objects: nobody sees it shrink.
fn indexes(history: &History, objections: &mut Vec<Objection>) {
    let known = history.ops.iter().filter_map(|op| match &op.outcome {
        Outcome::Found(seen) => Some((op.returned, seen.index)),
        Outcome::Created { version, .. } | Outcome::Updated { version } => {
            Some((op.returned, *version))
        }
        _ => None,
    });
    let known = Known::new(known.collect());
    for op in &history.ops {
        if let Outcome::Found(seen) = &op.outcome {
            let before = known.before(op.invoked);
            if before > seen.index {
                let detail = format!("index {before} was known before this was asked: {op:?}");
                objections.push(Objection::new("index", detail));
            }
        }
    }
}

fn names(history: &History, lives: &BTreeMap<&str, Life<'_>>, objections: &mut Vec<Objection>) {
    let mut named: BTreeMap<&str, Vec<(&str, &Op, &Life<'_>)>> = BTreeMap::new();
    for (id, life) in lives {
        let created = life.writes.iter().find(|write| write.read.is_none());
        if let Some(Op { call: Call::Create { name, .. }, .. }) = created.map(|write| write.op) {
            named.entry(name).or_default().extend(created.map(|write| (*id, write.op, life)));
        }
    }
    for op in &history.ops {
        let (Call::Read { kind: Kind::Service, name }, Outcome::Missing) = (&op.call, &op.outcome)
        else {
            continue;
        };
        for (id, created, life) in named.get(name.as_str()).into_iter().flatten() {
            let there = created.outcome.is_done() && created.returned < op.invoked;
            if there && !maybe_removed(life, op.returned) {
                objections.push(Objection::new("missing", format!("{id} is not found: {op:?}")));
            }
        }
    }
    for (name, lives) in &named {
        for (id, created, life) in lives {
            let until = |other: &Op| !maybe_removed(life, other.returned);
            let twin = lives.iter().find(|(other, second, _)| {
                other != id
                    && created.outcome.is_done()
                    && created.returned < second.invoked
                    && until(second)
            });
            if let Some((other, ..)) = twin {
                objections
                    .push(Objection::new("twins", format!("{name} is both {id} and {other}")));
            }
        }
    }
}

impl std::fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} asked {:?} at {}", self.seen, self.asked, self.at)
    }
}

#[cfg(test)]
mod tests;
