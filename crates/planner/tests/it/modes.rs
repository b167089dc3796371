//! Random faults on services of every mode and policy: the same safety and liveness as for
//! replicated services, and what the modes add.
//!
//! Plans come late and twice, and every pass may be another leader's: it decides from the state
//! alone. `World::apply` asserts that no slot has two live tasks unless losses are replaced at once.

use std::collections::{BTreeMap, BTreeSet};

use cluster_model::spec::{Disconnect, Mode, Overlap, RestartCondition, Schedule, ServiceSpec};
use cluster_model::{
    Availability, Change, Command, JobOutcome, NodeId, Observed, Reason, Service, ServiceId, State,
    Task, TaskId,
};
use cluster_planner::{Ids, Note, Scope};
use proptest::prelude::*;

use crate::world::{BAD, CRASH, LEASE_MS, LONG, MIB, World, spec};

const NODES: u64 = 4;
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
    Join {
        node: u64,
    },
    Cut {
        node: u64,
    },
    RemoveNode {
        node: u64,
    },
    Set {
        node: u64,
        availability: Availability,
    },
    Label {
        node: u64,
        rack: bool,
    },
    Exit {
        pick: usize,
        state: Observed,
    },
    Agent {
        node: u64,
    },
    Advance {
        ms: u64,
    },
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
    let node = 1..=NODES;
    let service = 1..=SERVICES;
    let availability = prop_oneof![
        2 => Just(Availability::Active),
        1 => Just(Availability::Pause),
        1 => Just(Availability::Drain)
    ];
    let state = prop_oneof![Just(Observed::Failed), Just(Observed::Complete)];
    let seed = any::<u64>;
    prop_oneof![
        5 => (service.clone(), kind()).prop_map(|(service, kind)| Op::Create { service, kind }),
        2 => (service.clone(), kind()).prop_map(|(service, kind)| Op::Update { service, kind }),
        1 => service.clone().prop_map(|service| Op::Force { service }),
        2 => (service.clone(), 0u32..7)
            .prop_map(|(service, replicas)| Op::Scale { service, replicas }),
        1 => service.prop_map(|service| Op::Remove { service }),
        2 => node.clone().prop_map(|node| Op::Join { node }),
        3 => node.clone().prop_map(|node| Op::Cut { node }),
        1 => node.clone().prop_map(|node| Op::RemoveNode { node }),
        3 => (node.clone(), availability)
            .prop_map(|(node, availability)| Op::Set { node, availability }),
        3 => (node.clone(), any::<bool>()).prop_map(|(node, rack)| Op::Label { node, rack }),
        4 => (any::<usize>(), state).prop_map(|(pick, state)| Op::Exit { pick, state }),
        20 => node.prop_map(|node| Op::Agent { node }),
        7 => prop_oneof![Just(10u64), Just(1_100), Just(4_000), Just(25_000), Just(70_000)]
            .prop_map(|ms| Op::Advance { ms }),
        20 => seed().prop_map(|seed| Op::Plan { seed }),
        3 => seed().prop_map(|seed| Op::Draft { seed }),
        3 => any::<usize>().prop_map(|pick| Op::Deliver { pick }),
    ]
}

struct Run {
    world: World,
    /// Plans under way, and when they were made.
    drafts: Vec<(u64, Vec<Change>)>,
    seen: Option<State>,
    wake_at_ms: Option<u64>,
}

