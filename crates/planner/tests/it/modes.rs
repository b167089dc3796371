//! Random faults on services of every mode and policy: the same safety and liveness as for
//! replicated services, and what the modes add.
//!
//! Plans come late and twice, and every pass may be another leader's: it decides from the state
//! alone. `World::apply` asserts that no slot has two live tasks unless losses are replaced at once.

use std::collections::{BTreeMap, BTreeSet};

use cluster_model::spec::{Disconnect, Mode, Overlap, RestartCondition, Schedule, ServiceSpec};
use cluster_model::{
    Availability, Change, Command, JobOutcome, NodeId, Observed, Reason, Service, ServiceId, Task,
    TaskId,
};
use cluster_planner::Scope;
use proptest::prelude::*;

use crate::faults::{Fault, NODES, WEIGHT, fault};
use crate::leader::Leader;
use crate::world::{BAD, CRASH, LEASE_MS, LONG, World, spec};

const SERVICES: u64 = 3;

#[derive(Clone, Debug)]
struct Kind {
    mode: Mode,
    disconnect: Disconnect,
    image: &'static str,
    rack: bool,
    attempts: Option<u32>,
    max_run_ms: Option<u64>,
    /// Of jobs: launched every minute.
    schedule: Option<Overlap>,
}

impl Kind {
    fn spec(&self, name: &str) -> ServiceSpec {
        let mut spec = spec(name, 0);
        spec.mode = self.mode;
        spec.disconnect = self.disconnect;
        spec.job.max_run_duration_ms = self.max_run_ms.filter(|_| self.mode.is_job());
        spec.job.schedule = self.schedule.filter(|_| self.mode.is_job()).map(every_minute);
        self.dress(&mut spec);
        spec
    }

    /// What an update changes.
    fn dress(&self, spec: &mut ServiceSpec) {
        spec.task.container.image = self.image.into();
        spec.task.restart.max_attempts = self.attempts;
        spec.task.restart.condition = RestartCondition::Any;
        spec.task.placement.constraints.clear();
        if self.rack {
            spec.task.placement.constraints.push("node.labels.rack==a".parse().expect("parses"));
        }
    }
}

fn every_minute(overlap: Overlap) -> Schedule {
    Schedule {
        cron: "* * * * *".into(),
        time_zone: String::new(),
        overlap,
        starting_deadline_ms: Some(50_000),
        keep_succeeded: 1,
        keep_failed: 1,
    }
}

fn kind() -> impl Strategy<Value = Kind> {
    let mode = prop_oneof![
        3 => Just(Mode::Global),
        3 => (1u32..6, 0u32..4).prop_map(|(completions, max_concurrent)| Mode::ReplicatedJob {
            completions,
            max_concurrent: max_concurrent.min(completions),
        }),
        2 => Just(Mode::GlobalJob),
        2 => (0u32..5).prop_map(|replicas| Mode::Replicated { replicas }),
    ];
    let disconnect = prop_oneof![
        Just(Disconnect::Replace),
        Just(Disconnect::Wait),
        Just(Disconnect::StopAfter { after_ms: 4_000 }),
    ];
    let image = prop_oneof![
        4 => Just("web:1"), 3 => Just(LONG), 1 => Just(BAD), 1 => Just(CRASH)
    ];
    let attempts = prop_oneof![3 => Just(None), 1 => (0u32..3).prop_map(Some)];
    let max_run = prop_oneof![3 => Just(None), 1 => Just(Some(30_000u64))];
    let schedule = prop_oneof![
        6 => Just(None),
        1 => Just(Some(Overlap::Allow)),
        1 => Just(Some(Overlap::Forbid)),
        1 => Just(Some(Overlap::Replace)),
    ];
    (mode, disconnect, image, prop::bool::weighted(0.3), attempts, max_run, schedule).prop_map(
        |(mode, disconnect, image, rack, attempts, max_run_ms, schedule)| Kind {
            mode,
            disconnect,
            image,
            rack,
            attempts,
            max_run_ms,
            schedule,
        },
    )
}

#[derive(Clone, Debug)]
enum Op {
    Create {
        service: u64,
        kind: Kind,
    },
    Update {
        service: u64,
        kind: Kind,
    },
    Force {
        service: u64,
    },
    Scale {
        service: u64,
        replicas: u32,
    },
    Remove {
        service: u64,
    },
    Fault(Fault),
    /// A leader plans, and the plan is taken.
    Plan {
        seed: u64,
    },
    /// A leader plans and is slow to say so.
    Draft {
        seed: u64,
    },
    Deliver {
        pick: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let service = 1..=SERVICES;
    let seed = any::<u64>;
    prop_oneof![
        5 => (service.clone(), kind()).prop_map(|(service, kind)| Op::Create { service, kind }),
        2 => (service.clone(), kind()).prop_map(|(service, kind)| Op::Update { service, kind }),
        1 => service.clone().prop_map(|service| Op::Force { service }),
        2 => (service.clone(), 0u32..7)
            .prop_map(|(service, replicas)| Op::Scale { service, replicas }),
        1 => service.prop_map(|service| Op::Remove { service }),
        WEIGHT => fault().prop_map(Op::Fault),
        20 => seed().prop_map(|seed| Op::Plan { seed }),
        3 => seed().prop_map(|seed| Op::Draft { seed }),
        3 => any::<usize>().prop_map(|pick| Op::Deliver { pick }),
    ]
}

struct Run {
    world: World,
    /// Plans under way, and when they were made.
    drafts: Vec<(u64, Vec<Change>)>,
    leader: Leader,
}

impl Run {
    fn new() -> Self {
        Self { world: World::with_nodes(NODES - 1), drafts: vec![], leader: Leader::default() }
    }

