//! Random faults: safety always, liveness once the faults stop.
//!
//! Commands come late, twice and from stale views. `World::apply` asserts the safety invariants on
//! every write; here are the liveness properties, determinism and the equality of scoped and full
//! passes.

use std::collections::BTreeSet;

use cluster_model::fit::{Seeker, fits};
use cluster_model::spec::{
    Amount, FailureAction, Mode, Order, RestartCondition, RestartPolicy, ServiceSpec, UpdatePolicy,
};
use cluster_model::{
    Availability, Change, Command, Desired, Observed, Reason, RolloutState, Service, ServiceId,
    Steer, Task,
};
use cluster_planner::Scope;
use proptest::prelude::*;

use crate::bounds;
use crate::faults::{Fault, NODES, WEIGHT, fault};
use crate::leader::Leader;
use crate::world::{BAD, CRASH, MIB, UNREADY, World, spec};

const SERVICES: u64 = 3;

#[derive(Clone, Debug)]
enum Op {
    Create {
        service: u64,
        replicas: u32,
        shape: Shape,
    },
    Update {
        service: u64,
        shape: Shape,
    },
    Scale {
        service: u64,
        replicas: u32,
    },
    Remove {
        service: u64,
    },
    Steer {
        service: u64,
        steer: Steer,
    },
    RollBack {
        service: u64,
    },
    Fault(Fault),
    /// What the leader does: plans for what changed, and the plan is taken.
    Plan,
    /// A plan is made now and taken later, or never.
    Draft,
    Deliver {
        pick: usize,
    },
    /// A command that was taken is taken again.
    Replay {
        pick: usize,
    },
}

#[derive(Clone, Debug)]
struct Shape {
    image: &'static str,
    memory_mib: u64,
    rack: bool,
    policy: RestartPolicy,
    update: UpdatePolicy,
}

impl Shape {
    fn dress(&self, spec: &mut ServiceSpec) {
        spec.task.container.image = self.image.into();
        spec.task.reservations.memory_bytes = self.memory_mib * MIB;
        spec.task.restart = self.policy;
        let canary = self.update.canary.min(spec.replicas());
        spec.update = UpdatePolicy { canary, ..self.update };
        let failure_action = match self.update.failure_action {
            FailureAction::Rollback => FailureAction::Pause,
            other => other,
        };
        spec.rollback =
            UpdatePolicy { canary: 0, auto_promote: false, failure_action, ..self.update };
        spec.task.placement.constraints.clear();
        if self.rack {
            spec.task.placement.constraints.push("node.labels.rack==a".parse().expect("parses"));
        }
    }
}

fn update_policy() -> impl Strategy<Value = UpdatePolicy> {
    let parallelism = prop_oneof![
        4 => (0u32..4).prop_map(Amount::Count),
        1 => Just(Amount::Percent(50)),
    ];
    let action = prop_oneof![
        3 => Just(FailureAction::Pause),
        1 => Just(FailureAction::Continue),
        2 => Just(FailureAction::Rollback),
    ];
    (
        parallelism,
        prop_oneof![2 => Just(0u64), 1 => Just(2_000)],
        prop_oneof![1 => Just(0u64), 1 => Just(500), 2 => Just(5_000)],
        prop_oneof![1 => Just(Order::StopFirst), 1 => Just(Order::StartFirst)],
        action,
        prop_oneof![2 => Just(0u32), 1 => Just(250_000), 1 => Just(1_000_000)],
        prop_oneof![1 => Just(None), 2 => Just(Some(20_000u64)), 2 => Just(Some(600_000))],
        prop_oneof![3 => Just(0u32), 1 => 1u32..3],
        any::<bool>(),
    )
        .prop_map(
            |(parallelism, delay_ms, monitor_ms, order, action, ratio, deadline, canary, auto)| {
                UpdatePolicy {
                    parallelism,
                    delay_ms,
                    monitor_ms,
                    order,
                    failure_action: action,
                    max_failure_ratio_ppm: ratio,
                    progress_deadline_ms: deadline,
                    canary,
                    auto_promote: auto,
                }
            },
        )
}

