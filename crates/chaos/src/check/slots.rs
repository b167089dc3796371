//! What really runs, judged sample by sample: the kernel's view, never our own reports.
//!
//! | rule | objects to |
//! | --- | --- |
//! | `slot` | two tasks of one slot alive in two samples in a row, on nodes that were left alone for long enough |
//! | `leftover` | a task of a removed service, on such a node, long after the removal |
//!
//! A node is *settled* when nothing was done to it for [`Bounds::settle`]: a cut-off node may run
//! what was replaced elsewhere, and gets that long after its return to stop it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Objection;

/// A container with at least one living process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Live {
    pub node: String,
    pub task: String,
    /// None while the container is not yet its program.
    pub role: Option<Role>,
}

/// What a container's environment says of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Role {
    pub service_id: String,
    pub service: String,
    pub slot: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub settle: Duration,
    pub removed: Duration,
}

/// What the judge must know besides the processes.
pub trait Circumstances {
    /// How long ago anything was done to the node, or undone.
    fn quiet_for(&self, node: &str) -> Duration;
    /// How long ago the removal of the service was acknowledged.
    fn removed_for(&self, service_id: &str) -> Option<Duration>;
    /// How many tasks one slot may have at once: two where the new one starts first.
    fn per_slot(&self, service: &str) -> usize;
    /// Whether each node has a slot of its own.
    fn is_global(&self, service: &str) -> bool;
}

type Suspicion = (String, BTreeSet<String>);

#[derive(Debug)]
pub struct Judge {
    bounds: Bounds,
    suspected: BTreeSet<Suspicion>,
    told: BTreeSet<Suspicion>,
    /// Samples in which at least one slot could be judged.
    pub judged: u64,
}

impl Judge {
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, suspected: BTreeSet::new(), told: BTreeSet::new(), judged: 0 }
    }

    pub fn feed(&mut self, live: &[Live], now: &impl Circumstances) -> Vec<Objection> {
        let mut objections = Vec::new();
        let settled = |live: &&Live| now.quiet_for(&live.node) >= self.bounds.settle;
        let mut slots: BTreeMap<String, (usize, BTreeSet<String>)> = BTreeMap::new();
        let mut suspected = BTreeSet::new();
        for one in live.iter().filter(settled) {
            let Some(role) = &one.role else { continue };
            let mut slot = format!("{}.{} ({})", role.service, role.slot, role.service_id);
            if now.is_global(&role.service) {
                slot = format!("{slot} of {}", one.node);
            }
            let entry = slots.entry(slot).or_insert((now.per_slot(&role.service), BTreeSet::new()));
            entry.1.insert(format!("{} on {}", one.task, one.node));
            let removed = now.removed_for(&role.service_id);
            if let Some(ago) = removed.filter(|ago| *ago > self.bounds.removed) {
                let key = (role.service_id.clone(), BTreeSet::from([one.task.clone()]));
                if self.told.insert(key) {
                    let detail = format!(
                        "{} of {} ({}) runs on {}, {:.1} s after the removal",
                        one.task,
                        role.service,
                        role.service_id,
                        one.node,
                        ago.as_secs_f64()
                    );
                    objections.push(Objection::new("leftover", detail));
                }
            }
        }
        self.judged += u64::from(!slots.is_empty());
        for (slot, (most, tasks)) in slots {
            if tasks.len() <= most {
                continue;
            }
            let key = (slot, tasks);
            if self.suspected.contains(&key) && self.told.insert(key.clone()) {
                let tasks: Vec<&str> = key.1.iter().map(String::as_str).collect();
                let detail = format!("{} is filled by {}", key.0, tasks.join(" and "));
                objections.push(Objection::new("slot", detail));
            }
            suspected.insert(key);
        }
        self.suspected = suspected;
        objections
    }
}

/// What the API says should run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub service_id: String,
    pub service: String,
    pub replicas: u32,
    pub is_global: bool,
}