    fn step(&mut self, op: &Op) {
        let world = &mut self.world;
        let finished = finished(world);
        match op {
            Op::Create { service, kind } => {
                if world.state.service(ServiceId(*service)).is_none() {
                    world.create(*service, kind.spec(&format!("s{service}")));
                }
            }
            Op::Update { service, kind } => {
                world.update(ServiceId(*service), |spec| kind.dress(spec));
            }
            Op::Force { service } => {
                world.update(ServiceId(*service), |spec| spec.task.force_update += 1);
            }
            Op::Scale { service, replicas } => world.scale(ServiceId(*service), *replicas),
            Op::Remove { service } => {
                let id = ServiceId(*service);
                let _ =
                    world.apply(Command::RemoveService { id, at_ms: world.now_ms, version: None });
            }
            Op::Fault(fault) => fault.strike(world),
            Op::Plan { seed } => {
                world.lead(*seed);
                self.leader.round(world);
            }
            Op::Draft { seed } => {
                world.lead(*seed);
                let plan = world.make_plan(Scope::All);
                self.drafts.push((world.now_ms, plan.changes));
            }
            Op::Deliver { pick } => {
                // A proposal is dropped before a lease ends.
                self.drafts.retain(|(at_ms, _)| at_ms + LEASE_MS > world.now_ms);
                if !self.drafts.is_empty() {
                    let (_, changes) = self.drafts[pick % self.drafts.len()].clone();
                    world.apply_plan(changes);
                }
            }
        }
        check_always(&self.world);
        check_finished(&self.world, &finished, op);
    }