fn shape() -> impl Strategy<Value = Shape> {
    let condition = prop_oneof![
        6 => Just(RestartCondition::Any),
        2 => Just(RestartCondition::OnFailure),
        1 => Just(RestartCondition::None),
    ];
    (
        prop_oneof![
            4 => Just("web:1"),
            3 => Just("web:2"),
            1 => Just(BAD),
            1 => Just(CRASH),
            1 => Just(UNREADY),
        ],
        prop_oneof![Just(0u64), Just(64), Just(400)],
        prop::bool::weighted(0.3),
        condition,
        prop_oneof![3 => Just(None), 1 => Just(Some(0)), 1 => Just(Some(2_000))],
        prop_oneof![4 => Just(None), 1 => (0u32..3).prop_map(Some)],
        prop_oneof![3 => Just(None), 1 => Just(Some(2_000)), 1 => Just(Some(100_000))],
        update_policy(),
    )
        .prop_map(
            |(image, memory_mib, rack, condition, delay_ms, max_attempts, window_ms, update)| {
                let policy = RestartPolicy {
                    condition,
                    delay_ms,
                    max_attempts,
                    window_ms,
                    ..RestartPolicy::default()
                };
                Shape { image, memory_mib, rack, policy, update }
            },
        )
}

fn op() -> impl Strategy<Value = Op> {
    let service = 1..=SERVICES;
    let steer = prop_oneof![Just(Steer::Pause), Just(Steer::Resume), Just(Steer::Promote)];
    prop_oneof![
        4 => (service.clone(), 0u32..6, shape())
            .prop_map(|(service, replicas, shape)| Op::Create { service, replicas, shape }),
        3 => (service.clone(), shape()).prop_map(|(service, shape)| Op::Update { service, shape }),
        3 => (service.clone(), 0u32..8)
            .prop_map(|(service, replicas)| Op::Scale { service, replicas }),
        1 => service.clone().prop_map(|service| Op::Remove { service }),
        3 => (service.clone(), steer).prop_map(|(service, steer)| Op::Steer { service, steer }),
        2 => service.prop_map(|service| Op::RollBack { service }),
        WEIGHT => fault().prop_map(Op::Fault),
        20 => Just(Op::Plan),
        3 => Just(Op::Draft),
        3 => any::<usize>().prop_map(|pick| Op::Deliver { pick }),
        2 => any::<usize>().prop_map(|pick| Op::Replay { pick }),
    ]
}

struct Run {
    world: World,
    drafts: Vec<Vec<Change>>,
    leader: Leader,
}

impl Run {
    fn new() -> Self {
        Self { world: World::with_nodes(NODES - 1), drafts: vec![], leader: Leader::default() }
    }

    fn step(&mut self, op: &Op) {
        let world = &mut self.world;
        match op {
            Op::Create { service, replicas, shape } => {
                if world.state.service(ServiceId(*service)).is_none() {
                    let mut spec = spec(&format!("s{service}"), *replicas);
                    shape.dress(&mut spec);
                    world.create(*service, spec);
                }
            }
            Op::Update { service, shape } => {
                world.update(ServiceId(*service), |spec| shape.dress(spec));
            }
            Op::Scale { service, replicas } => world.update(ServiceId(*service), |spec| {
                spec.mode = Mode::Replicated { replicas: *replicas };
                spec.update.canary = spec.update.canary.min(*replicas);
            }),
            Op::Steer { service, steer } => {
                let _ = world.steer(ServiceId(*service), *steer);
            }
            Op::RollBack { service } => {
                let _ = world.roll_back(ServiceId(*service));
            }
            Op::Remove { service } => {
                let _ = world.apply(Command::RemoveService {
                    id: ServiceId(*service),
                    at_ms: world.now_ms,
                    version: None,
                });
            }
            Op::Fault(fault) => fault.strike(world),
            Op::Plan => {
                let before = world.state.clone();
                let changes = self.leader.round(world);
                bounds::check(&before, &changes, &world.state);
            }
            Op::Draft => {
                let plan = world.make_plan(Scope::All);
                self.drafts.push(plan.changes);
            }
            Op::Deliver { pick } => {
                if !self.drafts.is_empty() {
                    let changes = self.drafts[pick % self.drafts.len()].clone();
                    world.apply_plan(changes);
                }
            }
            Op::Replay { pick } => {
                let again: Vec<&Command> = world
                    .log
                    .iter()
                    .filter(|c| matches!(c, Command::Plan { .. } | Command::RecordStatus { .. }))
                    .collect();
                if !again.is_empty() {
                    let command = again[pick % again.len()].clone();
                    world.apply(command).expect("not refused as a whole");
                }
            }
        }
    }

    /// The faults stop: every node is connected, every image works.
    fn heal(&mut self) {
        let world = &mut self.world;
        world.cut.clear();
        world.healed = true;
        world.advance(10);
        world.settle_through_waits();
    }
}