impl Run {
    fn new() -> Self {
        Self { world: World::with_nodes(NODES - 1), drafts: vec![], seen: None, wake_at_ms: None }
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
            Op::Join { node } => world.join(NodeId(*node), 1024 * MIB),
            Op::Cut { node } => world.cut_off(NodeId(*node)),
            Op::RemoveNode { node } => {
                let command =
                    Command::RemoveNode { id: NodeId(*node), force: true, at_ms: world.now_ms };
                let _ = world.apply(command);
            }
            Op::Set { node, availability } => world.availability(NodeId(*node), *availability),
            Op::Label { node, rack } => {
                world.label(NodeId(*node), "rack", if *rack { "a" } else { "b" });
            }
            Op::Exit { pick, state } => exit(world, *pick, *state),
            Op::Agent { node } => {
                world.agent(NodeId(*node));
            }
            Op::Advance { ms } => world.advance(*ms),
            Op::Plan { seed } => self.plan(*seed),
            Op::Draft { seed } => {
                let plan = propose(world, Scope::All, *seed);
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

    /// As the leader's driver does; a full pass after it must find nothing.
    fn plan(&mut self, seed: u64) {
        let world = &mut self.world;
        let due = self.wake_at_ms.is_some_and(|at_ms| at_ms <= world.now_ms);
        let scope: Option<BTreeSet<ServiceId>> =
            self.seen.as_ref().filter(|_| !due).and_then(|seen| {
                let changes = world.state.changes(seen);
                let tasks = changes.tasks.iter().map(|task| task.service);
                let services = changes.services.iter().copied().chain(tasks).collect();
                changes.nodes.is_empty().then_some(services)
            });
        let plan = match &scope {
            Some(services) => propose(world, Scope::Services(services), seed),
            None => propose(world, Scope::All, seed),
        };
        let kept = self.wake_at_ms.filter(|at_ms| scope.is_some() && *at_ms > world.now_ms);
        self.wake_at_ms = [kept, plan.wake_at_ms].into_iter().flatten().min();
        assert!(!plan.notes.contains(&Note::Bounded), "small worlds need no second pass");
        if !plan.changes.is_empty() {
            world.apply_plan(plan.changes);
        }
        let full = propose(world, Scope::All, seed.wrapping_add(1));
        assert_eq!(full.changes, vec![], "another leader found what {scope:?} had not");
        if let Some(at_ms) = full.wake_at_ms {
            assert!(self.wake_at_ms.is_some_and(|known| known <= at_ms), "a wake-up was forgotten");
        }
        self.seen = Some(world.state.clone());
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

fn propose(world: &World, scope: Scope<'_>, seed: u64) -> cluster_planner::Plan {
    let plan = cluster_planner::plan(&world.state, scope, world.now_ms, &mut Ids::new(seed));
    let refused = plan.notes.iter().find(|note| matches!(note, Note::Refused { .. }));
    assert_eq!(refused, None, "a planner contradicts its own view: {plan:?}");
    plan
}

fn exit(world: &mut World, pick: usize, state: Observed) {
    let heard = |task: &&Task| task.node.is_some_and(|node| !world.cut.contains(&node));
    let running: Vec<TaskId> = world
        .state
        .tasks()
        .filter(|task| task.status.state == Observed::Running)
        .filter(heard)
        .map(|task| task.id)
        .collect();
    if !running.is_empty() {
        world.ends(running[pick % running.len()], state);
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
                let target = task.target.expect("belongs to a node");
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
            let placed = task.serves() || task.status.message.is_some();
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
        let has = holders.iter().filter(|task| task.target == Some(node.id)).count();
        let spent = world
            .tasks(service.id)
            .iter()
            .any(|task| task.target == Some(node.id) && task.reason == Reason::Exhausted);
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
        assert!(world.state.node(task.target.expect("global")).is_some(), "forgotten: {task:?}");
    }
}

fn check_job(world: &World, service: &Service, wanted: usize) {
    let done = completions(world, service).len();
    let waits = world.holders(service.id).iter().any(|task| task.node.is_none());
    match service.run.outcome {
        JobOutcome::Succeeded if service.spec.mode == Mode::GlobalJob => {
            let of = |node: &cluster_model::Node| {
                world.tasks(service.id).iter().any(|task| task.target == Some(node.id))
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

fn check_replay(world: &World) {
    let mut replayed = State::default();
    for (index, command) in (1u64..).zip(&world.log) {
        let _ = cluster_model::apply(&mut replayed, index, command);
    }
    assert_eq!(replayed, world.state, "the same log gives another state");
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
        check_replay(&run.world);
    }
}
