//! The scheduler: nodes for tasks that have none, group by group of identical tasks.
//!
//! Groups come by priority. A group is filtered once against all nodes, then each task takes the
//! best node in which only the taken one's score changes: nodes + tasks x log nodes. A small group
//! without special wishes takes the emptiest nodes without a look at the others (`light`). What is
//! placed is written to the pass's state at once, so later groups see it. The rules of fit are
//! `apply`'s own; a placement may still be refused when the state has moved on.
//!
//! A task that finds no room first waits for room that is about to be free anyway (`claim`), then
//! takes it from tasks of lower priority (`preempt`), else says why it waits (`words`).

mod candidate;
mod claim;
mod history;
mod inspect;
mod light;
mod preempt;
mod rank;
mod spread;
mod words;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use cluster_model::command::WRITTEN_BY_THIS_PLAN;
use cluster_model::fit::{self, Seeker, Supposed};
use cluster_model::{Change, Command, Reply, ServiceId, State, Task, TaskId, TaskSpec};

use crate::budget::Budgets;
use crate::{Ids, Note, restart};

use candidate::Candidate;
use history::Shunned;
use preempt::Preemption;
use rank::{Ranking, place_of};
use spread::Verdict;

pub(crate) use claim::name;
pub(crate) use inspect::{Inspection, Standing, failed_before, inspect};
pub(crate) use words::{Tally, bytes, cores};

/// Stamps speculative writes; never leaves the pass.
pub(crate) const SPECULATIVE_INDEX: u64 = WRITTEN_BY_THIS_PLAN;

/// What one run of the scheduler proposes. It is written to the state already.
#[derive(Default)]
pub(crate) struct Placed {
    pub changes: Vec<Change>,
    pub notes: Vec<Note>,
    /// Tasks were left for the next pass.
    pub bounded: bool,
}

/// Pending tasks of one revision of one service.
struct Group<'a> {
    service: ServiceId,
    revision: u32,
    priority: u8,
    spec: &'a TaskSpec,
    tasks: Vec<&'a Task>,
    /// A task that is looked at as if it had no node yet.
    except: Option<TaskId>,
}

impl<'a> Group<'a> {
    fn seeker(&self, task: &'a Task) -> Seeker<'a> {
        Seeker { service: self.service, spec: self.spec, task }
    }
}

pub(crate) fn plan(state: &mut State, now_ms: u64, room: usize, ids: &mut Ids) -> Placed {
    let view = state.clone();
    let (held, groups) = groups(&view, now_ms);
    if held.is_empty() && groups.is_empty() {
        return Placed::default();
    }
    let mut placer = Placer {
        view: &view,
        nodes: Vec::new(),
        state,
        now_ms,
        room,
        ids,
        budgets: Budgets::default(),
        victims_left: preempt::VICTIMS_MAX,
        placed: Placed::default(),
    };
    let mut messages = Vec::new();
    for task in held {
        placer.explain(task, &words::HELD.into(), &mut messages);
    }
    placer.commit(messages);
    for group in &groups {
        placer.place(group);
        if placer.placed.bounded {
            break;
        }
    }
    placer.placed
}

/// Tasks that are not to be placed yet, and the others in groups: the highest priority first, then
/// the service that waits longest, so that one that keeps asking cannot starve it, and its newest
/// revision first, so that failing tasks of an old one do not take the room of what replaces them.
fn groups(state: &State, now_ms: u64) -> (Vec<&Task>, Vec<Group<'_>>) {
    let mut held = Vec::new();
    let mut oldest: BTreeMap<ServiceId, u64> = BTreeMap::new();
    let mut groups: BTreeMap<(ServiceId, u32), Vec<&Task>> = BTreeMap::new();
    for task in state.unassigned_tasks().filter(|task| task.fills_slot()) {
        if restart::holds_back(state, task, now_ms) {
            held.push(task);
            continue;
        }
        groups.entry((task.service, task.revision)).or_default().push(task);
        let oldest = oldest.entry(task.service).or_insert(task.created_at_ms);
        *oldest = task.created_at_ms.min(*oldest);
    }
    let mut groups: Vec<Group<'_>> = groups
        .into_iter()
        .filter_map(|((service, revision), mut tasks)| {
            let owner = state.service(service)?;
            let spec = owner.rules_of(revision)?;
            tasks.sort_unstable_by_key(|task| (task.slot, task.id));
            Some(Group {
                service,
                revision,
                priority: owner.spec.priority,
                spec,
                tasks,
                except: None,
            })
        })
        .collect();
    groups.sort_unstable_by_key(|group| {
        let oldest = oldest.get(&group.service).copied();
        (Reverse(group.priority), oldest, group.service, Reverse(group.revision))
    });
    (held, groups)
}

/// No node can take the task, not even when all that is being stopped has ended.
pub(crate) fn is_hopeless(state: &State, task: &Task) -> bool {
    let spec = state.service(task.service).and_then(|service| service.rules_of(task.revision));
    let Some(spec) = spec else { return true };
    let seeker = Seeker { service: task.service, spec, task };
    !state.nodes().any(|node| fit::obstacle(state, node, seeker, Supposed::STOPPED).is_none())
}

/// One run over all groups.
struct Placer<'a> {
    /// As it was at the start: nodes, services and waiting tasks do not change meanwhile.
    view: &'a State,
    state: &'a mut State,
    now_ms: u64,
    /// Changes allowed.
    room: usize,
    ids: &'a mut Ids,
    /// All nodes, once a group needed them; see [`Placer::know_nodes`].
    nodes: Vec<Candidate<'a>>,
    budgets: Budgets,
    victims_left: usize,
    placed: Placed,
}

