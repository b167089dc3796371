//! Properties of placement: random nodes, wishes and priorities.
//!
//! `World::apply` asserts after every write that nothing is overbooked, `World::plan` that a second
//! pass finds nothing and that `apply` takes whatever the scheduler proposes.

use std::collections::{BTreeMap, BTreeSet};

use cluster_model::fit::{self, Seeker, Supposed};
use cluster_model::node::Generic;
use cluster_model::spec::{
    Affinity, AffinityTarget, Amount, HostPort, ServiceSpec, Strategy as Packing,
};
use cluster_model::task::Moved;
use cluster_model::{
    Availability, Change, Desired, NodeId, Observed, Reason, ServiceId, State, Task, TaskId,
};
use cluster_planner::{Scope, explain};
use proptest::prelude::*;

use crate::holdings::equip;
use crate::world::{MIB, World, spec};

const SERVICES: u64 = 4;

#[derive(Clone, Debug)]
struct Machine {
    cores: u64,
    memory_mib: u64,
    rack: u8,
    gpus: u8,
    licences: u64,
}

#[derive(Clone, Debug)]
struct Wish {
    replicas: u32,
    priority: u8,
    memory_mib: u64,
    cores: u64,
    port: Option<u16>,
    gpus: u64,
    licences: u64,
    max_per_node: u32,
    spread: bool,
    rack: Option<u8>,
    packing: Option<Packing>,
    affinity: Option<(u64, i8)>,
    unavailable: u32,
}

impl Wish {
    fn dress(&self, spec: &mut ServiceSpec) {
        spec.priority = self.priority;
        spec.max_unavailable = Amount::Count(self.unavailable);
        let task = &mut spec.task;
        task.reservations.memory_bytes = self.memory_mib * MIB;
        task.reservations.cpu_nanos = self.cores * 1_000_000_000;
        task.host_ports =
            self.port.iter().map(|port| HostPort { published: *port, target: 80 }).collect();
        task.generic = BTreeMap::new();
        for (kind, count) in [("gpu", self.gpus), ("licence", self.licences)] {
            if count > 0 {
                task.generic.insert(kind.into(), count);
            }
        }
        let place = &mut task.placement;
        place.max_per_node = self.max_per_node;
        place.strategy = self.packing;
        place.spread_over = Vec::new();
        if self.spread {
            place.spread_over.push("node.labels.rack".parse().expect("parses"));
        }
        place.constraints =
            self.rack.iter().map(|rack| format!("node.labels.rack!={rack}")).map(parse).collect();
        place.affinities = Vec::new();
        if let Some((other, weight)) = self.affinity {
            let target = AffinityTarget::Service(format!("s{other}"));
            place.affinities.push(Affinity { target, weight });
        }
    }
}

fn parse<T: std::str::FromStr<Err: std::fmt::Debug>>(text: String) -> T {
    text.parse().expect("parses")
}

fn machine() -> impl Strategy<Value = Machine> {
    (1u64..5, 100u64..1000, 0u8..4, 0u8..4, 0u64..4).prop_map(
        |(cores, memory_mib, rack, gpus, licences)| Machine {
            cores,
            memory_mib,
            rack,
            gpus,
            licences,
        },
    )
}

fn wish() -> impl Strategy<Value = Wish> {
    let rare = |range: std::ops::Range<u64>| prop_oneof![3 => Just(0u64), 1 => range];
    let room = (
        0u32..7,
        prop::sample::select(vec![0u8, 45, 50, 50, 55, 60, 100]),
        prop_oneof![1 => Just(0u64), 3 => 20u64..400],
        rare(1..3),
        prop_oneof![3 => Just(None), 1 => (80u16..82).prop_map(Some)],
        rare(1..3),
        rare(1..3),
    );
    let place = (
        prop_oneof![3 => Just(0u32), 1 => 1u32..3],
        any::<bool>(),
        prop_oneof![3 => Just(None), 1 => (0u8..4).prop_map(Some)],
        prop::sample::select(vec![None, Some(Packing::BinPack), Some(Packing::Spread)]),
        prop_oneof![
            2 => Just(None),
            1 => (1..=SERVICES, prop::sample::select(vec![-50i8, 50])).prop_map(Some)
        ],
        0u32..3,
    );
    (room, place).prop_map(|(room, place)| {
        let (replicas, priority, memory_mib, cores, port, gpus, licences) = room;
        let (max_per_node, spread, rack, packing, affinity, unavailable) = place;
        Wish {
            replicas,
            priority,
            memory_mib,
            cores,
            port,
            gpus,
            licences,
            max_per_node,
            spread,
            rack,
            packing,
            affinity,
            unavailable,
        }
    })
}

