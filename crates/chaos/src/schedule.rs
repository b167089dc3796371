//! Which fault comes when, to whom and for how long: drawn from a seed, known before the run.
//!
//! Faults are dealt like cards from a shuffled deck, so that each kind comes before any comes
//! again. At no moment are more managers impaired than the group can lose, nor so many workers that
//! the storm guard would stop replacing; only a blackout takes all at once. Time that a node needs
//! to come back counts as impaired.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

macro_rules! faults {
    ($($name:ident $word:literal $doc:literal;)*) => {
        /// What can be done to a lab, by the words of `--kill`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault { $(#[doc = $doc] $name,)* }

        impl Fault {
            pub const ALL: &[Fault] = &[$(Fault::$name,)*];

            pub fn word(self) -> &'static str {
                match self { $(Fault::$name => $word,)* }
            }
        }
    };
}

faults! {
    Workers "workers" "kill -9 of a worker process; its containers live on";
    Managers "managers" "kill -9 of a manager process";
    Leader "leader" "kill -9 of the leader, three times in a row";
    Shims "shims" "kill -9 of a container's shim";
    Containers "containers" "kill -9 of a container's program";
    Hosts "hosts" "a host loses power";
    Pauses "pauses" "SIGSTOP of a daemon, or a whole host frozen";
    Hangs "hangs" "SIGSTOP of a container's shim: its runtime hangs";
    Cuts "cuts" "a silent partition, both ways or one way";
    Links "links" "a link that delays, loses or slows down";
    Disks "disks" "a full disk";
    Files "files" "state files flipped or deleted between restarts";
    Blackout "blackout" "all hosts lose power at once";
}

impl std::str::FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|fault| fault.word() == text);
        known.copied().ok_or_else(|| {
            let words: Vec<_> = Self::ALL.iter().map(|fault| fault.word()).collect();
            format!("`{text}` is no fault; there are {}", words.join(", "))
        })
    }
}

/// One fault of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    pub at: Duration,
    pub fault: Fault,
    /// None: whoever leads then, or everybody.
    pub node: Option<String>,
    /// Chooses among what the fault can do or meets.
    pub pick: u64,
    pub lasts: Duration,
}

impl Planned {
    pub fn ends(&self) -> Duration {
        self.at + self.lasts
    }
}

/// The machines that faults meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machines {
    pub managers: Vec<String>,
    pub workers: Vec<String>,
    /// Whether their disks can be filled.
    pub disks: bool,
}

/// Before the first fault, and after the last.
const LEAD: Duration = Duration::from_secs(3);
const GAP_MILLIS: std::ops::Range<u64> = 1000..3000;
/// What a node needs to be whole again after its fault.
const RECOVERY: Duration = Duration::from_secs(4);
/// How far a fault may be planned before one that was drawn earlier.
const AHEAD: Duration = Duration::from_secs(6);
const LEADER_KILLS: u32 = 3;
const LEADER_PERIOD: Duration = Duration::from_secs(4);

fn seconds(fault: Fault) -> std::ops::Range<u64> {
    match fault {
        Fault::Workers => 0..6,
        Fault::Managers => 1..6,
        Fault::Leader => 1..3,
        Fault::Shims | Fault::Containers => 0..1,
        Fault::Hosts => 1..8,
        Fault::Pauses => 1..8,
        Fault::Hangs => 3..12,
        Fault::Cuts => 1..8,
        Fault::Links => 4..10,
        Fault::Disks => 3..7,
        Fault::Files => 1..3,
        Fault::Blackout => 1..4,
    }
}

/// The plan of a run that lasts `total`: the last fault is over by then.
pub fn plan(seed: u64, total: Duration, faults: &[Fault], machines: &Machines) -> Vec<Planned> {
    let mut random = StdRng::seed_from_u64(seed);
    let possible: Vec<Fault> =
        faults.iter().copied().filter(|fault| *fault != Fault::Disks || machines.disks).collect();
    let mut deck: Vec<Fault> = Vec::new();
    let mut busy = Busy::new(machines);
    let mut planned = Vec::new();
    let mut now = LEAD;
    while !possible.is_empty() {
        if deck.is_empty() {
            deck.clone_from(&possible);
            deck.shuffle(&mut random);
        }
        let Some(fault) = deck.pop() else { break };
        let lasts = Duration::from_millis(random.random_range(0..1000))
            + Duration::from_secs(random.random_range(seconds(fault)));
        let pick = random.random::<u32>().into();
        let Some((at, nodes)) = busy.place(fault, now, lasts, &mut random) else { continue };
        let kills = if fault == Fault::Leader { LEADER_KILLS } else { 1 };
        let first = Planned { at, fault, node: nodes, pick, lasts };
        if first.ends() + LEADER_PERIOD * (kills - 1) > total {
            break;
        }
        for kill in 0..kills {
            planned.push(Planned { at: at + LEADER_PERIOD * kill, ..first.clone() });
        }
        // Who waits for its node does not hold up faults of others, for a while.
        let gap = Duration::from_millis(random.random_range(GAP_MILLIS));
        now = (now + gap).max(at.saturating_sub(AHEAD));
    }
    planned.sort_by_key(|one| one.at);
    planned
}