impl<'a> Placer<'a> {
    /// Looks at all nodes, unless that was done already.
    fn know_nodes(&mut self) {
        if self.nodes.is_empty() {
            // The same nodes in the same order, as they are now and for as long as the pass lasts.
            let nodes = self.view.nodes().zip(self.state.nodes_in_use());
            self.nodes = nodes.map(|(node, (_, usage))| Candidate::new(node, usage)).collect();
        }
    }

    fn place(&mut self, group: &Group<'a>) {
        // What was promised to tasks that wait is known to candidates alone.
        let lightly = self.nodes.is_empty() && light::suits(self.state, group);
        let placed = if lightly { self.place_lightly(group) } else { 0 };
        let rest = &group.tasks[placed..];
        if rest.is_empty() || self.placed.bounded {
            return;
        }
        self.know_nodes();
        let mut ranking = None;
        let mut batch = Vec::new();
        let mut waiting = Vec::new();
        let one_by_one = fit::has_extras(group.spec);
        for task in rest {
            if self.is_full(&batch) {
                self.placed.bounded = true;
                self.commit(batch);
                return;
            }
            let place = if task.extras.target.is_some() {
                self.targeted(group, task)
            } else {
                let ranking = ranking.get_or_insert_with(|| {
                    Ranking::of(self.state, group, &self.nodes, self.now_ms)
                });
                self.best(group, task, ranking)
            };
            let Some(place) = place else {
                waiting.push(*task);
                continue;
            };
            batch.push(Change::Assign { task: task.id, node: self.nodes[place].node.id });
            // What is beside CPU and memory is read from the state.
            if one_by_one {
                self.commit(std::mem::take(&mut batch));
            }
        }
        self.commit(batch);
        self.wait(group, &waiting);
    }

    /// The only node that will do.
    fn targeted(&mut self, group: &Group<'a>, task: &'a Task) -> Option<usize> {
        let place = place_of(&self.nodes, task.extras.target?)?;
        let candidate = &mut self.nodes[place];
        if candidate.obstacle(self.state, group.seeker(task)).is_some() {
            return None;
        }
        candidate.take(group.spec);
        Some(place)
    }