/// At rest every slot runs, is spent, or waits because indeed no node can take it; and rollouts are
/// over or wait for a user.
fn check_rest(world: &World) {
    for service in world.state.services() {
        assert!(!service.removed, "a removed service stays: {service:?}");
        let slots: BTreeSet<u32> = world.tasks(service.id).iter().map(|task| task.slot).collect();
        assert_eq!(slots.len(), service.spec.replicas() as usize, "slots of {service:?}");
        for slot in slots {
            check_slot_rests(world, service, slot);
        }
        // Start first keeps what runs when the new revision has no attempt left in the slot.
        let spent = |task: &Task| {
            let mut tasks = world.state.tasks_of_slot(service.id, task.slot);
            tasks.any(|t| t.reason == Reason::Exhausted && t.revision == service.revision)
        };
        let outdated = |task: &Task| world.state.is_outdated(service, task) && !spent(task);
        let behind = world.holders(service.id).into_iter().any(outdated);
        let waits = world.holders(service.id).iter().any(|task| !task.serves());
        match &service.rollout {
            Some(rollout) if !rollout.state.is_over() => {
                assert!(!rollout.message.is_empty(), "waits without a reason: {rollout:?}");
                let endless = service.update_policy().progress_deadline_ms.is_none();
                let runs = rollout.state == RolloutState::Running;
                assert!(!runs || (endless && waits), "{rollout:?} never ends");
            }
            Some(_) | None => assert!(waits || !behind, "left behind: {service:#?}"),
        }
    }
    for task in world.state.tasks() {
        let history = world.state.tasks_of_slot(task.service, task.slot).count();
        assert!(history <= 5, "{history} tasks kept");
        let waits = task.status.state == Observed::Ready && task.desired == Desired::Ready;
        assert!(task.serves() || !task.holds_resources() || waits, "left behind: {task:?}");
    }
}

fn check_slot_rests(world: &World, service: &Service, slot: u32) {
    let fill: Vec<&Task> =
        world.holders(service.id).into_iter().filter(|task| task.slot == slot).collect();
    if fill.is_empty() {
        // One that its policy does not restart waits for its turn in a rollout that is stuck or paused.
        let waits = service.rollout.as_ref().is_some_and(|rollout| !rollout.state.is_over());
        let spent = |t: &Task| t.reason == Reason::Exhausted || (waits && t.is_wanted());
        let tasks: Vec<&Task> = world.state.tasks_of_slot(service.id, slot).collect();
        assert!(
            tasks.iter().any(|task| spent(task)),
            "slot {slot} of {service:?} is empty: {tasks:#?}"
        );
        return;
    }
    if fill.len() > 1 {
        // A node changed after the rollout, and no other would take what has to move.
        let stuck = fill.iter().any(|task| !task.serves());
        let over = service.rollout.as_ref().is_none_or(|rollout| rollout.state.is_over());
        assert!(!over || stuck, "a pair stays: {fill:#?}");
    }
    for task in &fill {
        if task.serves() {
            let node = world.state.node(task.node.expect("placed")).expect("known");
            assert_ne!(node.spec.availability, Availability::Drain, "{task:?} stayed");
            assert!(service.may_stay(task.revision, node), "{task:?} stayed");
            continue;
        }
        assert!(task.node.is_none(), "neither runs nor waits: {task:#?}");
        assert!(task.status.details.message.is_some(), "waits without a reason: {task:?}");
        assert!(!placeable(world, task), "could be placed: {task:?}");
    }
}

fn placeable(world: &World, task: &Task) -> bool {
    let service = world.state.service(task.service).expect("known");
    let spec = service.rules_of(task.revision).expect("kept");
    let seeker = Seeker { service: service.id, spec, task };
    world.state.nodes().any(|node| fits(&world.state, node, seeker).is_ok())
}

proptest! {
    #[test]
    fn faults_break_nothing_and_once_they_stop_the_world_comes_to_rest(
        ops in prop::collection::vec(op(), 1..120)
    ) {
        let mut run = Run::new();
        for op in &ops {
            run.step(op);
        }
        run.world.check_replay();
        run.heal();
        check_rest(&run.world);
        run.world.check_replay();
    }

    #[test]
    fn equal_views_and_seeds_give_equal_plans(ops in prop::collection::vec(op(), 1..60)) {
        let mut one = Run::new();
        let mut two = Run::new();
        for op in &ops {
            one.step(op);
            two.step(op);
        }
        prop_assert_eq!(one.world.log, two.world.log);
    }
}
