//! One value of each kind that is frozen, with every variant of what it is made of.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster_model::cluster::{Cluster, Manager, Secret, Upkeep};
use cluster_model::command::{Change, Command, NewTask, StatusReport, Steer};
use cluster_model::node::{Availability, DrainPolicy, Generic, NodeDescription, NodeSpec};
use cluster_model::security::{CaPhase, NewCa, Secure};
use cluster_model::service::{JobOutcome, Rollout, RolloutKind, RolloutState};
use cluster_model::spec::{
    Affinity, AffinityTarget, Amount, Check, ContainerSpec, Disconnect, FailureAction, Health,
    HostPort, JobPolicy, Mode, Mount, MountKind, Order, Overlap, Placement, PortSpec, Probe,
    Resources, RestartCondition, RestartPolicy, Schedule, ServiceSpec, Strategy, TaskSpec,
    UpdatePolicy,
};
use cluster_model::task::{Desired, Moved, Observed, Reason};
use cluster_model::{ClusterId, NodeId, ServiceId, State, TaskId};

const SERVICE: ServiceId = ServiceId(100);
const NODE: NodeId = NodeId(11);
const TASK: TaskId = TaskId(1000);
const AT_MS: u64 = 1_700_000_000_000;

/// Number of kinds that `kind` tells apart.
pub(super) const KINDS: usize = 20;

/// A command's kind. A new one needs a number here and a sample below.
pub(super) fn kind(command: &Command) -> usize {
    match command {
        Command::Bootstrap(_) => 0,
        Command::CreateService { .. } => 1,
        Command::UpdateService { .. } => 2,
        Command::RemoveService { .. } => 3,
        Command::RegisterNode { .. } => 4,
        Command::NodeReady { .. } => 5,
        Command::UpdateNode { .. } => 6,
        Command::RemoveNode { .. } => 7,
        Command::PutManager { .. } => 8,
        Command::RemoveManager { .. } => 9,
        Command::SetWorkerToken(_) => 10,
        Command::SetManagerToken(_) => 11,
        Command::Plan { .. } => 12,
        Command::RecordStatus { .. } => 13,
        Command::RollBackService { .. } => 14,
        Command::SteerRollout { .. } => 15,
        Command::UpdateCluster { .. } => 16,
        Command::UpdateUpkeep { .. } => 17,
        Command::Recover { .. } => 18,
        Command::Secure(_) => 19,
    }
}

/// A change's name. A new one needs a sample in `changes`.
fn change_name(change: &Change) -> &'static str {
    match change {
        Change::CreateTasks { .. } => "create-tasks",
        Change::Assign { .. } => "assign",
        Change::SetDesired { .. } => "set-desired",
        Change::Explain { .. } => "explain",
        Change::Delete { .. } => "delete",
        Change::NodeDown { .. } => "node-down",
        Change::Lose { .. } => "lose",
        Change::SetRollout { .. } => "set-rollout",
        Change::RollBack { .. } => "roll-back",
        Change::FinishJob { .. } => "finish-job",
        Change::Launch { .. } => "launch",
        Change::SkipLaunch { .. } => "skip-launch",
        Change::RemoveJob { .. } => "remove-job",
    }
}