/// Until when each node is impaired by what is planned already.
struct Busy<'a> {
    machines: &'a Machines,
    managers: Vec<Duration>,
    workers: Vec<Duration>,
}

impl<'a> Busy<'a> {
    fn new(machines: &'a Machines) -> Self {
        let managers = vec![Duration::ZERO; machines.managers.len()];
        let workers = vec![Duration::ZERO; machines.workers.len()];
        Self { machines, managers, workers }
    }

    /// The first moment from `now` on at which the fault fits, and whom it meets. `None` if it
    /// never does.
    fn place(
        &mut self,
        fault: Fault,
        now: Duration,
        lasts: Duration,
        random: &mut StdRng,
    ) -> Option<(Duration, Option<String>)> {
        let managers_only = matches!(fault, Fault::Managers | Fault::Leader);
        let workers_only =
            matches!(fault, Fault::Workers | Fault::Shims | Fault::Containers | Fault::Hangs);
        let both = !managers_only && !workers_only;
        let of_managers = managers_only || (both && random.random_ratio(2, 5));
        let free_at = |all: &[Duration], count: usize| {
            let mut all = all.to_vec();
            all.sort_unstable();
            // So many must be free, and one more to be met.
            all.get(count).copied().unwrap_or(Duration::ZERO)
        };
        match fault {
            Fault::Blackout => {
                let all = self.managers.iter().chain(&self.workers).copied();
                let at = all.max().unwrap_or_default().max(now);
                let until = at + lasts + RECOVERY;
                self.managers.fill(until);
                self.workers.fill(until);
                Some((at, None))
            }
            Fault::Leader => {
                let at = self.managers.iter().copied().max()?.max(now);
                self.managers.fill(at + LEADER_PERIOD * LEADER_KILLS + RECOVERY);
                Some((at, None))
            }
            _ => {
                let (names, busy) = if of_managers {
                    (&self.machines.managers, &mut self.managers)
                } else {
                    (&self.machines.workers, &mut self.workers)
                };
                // All but a minority must be well.
                let well =
                    names.len() - (names.len().saturating_sub(1) / 2).max(1).min(names.len());
                // What a container loses its node need not recover from.
                let light = matches!(fault, Fault::Shims | Fault::Containers);
                let at = free_at(busy, if light { 0 } else { well }).max(now);
                let free: Vec<usize> = (0..busy.len()).filter(|place| busy[*place] <= at).collect();
                let place = *free.get(random.random_range(0..free.len().max(1)))?;
                if !light {
                    busy[place] = at + lasts + RECOVERY;
                }
                Some((at, Some(names[place].clone())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machines(managers: usize, workers: usize) -> Machines {
        let named = |role: &str, count| (1..=count).map(|n| format!("{role}-{n}")).collect();
        Machines {
            managers: named("manager", managers),
            workers: named("worker", workers),
            disks: true,
        }
    }

    const TOTAL: Duration = Duration::from_secs(300);

    #[test]
    fn a_seed_is_a_plan() {
        let machines = machines(3, 3);
        assert_eq!(plan(7, TOTAL, Fault::ALL, &machines), plan(7, TOTAL, Fault::ALL, &machines));
        assert_ne!(plan(7, TOTAL, Fault::ALL, &machines), plan(8, TOTAL, Fault::ALL, &machines));
    }

    #[test]
    fn every_kind_comes_and_all_is_over_in_time() {
        for seed in 0..50 {
            let planned = plan(seed, TOTAL, Fault::ALL, &machines(3, 3));
            for fault in Fault::ALL {
                assert!(planned.iter().any(|one| one.fault == *fault), "{seed}: {fault:?}");
            }
            assert!(planned.iter().all(|one| one.ends() <= TOTAL));
            assert!(planned.len() > 30, "{}", planned.len());
        }
    }

    #[test]
    fn a_majority_is_always_well() {
        for seed in 0..50 {
            for (managers, workers) in [(3, 3), (5, 6), (3, 2)] {
                let planned = plan(seed, TOTAL, Fault::ALL, &machines(managers, workers));
                for moment in planned.iter().map(|one| one.at) {
                    let light = [Fault::Shims, Fault::Containers];
                    let met = |role: &str| {
                        let now = planned.iter().filter(|one| {
                            !light.contains(&one.fault) && one.at <= moment && moment < one.ends()
                        });
                        let nodes = now.filter_map(|one| one.node.as_ref());
                        nodes.filter(|node| node.starts_with(role)).count()
                    };
                    assert!(met("manager") <= (managers - 1) / 2, "{seed}: {moment:?}");
                    assert!(met("worker") <= ((workers - 1) / 2).max(1), "{seed}: {moment:?}");
                }
            }
        }
    }

    #[test]
    fn only_what_is_asked_for_and_can_be_done() {
        let planned = plan(1, TOTAL, &[Fault::Leader, Fault::Hosts], &machines(3, 3));
        assert!(planned.iter().all(|one| matches!(one.fault, Fault::Leader | Fault::Hosts)));
        assert!(planned.is_sorted_by_key(|one| one.at));
        let bare = Machines { disks: false, ..machines(3, 3) };
        assert_eq!(plan(1, TOTAL, &[Fault::Disks], &bare), []);
        assert!("leaders".parse::<Fault>().is_err());
        assert_eq!("leader".parse(), Ok(Fault::Leader));
    }
}