    /// The best of the nodes. Where this slot could not start, or the service keeps failing, is
    /// tried when nothing else is left.
    fn best(
        &mut self,
        group: &Group<'a>,
        task: &'a Task,
        ranking: &mut Ranking<'a>,
    ) -> Option<usize> {
        // Without any history there is none of the slot.
        let shunned = match ranking.history {
            true => history::shunned(self.state, task, self.now_ms),
            false => Shunned::default(),
        };
        let own = self.own_places(group, task);
        for place in &own {
            ranking.restore(*place, &self.nodes[*place]);
        }
        let failing = std::mem::take(&mut ranking.failing);
        let (state, nodes) = (&*self.state, &self.nodes);
        let ask = |place: usize, last: bool, Shunned { rejected, failed }: &Shunned| {
            let node = nodes[place].node.id;
            if !last && (rejected.contains(&node) || failing.contains(&node)) {
                return Verdict::Pass;
            }
            match nodes[place].extras(state, group.seeker(task)) {
                Some(_) if own.contains(&place) => Verdict::Pass,
                Some(_) => Verdict::Drop,
                None if failed.contains(&node) => Verdict::Reluctantly,
                None => Verdict::Take,
            }
        };
        let mut found = ranking.find(&mut |place| ask(place, false, &shunned));
        if found.is_none() && !(shunned.rejected.is_empty() && failing.is_empty()) {
            found = ranking.find(&mut |place| ask(place, true, &shunned));
        }
        ranking.failing = failing;
        let place = found?.place();
        self.nodes[place].take(group.spec);
        ranking.placed(place, &self.nodes[place]);
        Some(place)
    }

    /// Nodes on which something of the task's own slot is alive: with a bound of tasks per node
    /// these may be right for it and wrong for its siblings.
    fn own_places(&self, group: &Group<'a>, task: &Task) -> Vec<usize> {
        if group.spec.placement.max_per_node == 0 {
            return Vec::new();
        }
        self.state
            .tasks_of_slot(task.service, task.slot)
            .filter(|other| other.holds_resources())
            .filter_map(|other| place_of(&self.nodes, other.node?))
            .collect()
    }

    /// What becomes of a group's tasks that found no node.
    fn wait(&mut self, group: &Group<'a>, waiting: &[&'a Task]) {
        let mut messages = Vec::new();
        let mut why: Option<Arc<str>> = None;
        let mut preemption = None;
        let mut hopeless = false;
        let mut unplaced = 0;
        for task in waiting {
            // What does not help one does not help its equals.
            let alike = task.extras.target.is_none() && group.spec.placement.max_per_node == 0;
            let promised = if hopeless && alike {
                None
            } else {
                let claimed = self.claim(group, task);
                claimed.or_else(|| {
                    let preemption = preemption.get_or_insert_with(|| Preemption::new(self, group));
                    self.preempt(group, task, preemption)
                })
            };
            if self.placed.bounded {
                break;
            }
            if let Some(message) = promised {
                // Room was promised: what the others lack may be something else now.
                why = None;
                self.explain(task, &message.into(), &mut messages);
                continue;
            }
            hopeless |= alike;
            unplaced += 1;
            let message = match &why {
                Some(why) if task.extras.target.is_none() => why.clone(),
                _ => words::nowhere(self.state, group.seeker(task), &self.nodes).into(),
            };
            self.explain(task, &message, &mut messages);
            why = Some(message);
        }
        self.commit(messages);
        if let Some(why) = why.filter(|_| unplaced > 0) {
            let service = group.service;
            self.placed.notes.push(Note::Unplaced { service, tasks: unplaced, why });
        }
    }

    /// Only what the task does not already say is written.
    fn explain(&mut self, task: &Task, why: &Arc<str>, messages: &mut Vec<Change>) {
        if task.status.details.message.as_ref().is_some_and(|said| says_the_same(said, why)) {
            return;
        }
        if self.is_full(messages) {
            self.placed.bounded = true;
            return;
        }
        messages.push(Change::Explain { task: task.id, message: why.clone() });
    }

    fn is_full(&self, uncommitted: &[Change]) -> bool {
        self.placed.changes.len() + uncommitted.len() >= self.room
    }

    /// Writes changes to the pass's state.
    fn commit(&mut self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let command = Command::Plan { at_ms: self.now_ms, changes };
        let outcome = cluster_model::apply(self.state, SPECULATIVE_INDEX, &command);
        if let Ok(Reply::Counted { refused: count @ 1.., .. }) = outcome.reply {
            self.placed.notes.push(Note::Refused { count });
        }
        if let Command::Plan { changes, .. } = command {
            self.placed.changes.extend(changes);
        }
    }
}

/// The two texts differ at most in amounts of room, which change with every task that comes or
/// goes: writing each would fill the log with them. Who asks is told the present ones.
fn says_the_same(said: &str, now: &str) -> bool {
    let plain = |text: &str| -> String {
        text.chars().filter(|c| !c.is_ascii_digit() && *c != '.').collect()
    };
    said == now || now.starts_with(words::NOWHERE) && plain(said) == plain(now)
}