pub(super) fn commands() -> Vec<(String, Command)> {
    let mut all: Vec<(String, Command)> = [
        ("bootstrap", Command::Bootstrap(Box::new(cluster()))),
        (
            "create-service",
            Command::CreateService { id: SERVICE, spec: Arc::new(full()), at_ms: AT_MS },
        ),
        ("create-service-bare", create_bare()),
        (
            "update-service",
            Command::UpdateService {
                id: SERVICE,
                version: 2,
                spec: Arc::new(full()),
                at_ms: AT_MS,
                give_up: vec![TASK],
            },
        ),
        ("create-job", create_job()),
        ("remove-service", Command::RemoveService { id: SERVICE, at_ms: AT_MS, version: Some(3) }),
        (
            "roll-back-service",
            Command::RollBackService { id: SERVICE, version: 3, to: Some(1), at_ms: AT_MS },
        ),
        ("update-cluster", Command::UpdateCluster { version: 1, strategy: Strategy::BinPack }),
        ("register-node", register()),
        ("node-ready", ready()),
        ("remove-node", Command::RemoveNode { id: NODE, force: true, at_ms: AT_MS }),
        ("put-manager", Command::PutManager { id: NodeId(2), manager: manager("m2") }),
        ("remove-manager", Command::RemoveManager { id: NodeId(2) }),
        ("set-worker-token", Command::SetWorkerToken(Secret::new("worker-two".into()))),
        ("set-manager-token", Command::SetManagerToken(Secret::new("manager-two".into()))),
        ("record-status", Command::RecordStatus { reports: reports() }),
        ("update-upkeep", Command::UpdateUpkeep { version: 1, upkeep: upkeep() }),
        ("recover", Command::Recover { version: 1, id: NodeId(3), manager: manager("m3") }),
    ]
    .map(|(name, command)| (name.to_owned(), command))
    .into();
    for availability in [Availability::Active, Availability::Pause, Availability::Drain] {
        let labels = map(&[("rack", "a")]);
        let drain = DrainPolicy { deadline_at_ms: Some(AT_MS), force: true };
        let spec = NodeSpec { availability, labels, drain };
        let command = Command::UpdateNode { id: NODE, version: 9, spec, at_ms: AT_MS };
        all.push((format!("update-node-{availability:?}").to_lowercase(), command));
    }
    for steer in [Steer::Pause, Steer::Resume, Steer::Promote] {
        let command = Command::SteerRollout { id: SERVICE, steer, at_ms: AT_MS };
        all.push((format!("steer-{steer:?}").to_lowercase(), command));
    }
    for (name, secure) in secures() {
        all.push((format!("secure-{name}"), Command::Secure(secure)));
    }
    for change in changes() {
        let name = format!("plan-{}", change_name(&change));
        all.push((name, Command::Plan { at_ms: AT_MS, changes: vec![change] }));
    }
    all
}

