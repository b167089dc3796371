//! One value of each kind that is frozen, with every variant of what it is made of.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster_model::cluster::{Cluster, Manager, Secret};
use cluster_model::command::{Change, Command, NewTask, StatusReport};
use cluster_model::node::{Availability, NodeDescription, NodeSpec};
use cluster_model::spec::{
    ContainerSpec, Mode, Mount, MountKind, PortSpec, Resources, RestartCondition, RestartPolicy,
    ServiceSpec, TaskSpec,
};
use cluster_model::task::{Desired, Moved, Observed, Reason};
use cluster_model::{ClusterId, NodeId, ServiceId, State, TaskId};

const SERVICE: ServiceId = ServiceId(100);
const NODE: NodeId = NodeId(11);
const TASK: TaskId = TaskId(1000);
const AT_MS: u64 = 1_700_000_000_000;

/// Number of kinds that `kind` tells apart.
pub(super) const KINDS: usize = 14;

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
            },
        ),
        ("remove-service", Command::RemoveService { id: SERVICE, at_ms: AT_MS }),
        ("register-node", register()),
        ("node-ready", ready()),
        ("remove-node", Command::RemoveNode { id: NODE, force: true, at_ms: AT_MS }),
        ("put-manager", Command::PutManager { id: NodeId(2), manager: manager("m2") }),
        ("remove-manager", Command::RemoveManager { id: NodeId(2) }),
        ("set-worker-token", Command::SetWorkerToken(Secret::new("worker-two".into()))),
        ("set-manager-token", Command::SetManagerToken(Secret::new("manager-two".into()))),
        ("record-status", Command::RecordStatus { reports: reports() }),
    ]
    .map(|(name, command)| (name.to_owned(), command))
    .into();
    for availability in [Availability::Active, Availability::Pause, Availability::Drain] {
        let labels = map(&[("rack", "a")]);
        let spec = NodeSpec { availability, labels };
        let command = Command::UpdateNode { id: NODE, version: 9, spec, at_ms: AT_MS };
        all.push((format!("update-node-{availability:?}").to_lowercase(), command));
    }
    for change in changes() {
        let name = format!("plan-{}", change_name(&change));
        all.push((name, Command::Plan { at_ms: AT_MS, changes: vec![change] }));
    }
    all
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
            },
            constraints: constraints.map(|text| text.parse().unwrap()).into(),
            force_update: 1,
        },
        ports: vec![PortSpec { published: 80, target: 8080 }],
    }
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
    NewTask { slot, desired: Desired::Running, reason, not_before_ms: AT_MS, restarts: slot - 1 }
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
        Reason::Update,
        Reason::ServiceRemoved,
        Reason::Exhausted,
    ];
    let desired =
        [Desired::Ready, Desired::Running, Desired::Complete, Desired::Shutdown, Desired::Remove];
    let tasks = (1..).zip(reasons).map(|(slot, reason)| NewTask {
        desired: desired[slot as usize % desired.len()],
        ..new_task(slot, reason)
    });
    vec![
        create_tasks(tasks.collect()),
        Change::Assign { task: TASK, node: NODE },
        Change::SetDesired { task: TASK, desired: Desired::Shutdown, reason: Reason::ScaleDown },
        Change::Explain { task: TASK, message: "no node has room".into() },
        Change::Delete { task: TASK },
        Change::NodeDown { node: NODE, version: 9, message: "no heartbeat for 3 s".into() },
    ]
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