/// What runs too much or too little; empty when desired equals running. Slots keep their numbers
/// when a service shrinks, so that it is their count that is asked for.
pub fn differences(wanted: &[Wanted], nodes: &[String], live: &[Live]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut filled: BTreeMap<&str, BTreeMap<String, Vec<String>>> = BTreeMap::new();
    for one in live {
        let shown = format!("{} on {}", one.task, one.node);
        let Some(role) = &one.role else {
            problems.push(format!("{shown} is not yet its program"));
            continue;
        };
        let Some(service) = wanted.iter().find(|known| known.service_id == role.service_id) else {
            problems.push(format!("{shown} is of {}, which is gone", role.service));
            continue;
        };
        let slot = if service.is_global { one.node.clone() } else { role.slot.to_string() };
        filled.entry(&service.service_id).or_default().entry(slot).or_default().push(shown);
    }
    for service in wanted {
        let name = format!("{} ({})", service.service, service.service_id);
        let slots = filled.remove(service.service_id.as_str()).unwrap_or_default();
        for (slot, tasks) in slots.iter().filter(|(_, tasks)| tasks.len() > 1) {
            problems.push(format!("slot {slot} of {name} is filled by {}", tasks.join(" and ")));
        }
        let count = if service.is_global { nodes.len() } else { service.replicas as usize };
        if slots.len() != count {
            let slots: Vec<_> = slots.into_keys().collect();
            let slots = slots.join(", ");
            problems.push(format!("{name} should fill {count} slots and fills: {slots}"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds =
        Bounds { settle: Duration::from_secs(10), removed: Duration::from_secs(5) };

    struct Now {
        quiet: BTreeMap<&'static str, u64>,
        removed: Option<u64>,
    }

    impl Circumstances for Now {
        fn quiet_for(&self, node: &str) -> Duration {
            Duration::from_secs(*self.quiet.get(node).unwrap_or(&100))
        }

        fn removed_for(&self, _: &str) -> Option<Duration> {
            self.removed.map(Duration::from_secs)
        }

        fn per_slot(&self, service: &str) -> usize {
            if service == "first" { 2 } else { 1 }
        }

        fn is_global(&self, service: &str) -> bool {
            service == "everywhere"
        }
    }

    const CALM: Now = Now { quiet: BTreeMap::new(), removed: None };

    fn live(node: &str, task: &str, service: &str, slot: u32) -> Live {
        let role = Role { service_id: "id".to_owned(), service: service.to_owned(), slot };
        Live { node: node.to_owned(), task: task.to_owned(), role: Some(role) }
    }

    fn twice(live: &[Live], now: &Now) -> Vec<&'static str> {
        let mut judge = Judge::new(BOUNDS);
        let mut found = judge.feed(live, now);
        found.extend(judge.feed(live, now));
        found.extend(judge.feed(live, now));
        found.into_iter().map(|objection| objection.rule).collect()
    }

    #[test]
    fn two_tasks_in_a_slot_are_found_once() {
        let both = [live("n1", "a", "web", 1), live("n2", "b", "web", 1)];
        assert_eq!(twice(&both, &CALM), ["slot"]);
        assert_eq!(Judge::new(BOUNDS).feed(&both, &CALM), [], "one sample may straddle a change");
        assert_eq!(twice(&[live("n1", "a", "web", 1), live("n1", "b", "web", 1)], &CALM), ["slot"]);
        assert_eq!(
            twice(&[live("n1", "a", "web", 1), live("n2", "b", "web", 2)], &CALM),
            [] as [&str; 0]
        );
    }

    #[test]
    fn a_node_that_was_away_gets_its_time() {
        let both = [live("n1", "a", "web", 1), live("n2", "b", "web", 1)];
        let away = |since| Now { quiet: BTreeMap::from([("n1", since)]), removed: None };
        assert_eq!(twice(&both, &away(9)), [] as [&str; 0]);
        assert_eq!(twice(&both, &away(10)), ["slot"]);
    }

    #[test]
    fn start_first_has_two_and_not_three_and_global_one_a_node() {
        let mut three = vec![live("n1", "a", "first", 1), live("n2", "b", "first", 1)];
        assert_eq!(twice(&three, &CALM), [] as [&str; 0]);
        three.push(live("n3", "c", "first", 1));
        assert_eq!(twice(&three, &CALM), ["slot"]);
        let global = [live("n1", "a", "everywhere", 0), live("n2", "b", "everywhere", 0)];
        assert_eq!(twice(&global, &CALM), [] as [&str; 0]);
        let global = [live("n1", "a", "everywhere", 0), live("n1", "b", "everywhere", 0)];
        assert_eq!(twice(&global, &CALM), ["slot"]);
    }

    #[test]
    fn what_a_removed_service_leaves_is_found() {
        let one = [live("n1", "a", "web", 1)];
        let after = |removed| Now { quiet: BTreeMap::new(), removed: Some(removed) };
        assert_eq!(twice(&one, &after(5)), [] as [&str; 0]);
        assert_eq!(twice(&one, &after(6)), ["leftover"]);
    }

    #[test]
    fn differences_name_what_is_too_much_and_what_is_missing() {
        let wanted = |replicas, is_global| Wanted {
            service_id: "id".to_owned(),
            service: "web".to_owned(),
            replicas,
            is_global,
        };
        let nodes = ["n1".to_owned(), "n2".to_owned()];
        let both = [live("n1", "a", "web", 1), live("n2", "b", "web", 2)];
        assert_eq!(differences(&[wanted(2, false)], &nodes, &both), [] as [&str; 0]);
        assert_eq!(differences(&[wanted(1, false)], &nodes, &both).len(), 1);
        assert_eq!(differences(&[wanted(3, false)], &nodes, &both).len(), 1);
        assert_eq!(differences(&[], &nodes, &both).len(), 2);
        let gap = [live("n1", "a", "web", 1), live("n2", "b", "web", 3)];
        assert_eq!(differences(&[wanted(2, false)], &nodes, &gap), [] as [&str; 0], "shrunk");
        let twins = [live("n1", "a", "web", 1), live("n2", "b", "web", 1)];
        assert_eq!(differences(&[wanted(1, false)], &nodes, &twins).len(), 1);
        assert_eq!(differences(&[wanted(0, true)], &nodes, &twins), [] as [&str; 0]);
        assert_eq!(differences(&[wanted(0, true)], &nodes, &twins[..1]).len(), 1);
    }
}