/// One of each kind.
fn secures() -> [(&'static str, Secure); 7] {
    let secret = |text: &str| Secret::new(text.into());
    let phase = CaPhase::Reissue;
    [
        ("set-cert-validity", Secure::SetCertValidity { seconds: 86_400 }),
        ("set-unlock-key", Secure::SetUnlockKey { key: Some(secret("unlock")) }),
        ("rotate-data-keys", Secure::RotateDataKeys),
        (
            "rotate-ca",
            Secure::RotateCa(Box::new(NewCa {
                replaces: "certificate".into(),
                certificate: "new certificate".into(),
                key: secret("new key"),
                cross_certificate: "cross certificate".into(),
                worker_token: secret("worker-three"),
                manager_token: secret("manager-three"),
                at_ms: AT_MS,
            })),
        ),
        ("force-ca", Secure::ForceCa),
        ("confirm-ca", Secure::ConfirmCa { node: NODE, started_at_ms: AT_MS, phase }),
        (
            "advance-ca",
            Secure::AdvanceCa { started_at_ms: AT_MS, phase: CaPhase::Retire, at_ms: AT_MS },
        ),
    ]
}

fn secure(name: &str) -> Command {
    let found = secures().into_iter().find(|(known, _)| *known == name);
    Command::Secure(found.unwrap().1)
}

/// What the commands above make of an empty state, in an order in which each is accepted.
pub(super) fn state() -> State {
    let plan = |changes| Command::Plan { at_ms: AT_MS, changes };
    let report = |task, state, code| Command::RecordStatus {
        reports: vec![(NODE, StatusReport { task, ..report(state, code) })],
    };
    let script = [
        Command::Bootstrap(Box::new(cluster())),
        Command::PutManager { id: NodeId(2), manager: manager("m2") },
        register(),
        ready(),
        Command::RegisterNode { id: NodeId(12), name: "worker-2".into(), at_ms: AT_MS },
        create_bare(),
        plan(vec![create_tasks(vec![new_task(1, Reason::ScaleUp), new_task(2, Reason::ScaleUp)])]),
        plan(vec![
            Change::Assign { task: TASK, node: NODE },
            Change::Explain { task: TaskId(1001), message: "no node has room".into() },
        ]),
        report(TASK, Observed::Accepted, None),
        report(TASK, Observed::Running, None),
        report(TASK, Observed::Failed, Some(137)),
        secure("set-cert-validity"),
        secure("set-unlock-key"),
        secure("rotate-data-keys"),
        secure("rotate-ca"),
        secure("force-ca"),
        secure("confirm-ca"),
        Command::RemoveNode { id: NodeId(12), force: true, at_ms: AT_MS },
    ];
    let mut state = State::default();
    for (index, command) in (1..).zip(&script) {
        let outcome = cluster_model::apply(&mut state, index, command);
        match outcome.reply {
            Ok(cluster_model::Reply::Counted { refused, .. }) => {
                assert_eq!(refused, 0, "{command:?}");
            }
            Ok(_) => {}
            Err(refusal) => panic!("{command:?}: {refusal}"),
        }
    }
    state
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn manager(name: &str) -> Manager {
    Manager { name: name.into(), address: "10.0.0.1:7100".into(), joined_at_ms: AT_MS }
}

fn upkeep() -> Upkeep {
    Upkeep { replace_dead_after_ms: 300_000, snapshot_every_ms: 21_600_000, snapshot_keep: 10 }
}

fn cluster() -> Cluster {
    Cluster {
        id: ClusterId(7),
        name: "golden".into(),
        version: 0,
        created_at_ms: AT_MS,
        ca_certificate: "certificate".into(),
        ca_key: Secret::new("key".into()),
        worker_token: Secret::new("worker-one".into()),
        manager_token: Secret::new("manager-one".into()),
        heartbeat_period_ms: 1000,
        lease_ms: 3000,
        managers: [(NodeId(1), manager("m1"))].into(),
        strategy: Default::default(),
        upkeep: upkeep(),
    }
}

fn register() -> Command {
    Command::RegisterNode { id: NODE, name: "worker-1".into(), at_ms: AT_MS }
}

fn ready() -> Command {
    let description = NodeDescription {
        address: "10.0.0.11".into(),
        mesh_port: 7101,
        os: "linux".into(),
        arch: "amd64".into(),
        boot: 3,
        capacity: Resources { cpu_nanos: 4_000_000_000, memory_bytes: 8 << 30 },
        labels: map(&[("disk", "ssd")]),
        agent_version: "0.1.0".into(),
        runtime: "embedded".into(),
        notices: vec!["no seccomp".into()],
        healthy: true,
        generic: [
            ("gpu".into(), Generic::Named(vec!["gpu-0".into(), "gpu-1".into()])),
            ("licence".into(), Generic::Count(3)),
        ]
        .into(),
    };
    Command::NodeReady { id: NODE, description: Box::new(description), at_ms: AT_MS }
}

/// Every field set to something, and every kind of mount and constraint.
fn full() -> ServiceSpec {
    let mount = |kind, target: &str| Mount { kind, target: target.into(), read_only: true };
    let text = |text: &str| Some(text.to_owned());
    let constraints = [
        "node.id==a",
        "node.hostname!=worker-1",
        "node.ip==10.0.0.0/8",
        "node.role==worker",
        "node.platform.os==linux",
        "node.platform.arch==amd64",
        "node.labels.rack==a",
        "engine.labels.disk==ssd",
    ];
    let container = ContainerSpec {
        image: "web:1".into(),
        entrypoint: vec!["/web".into()],
        args: vec!["--slow".into()],
        env: vec![("GREETING".into(), "hello".into()), ("EMPTY".into(), String::new())],
        workdir: text("/srv"),
        user: text("1000:1000"),
        hostname: text("web"),
        mounts: vec![
            mount(MountKind::Bind { source: "/data".into() }, "/a"),
            mount(MountKind::Volume { name: "cache".into() }, "/b"),
            mount(MountKind::Tmpfs { size_bytes: 1 << 20 }, "/c"),
        ],
        read_only: true,
        stop_signal: text("SIGINT"),
        stop_grace_period_ms: 10_000,
        labels: map(&[("tier", "front")]),
    };
    ServiceSpec {
        name: "web".into(),
        labels: map(&[("team", "one")]),
        mode: Mode::Replicated { replicas: 2 },
        task: TaskSpec {
            container,
            limits: Resources { cpu_nanos: 500_000_000, memory_bytes: 64 << 20 },
            reservations: Resources { cpu_nanos: 250_000_000, memory_bytes: 32 << 20 },
            restart: RestartPolicy {
                condition: RestartCondition::OnFailure,
                delay_ms: Some(500),
                max_attempts: Some(3),
                window_ms: Some(60_000),
                max_delay_ms: Some(30_000),
            },
            placement: Placement {
                constraints: constraints.map(|text| text.parse().unwrap()).into(),
                spread_over: vec!["node.labels.rack".parse().unwrap()],
                max_per_node: 2,
                strategy: Some(Strategy::BinPack),
                affinities: vec![
                    Affinity { target: AffinityTarget::Service("db".into()), weight: 50 },
                    Affinity {
                        target: AffinityTarget::Node("node.labels.disk==ssd".parse().unwrap()),
                        weight: -50,
                    },
                ],
            },
            force_update: 1,
            generic: [("gpu".into(), 1)].into(),
            host_ports: vec![HostPort { published: 8080, target: 80 }],
            health: Health {
                ignore_image: true,
                startup: Some(Probe::new(Check::Tcp { port: 80 })),
                liveness: Some(Probe::new(Check::Exec(vec!["/ok".into()]))),
                readiness: Some(Probe::new(Check::Http { port: 80, path: "/".into() })),
            },
            drain_timeout_ms: 5_000,
        },
        ports: vec![PortSpec { published: 80, target: 8080 }],
        update: UpdatePolicy {
            parallelism: Amount::Percent(25),
            order: Order::StartFirst,
            failure_action: FailureAction::Rollback,
            canary: 1,
            auto_promote: true,
            ..UpdatePolicy::default()
        },
        rollback: UpdatePolicy::default(),
        disconnect: Disconnect::StopAfter { after_ms: 30_000 },
        priority: 70,
        max_unavailable: Amount::Count(1),
        job: JobPolicy::default(),
    }
}

fn create_job() -> Command {
    let mut spec = ServiceSpec {
        name: "backup".into(),
        mode: Mode::ReplicatedJob { completions: 5, max_concurrent: 2 },
        ..ServiceSpec::default()
    };
    spec.task.container.image = "backup:1".into();
    spec.job = JobPolicy {
        ttl_after_finished_ms: Some(60_000),
        max_run_duration_ms: Some(3_600_000),
        schedule: Some(Schedule {
            cron: "*/5 * * * *".into(),
            time_zone: "Europe/Vienna".into(),
            overlap: Overlap::Replace,
            starting_deadline_ms: Some(60_000),
            keep_succeeded: 3,
            keep_failed: 1,
        }),
    };
    Command::CreateService { id: ServiceId(101), spec: Arc::new(spec), at_ms: AT_MS }
}

fn create_bare() -> Command {
    let mut spec = full();
    spec.name = "bare".into();
    spec.labels.clear();
    spec.task.placement.constraints.clear();
    spec.task.restart = RestartPolicy::default();
    spec.task.limits = Resources::default();
    spec.task.reservations = Resources::default();
    let container = &mut spec.task.container;
    *container = ContainerSpec {
        image: container.image.clone(),
        entrypoint: Vec::new(),
        args: Vec::new(),
        env: Vec::new(),
        workdir: None,
        user: None,
        hostname: None,
        mounts: Vec::new(),
        read_only: false,
        stop_signal: None,
        stop_grace_period_ms: 10_000,
        labels: BTreeMap::new(),
    };
    Command::CreateService { id: SERVICE, spec: Arc::new(spec), at_ms: AT_MS }
}

fn new_task(slot: u32, reason: Reason) -> NewTask {
    NewTask { not_before_ms: AT_MS, restarts: slot - 1, ..NewTask::new(slot, reason) }
}

fn create_tasks(tasks: Vec<NewTask>) -> Change {
    Change::CreateTasks { service: SERVICE, revision: 1, base: TASK, tasks }
}

/// One change of each kind.
fn changes() -> Vec<Change> {
    let reasons = [
        Reason::ScaleUp,
        Reason::ScaleDown,
        Reason::Restart,
        Reason::Reschedule(Moved::NodeDown),
        Reason::Reschedule(Moved::NodeDrained),
        Reason::Reschedule(Moved::NodeRemoved),
        Reason::Reschedule(Moved::ConstraintsNotMet),
        Reason::Reschedule(Moved::Preempted),
        Reason::Update,
        Reason::ServiceRemoved,
        Reason::Exhausted,
        Reason::Completed,
        Reason::TimedOut,
        Reason::NewRun,
        Reason::Withdrawn,
    ];
    let desired =
        [Desired::Ready, Desired::Running, Desired::Complete, Desired::Shutdown, Desired::Remove];
    let tasks = (1..).zip(reasons).map(|(slot, reason)| NewTask {
        desired: desired[slot as usize % desired.len()],
        target: Some(NODE),
        beside: Some(TASK),
        ..new_task(slot, reason)
    });
    vec![
        create_tasks(tasks.collect()),
        Change::Assign { task: TASK, node: NODE },
        Change::SetDesired { task: TASK, desired: Desired::Shutdown, reason: Reason::ScaleDown },
        Change::Explain { task: TASK, message: "no node has room".into() },
        Change::Delete { task: TASK },
        Change::NodeDown { node: NODE, version: 9, message: "no heartbeat for 3 s".into() },
        Change::Lose { task: TASK },
        Change::SetRollout { service: SERVICE, version: 9, rollout: Box::new(rollout()) },
        Change::RollBack { service: SERVICE, version: 9, message: "too many failures".into() },
        Change::FinishJob {
            service: ServiceId(101),
            started_at_ms: AT_MS,
            outcome: JobOutcome::TimedOut,
        },
        Change::Launch {
            parent: ServiceId(101),
            child: ServiceId(102),
            scheduled_at_ms: AT_MS + 60_000,
        },
        Change::SkipLaunch {
            parent: ServiceId(101),
            scheduled_at_ms: AT_MS + 60_000,
            message: "the last one still runs".into(),
        },
        Change::RemoveJob {
            service: ServiceId(102),
            started_at_ms: AT_MS,
            finished_at_ms: AT_MS + 1,
        },
    ]
}

fn rollout() -> Rollout {
    Rollout {
        version: 9,
        kind: RolloutKind::Rollback,
        state: RolloutState::AwaitingPromotion,
        from: 1,
        to: 2,
        started_at_ms: AT_MS,
        since_ms: AT_MS,
        total: 2,
        failures: 1,
        done: 1,
        progress_at_ms: AT_MS,
        promoted: true,
        message: "canaries run".into(),
    }
}

fn report(state: Observed, exit_code: Option<i32>) -> StatusReport {
    StatusReport {
        task: TASK,
        state,
        at_ms: AT_MS,
        message: Some("pulling".into()),
        error: exit_code.map(|code| format!("exit code {code}").into()),
        exit_code,
        oom: exit_code == Some(137),
        ready: state == Observed::Running,
        readiness: 7,
    }
}

/// One report of each state.
fn reports() -> Vec<(NodeId, StatusReport)> {
    let states = [
        Observed::New,
        Observed::Pending,
        Observed::Assigned,
        Observed::Accepted,
        Observed::Preparing,
        Observed::Ready,
        Observed::Starting,
        Observed::Running,
        Observed::Complete,
        Observed::Shutdown,
        Observed::Failed,
        Observed::Rejected,
        Observed::Lost,
    ];
    let code = |state| match state {
        Observed::Failed => Some(137),
        Observed::Rejected => Some(-1),
        _ => None,
    };
    states.map(|state| (NODE, report(state, code(state)))).into()
}