#[derive(Clone, Debug)]
enum Op {
    Ask {
        service: u64,
        wish: Wish,
    },
    Scale {
        service: u64,
        replicas: u32,
    },
    Exit {
        pick: usize,
    },
    Agent {
        node: u64,
    },
    Set {
        node: u64,
        availability: Availability,
    },
    Plan,
    /// A plan is made now and taken later, when it is stale.
    Draft,
    Deliver {
        pick: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let availability =
        prop::sample::select(vec![Availability::Active, Availability::Pause, Availability::Drain]);
    prop_oneof![
        3 => (1..=SERVICES, wish()).prop_map(|(service, wish)| Op::Ask { service, wish }),
        2 => (1..=SERVICES, 0u32..8)
            .prop_map(|(service, replicas)| Op::Scale { service, replicas }),
        1 => any::<usize>().prop_map(|pick| Op::Exit { pick }),
        8 => (1u64..6).prop_map(|node| Op::Agent { node }),
        1 => (1u64..6, availability)
            .prop_map(|(node, availability)| Op::Set { node, availability }),
        8 => Just(Op::Plan),
        1 => Just(Op::Draft),
        1 => any::<usize>().prop_map(|pick| Op::Deliver { pick }),
    ]
}

fn world(machines: &[Machine]) -> World {
    let mut world = World::new();
    for (number, machine) in (1..).zip(machines) {
        let id = NodeId(number);
        world.join(id, machine.memory_mib * MIB);
        if machine.rack > 0 {
            world.label(id, "rack", &machine.rack.to_string());
        }
        equip(&mut world, id, |node| {
            node.capacity.cpu_nanos = machine.cores * 1_000_000_000;
            let names = (0..machine.gpus).map(|gpu| format!("gpu{gpu}")).collect();
            node.generic.insert("gpu".into(), Generic::Named(names));
            node.generic.insert("licence".into(), Generic::Count(machine.licences));
        });
    }
    world
}

fn step(world: &mut World, drafts: &mut Vec<Vec<Change>>, op: &Op) {
    match op {
        Op::Ask { service, wish } => {
            let id = ServiceId(*service);
            if world.state.service(id).is_some() {
                world.update(id, |spec| wish.dress(spec));
            } else {
                let mut spec = spec(&format!("s{service}"), wish.replicas);
                wish.dress(&mut spec);
                world.create(*service, spec);
            }
        }
        Op::Scale { service, replicas } => world.scale(ServiceId(*service), *replicas),
        Op::Exit { pick } => {
            let running: Vec<TaskId> = world
                .state
                .tasks()
                .filter(|task| task.status.state == Observed::Running)
                .map(|task| task.id)
                .collect();
            if !running.is_empty() {
                world.ends(running[pick % running.len()], Observed::Failed);
            }
        }
        Op::Agent { node } => {
            world.agent(NodeId(*node));
        }
        Op::Set { node, availability } => world.availability(NodeId(*node), *availability),
        Op::Plan => plan(world),
        Op::Draft => drafts.push(world.make_plan(Scope::All).changes),
        Op::Deliver { pick } => {
            if !drafts.is_empty() {
                let changes = drafts[pick % drafts.len()].clone();
                world.apply_plan(changes);
            }
        }
    }
}

fn plan(world: &mut World) {
    let before = world.state.clone();
    let changes = world.plan();
    check_preemption(&before, &world.state, &changes);
    for task in world.state.unassigned_tasks().filter(|task| task.fills_slot()) {
        assert!(task.status.details.message.is_some(), "waits without a reason: {task:?}");
        let said = explain::task(&world.state, task.id, world.now_ms);
        assert!(said.verdict.starts_with("pending: "), "{said:?}");
    }
    for task in world.state.tasks().filter(|task| task.fills_slot() && task.node.is_some()) {
        let said = explain::task(&world.state, task.id, world.now_ms);
        assert!(said.verdict.starts_with("on node-"), "{said:?}");
    }
}

fn priority(state: &State, task: &Task) -> u8 {
    state.service(task.service).expect("known").spec.priority
}

/// Whoever is preempted makes way for somebody of much higher priority on its node, and is needed.
fn check_preemption(before: &State, after: &State, changes: &[Change]) {
    let mut by_node: BTreeMap<NodeId, Vec<&Task>> = BTreeMap::new();
    for change in changes {
        if let Change::SetDesired { task, desired: Desired::Shutdown, reason } = change
            && *reason == Reason::Reschedule(Moved::Preempted)
        {
            let victim = after.task(*task).expect("stops");
            by_node.entry(victim.node.expect("placed")).or_default().push(victim);
        }
    }
    // Whom it makes way for may after all wait elsewhere: a later victim can leave room for several.
    let waiting: Vec<&Task> = after
        .unassigned_tasks()
        .filter(|task| {
            let message = task.status.details.message.as_deref();
            message.is_some_and(|message| message.starts_with("waits for room: preempts"))
        })
        .collect();
    for (id, victims) in by_node {
        let node = after.node(id).expect("known");
        let suffix = format!(" on {}", node.name);
        let ends_here = |task: &&Task| {
            task.status.details.message.as_deref().is_some_and(|message| message.ends_with(&suffix))
        };
        let takers: Vec<&Task> = waiting.iter().copied().filter(ends_here).collect();
        for victim in &victims {
            let outranked = waiting.iter().any(|taker| {
                taker.service != victim.service
                    && priority(after, taker) >= priority(after, victim) + 10
            });
            assert!(outranked, "{victim:?} makes way for nobody: {takers:?}");
        }
        let [taker] = takers[..] else { continue };
        // Tasks placed by the same pass, or waiting here for other room, blur the sum.
        let calm = before.tasks_of_node(id).count() == after.tasks_of_node(id).count()
            && after.unassigned_tasks().all(|task| {
                task.id == taker.id
                    || !task.status.details.message.as_deref().is_some_and(|m| m.contains(&suffix))
            });
        if !calm {
            continue;
        }
        let service = after.service(taker.service).expect("known");
        let spec = service.rules_of(taker.revision).expect("kept");
        let seeker = Seeker { service: service.id, spec, task: taker };
        for spared in &victims {
            let gone = |task: &Task| fit::leaving(task) && task.id != spared.id;
            let fits = fit::obstacle(after, node, seeker, Supposed { gone: &gone, come: &[] });
            assert!(fits.is_some(), "{spared:?} need not go for {taker:?}");
        }
        let fits = fit::obstacle(after, node, seeker, Supposed::STOPPED);
        assert_eq!(fits, None, "what goes is not enough for {taker:?}");
    }
}

/// At rest what waits fits nowhere.
fn check_rest(world: &World) {
    for task in world.state.tasks().filter(|task| task.fills_slot()) {
        if task.node.is_some() {
            assert!(task.serves(), "neither runs nor waits: {task:?}");
            continue;
        }
        let service = world.state.service(task.service).expect("known");
        let spec = service.rules_of(task.revision).expect("kept");
        let seeker = Seeker { service: service.id, spec, task };
        for node in world.state.nodes() {
            assert!(fit::fits(&world.state, node, seeker).is_err(), "{task:?} fits {node:?}");
        }
    }
}

proptest! {
    #[test]
    fn nothing_is_overbooked_and_what_waits_fits_nowhere(
        machines in prop::collection::vec(machine(), 1..6),
        ops in prop::collection::vec(op(), 1..60),
    ) {
        let mut world = world(&machines);
        let mut drafts = Vec::new();
        for op in &ops {
            step(&mut world, &mut drafts, op);
        }
        world.settle_through_waits();
        check_rest(&world);
    }

    /// Scheduler and `apply` agree about every node: a lone task is placed exactly when one fits.
    #[test]
    fn the_scheduler_says_what_apply_says(
        machines in prop::collection::vec(machine(), 1..6),
        ops in prop::collection::vec(op(), 1..30),
        wish in wish(),
    ) {
        let mut world = world(&machines);
        let mut drafts = Vec::new();
        for op in &ops {
            step(&mut world, &mut drafts, op);
        }
        world.settle_through_waits();
        let mut lone = spec("lone", 1);
        wish.dress(&mut lone);
        // So low that it takes nothing from others.
        lone.priority = 0;
        let lone = world.create(99, lone);
        let pass = world.make_plan(Scope::All);
        let creation: Vec<Change> = pass
            .changes
            .iter()
            .filter(|change| matches!(change, Change::CreateTasks { .. }))
            .cloned()
            .collect();
        let mut bare = world.state.clone();
        let command = cluster_model::Command::Plan { at_ms: world.now_ms, changes: creation };
        let _ = cluster_model::apply(&mut bare, 1 << 40, &command);
        let task = bare.tasks_of_service(lone).next().expect("made").id;
        let takes: Vec<NodeId> = bare
            .nodes()
            .map(|node| node.id)
            .filter(|node| {
                let mut tried = bare.clone();
                let changes = vec![Change::Assign { task, node: *node }];
                let command = cluster_model::Command::Plan { at_ms: world.now_ms, changes };
                let _ = cluster_model::apply(&mut tried, 1 << 41, &command);
                tried.task(task).is_some_and(|task| task.node.is_some())
            })
            .collect();
        let chosen = pass.changes.iter().find_map(|change| match change {
            Change::Assign { task: placed, node } if *placed == task => Some(*node),
            _ => None,
        });
        match chosen {
            Some(node) => prop_assert!(takes.contains(&node)),
            None => prop_assert_eq!(takes, vec![]),
        }
    }

    /// Branches get what their capacity is worth, however the service grew, and a new replica never
    /// takes a share away.
    #[test]
    fn shares_follow_capacity(
        cores in prop::collection::vec((1u64..9, 0u8..4), 1..8),
        steps in prop::collection::vec(1u32..12, 1..4),
    ) {
        let mut world = World::new();
        for (number, (cores, rack)) in (1..).zip(&cores) {
            world.join(NodeId(number), 1024 * MIB);
            if *rack > 0 {
                world.label(NodeId(number), "rack", &rack.to_string());
            }
            equip(&mut world, NodeId(number), |node| node.capacity.cpu_nanos = cores * 1_000_000_000);
        }
        let mut web = spec("web", 0);
        web.task.placement.spread_over = vec![parse("node.labels.rack".into())];
        let web = world.create(1, web);
        let mut replicas = 0;
        let mut before: BTreeMap<u8, u64> = BTreeMap::new();
        for step in steps {
            replicas += step;
            world.scale(web, replicas);
            world.settle();
            let mut has: BTreeMap<u8, u64> = BTreeMap::new();
            let mut weight: BTreeMap<u8, u64> = BTreeMap::new();
            for ((cores, rack), tasks) in cores.iter().zip(world.spread(web)) {
                *has.entry(*rack).or_default() += tasks as u64;
                *weight.entry(*rack).or_default() += cores;
            }
            for (one, has_one) in &has {
                prop_assert!(*has_one >= before.get(one).copied().unwrap_or(0));
                for (two, has_two) in &has {
                    let moved_is_better =
                        (2 * has_one).saturating_sub(1) * weight[two] > (2 * has_two + 1) * weight[one];
                    prop_assert!(!moved_is_better, "{has:?} for {weight:?}");
                }
            }
            before = has;
        }
    }

    /// A drain keeps the budget at every step, and ends.
    #[test]
    fn drains_keep_the_budget_and_end(
        replicas in 2u32..9,
        allowed in 0u32..4,
        percent in any::<bool>(),
        drained in prop::collection::btree_set(1u64..5, 1..4),
        order in prop::collection::vec(1u64..5, 0..200),
    ) {
        let mut world = World::with_nodes(4);
        let mut web = spec("web", replicas);
        let amount = if percent { Amount::Percent((allowed * 25).max(1)) } else { Amount::Count(allowed) };
        web.max_unavailable = amount;
        let web = world.create(1, web);
        world.settle();
        for node in &drained {
            world.availability(NodeId(*node), Availability::Drain);
        }
        let least = replicas.saturating_sub(amount.of(replicas).max(1));
        let check = |world: &World| {
            let healthy = world.running(web).len() as u32;
            assert!(healthy >= least, "{healthy} of {replicas} run, {least} must");
        };
        for node in &order {
            world.plan();
            check(&world);
            world.agent(NodeId(*node));
            check(&world);
            for node in &drained {
                let waits = explain::drain(&world.state, NodeId(*node), world.now_ms);
                let live = world.state.tasks_of_node(NodeId(*node));
                prop_assert_eq!(waits.len(), live.filter(|task| task.holds_resources()).count());
            }
        }
        world.settle();
        check(&world);
        let left: BTreeSet<NodeId> = world.running(web).iter().filter_map(|task| task.node).collect();
        prop_assert!(drained.iter().all(|node| !left.contains(&NodeId(*node))));
        prop_assert_eq!(world.running(web).len() as u32, replicas);
    }
}