    fn heal(&mut self) {
        let world = &mut self.world;
        world.cut.clear();
        world.healed = true;
        // Schedules never come to rest.
        for service in world.state.clone().services() {
            if service.spec.job.schedule.is_some() && !service.removed {
                let (id, at_ms) = (service.id, world.now_ms);
                world.apply(Command::RemoveService { id, at_ms, version: None }).expect("removed");
            }
        }
        assert!(world.state.services().all(|service| service.parent.is_none() || service.removed));
        world.advance(10);
        world.settle_through_waits();
        check_always(world);
    }
}

/// Slots in which something may run or is about to.
fn busy(world: &World, service: ServiceId) -> BTreeSet<u32> {
    let busy = |task: &&&Task| task.fills_slot() || task.holds_resources();
    world.tasks(service).iter().filter(busy).map(|task| task.slot).collect()
}

fn completions(world: &World, service: &Service) -> BTreeMap<u32, usize> {
    let mut found = BTreeMap::new();
    for task in world.tasks(service.id) {
        if task.status.state == Observed::Complete && task.revision == service.revision {
            *found.entry(task.slot).or_default() += 1;
        }
    }
    found
}

/// Holds after every step.
fn check_always(world: &World) {
    for service in world.state.services().filter(|service| !service.removed) {
        if let Some(schedule) = &service.spec.job.schedule {
            assert!(world.tasks(service.id).is_empty(), "a schedule runs nothing itself");
            let children = world.state.services().filter(|child| {
                child.parent == Some(service.id) && !child.removed && child.run.finished_at_ms == 0
            });
            let unfinished = children.count();
            assert!(schedule.overlap == Overlap::Allow || unfinished <= 1, "overlap: {service:?}");
            continue;
        }
        if let Mode::ReplicatedJob { max_concurrent: max @ 1.., .. } = service.spec.mode {
            let busy = busy(world, service.id);
            assert!(
                busy.len() <= max as usize,
                "{busy:?} of {max}: {:#?}",
                world.tasks(service.id)
            );
        }
        if service.spec.mode.is_job() {
            let done = completions(world, service);
            assert!(done.values().all(|count| *count == 1), "overshot: {done:?} {service:?}");
        }
        if service.spec.mode.is_global() {
            let mut owners: BTreeMap<NodeId, u32> = BTreeMap::new();
            for task in world.tasks(service.id) {
                let target = task.extras.target.expect("belongs to a node");
                assert!(task.node.is_none_or(|node| node == target), "went astray: {task:?}");
                let slot = *owners.entry(target).or_insert(task.slot);
                assert_eq!(slot, task.slot, "two slots: {:#?}", world.tasks(service.id));
            }
        }
    }
}

/// Finished runs and the tasks that were there then.
fn finished(world: &World) -> BTreeMap<ServiceId, BTreeSet<TaskId>> {
    let over = |service: &&Service| service.spec.mode.is_job() && service.run.finished_at_ms != 0;
    let tasks = |id| world.tasks(id).iter().map(|task| task.id).collect();
    world.state.services().filter(over).map(|service| (service.id, tasks(service.id))).collect()
}

/// A finished run starts nothing unless it is opened again.
fn check_finished(world: &World, before: &BTreeMap<ServiceId, BTreeSet<TaskId>>, op: &Op) {
    for (id, now) in finished(world) {
        let Some(then) = before.get(&id) else { continue };
        assert!(now.is_subset(then), "{op:?} started tasks of a finished run");
    }
}

/// Holds once the faults have stopped and everything came to rest.
fn check_rest(world: &World) {
    for service in world.state.services() {
        assert!(!service.removed, "a removed service stays: {service:?}");
        for task in world.holders(service.id) {
            let placed = task.serves() || task.status.details.message.is_some();
            assert!(placed, "neither runs nor says why: {task:#?}");
        }
        match service.spec.mode {
            Mode::Global => check_global(world, service),
            Mode::ReplicatedJob { completions, .. } => {
                check_job(world, service, completions as usize);
            }
            Mode::GlobalJob => check_job(world, service, 0),
            Mode::Replicated { replicas } => {
                let slots: BTreeSet<u32> =
                    world.tasks(service.id).iter().map(|task| task.slot).collect();
                assert_eq!(slots.len(), replicas as usize, "{:#?}", world.tasks(service.id));
            }
        }
    }
    for task in world.state.tasks() {
        assert!(task.serves() || !task.holds_resources(), "left behind: {task:?}");
    }
    for task in world.live.keys() {
        let task = world.state.task(*task);
        assert!(task.is_some_and(Task::serves), "a container nobody wants: {task:?}");
    }
}

fn meets(service: &Service, node: &cluster_model::Node) -> bool {
    service.spec.task.placement.constraints.iter().all(|constraint| constraint.holds(node))
}

fn check_global(world: &World, service: &Service) {
    let holders = world.holders(service.id);
    // Where nothing is asked for any more, what runs stays until somebody says what was meant.
    let nowhere = !world.state.nodes().any(|node| meets(service, node));
    for node in world.state.nodes() {
        let has = holders.iter().filter(|task| task.extras.target == Some(node.id)).count();
        let spent = world
            .tasks(service.id)
            .iter()
            .any(|task| task.extras.target == Some(node.id) && task.reason == Reason::Exhausted);
        match node.spec.availability {
            Availability::Active if meets(service, node) => {
                assert!(has == 1 || spent, "{node:?} has {has} of {:#?}", world.tasks(service.id));
            }
            Availability::Pause if meets(service, node) => assert!(has <= 1),
            Availability::Active | Availability::Pause if nowhere => assert!(has <= 1),
            _ => assert_eq!(has, 0, "{node:?} kept one of {service:?}"),
        }
    }
    for task in world.tasks(service.id) {
        assert!(
            world.state.node(task.extras.target.expect("global")).is_some(),
            "forgotten: {task:?}"
        );
    }
}

fn check_job(world: &World, service: &Service, wanted: usize) {
    let done = completions(world, service).len();
    let waits = world.holders(service.id).iter().any(|task| task.node.is_none());
    match service.run.outcome {
        JobOutcome::Succeeded if service.spec.mode == Mode::GlobalJob => {
            let of = |node: &cluster_model::Node| {
                world.tasks(service.id).iter().any(|task| task.extras.target == Some(node.id))
            };
            for node in world.state.nodes().filter(|node| node.accepts_tasks()) {
                assert!(!meets(service, node) || of(node), "{node:?} was passed over");
            }
        }
        JobOutcome::Succeeded => assert_eq!(done, wanted, "{:#?}", world.tasks(service.id)),
        JobOutcome::Failed | JobOutcome::TimedOut => {}
        JobOutcome::Unfinished => {
            let nowhere = service.spec.mode == Mode::GlobalJob && done == 0;
            assert!(waits || nowhere, "stuck: {service:?} {:#?}", world.tasks(service.id));
        }
    }
    if service.run.finished_at_ms != 0 {
        assert!(world.holders(service.id).is_empty(), "goes on: {:#?}", world.tasks(service.id));
    }
}

proptest! {
    #[test]
    fn every_mode_is_safe_under_faults_and_comes_to_rest_after_them(
        ops in prop::collection::vec(op(), 1..120)
    ) {
        let mut run = Run::new();
        for op in &ops {
            run.step(op);
        }
        run.heal();
        check_rest(&run.world);
        run.world.check_replay();
    }
}
