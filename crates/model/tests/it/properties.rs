//! Whatever is proposed, by right or wrong proposers: states only move forward, slots are filled
//! once, capacities hold, indexes follow their tables, and the same log gives the same state.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster_model::node::NodeDescription;
use cluster_model::spec::{
    ContainerSpec, Mode, PortSpec, Resources, RestartPolicy, ServiceSpec, TaskSpec,
};
use cluster_model::task::Moved;
use cluster_model::{
    Availability, Change, Command, Desired, NewTask, NodeId, NodeSpec, Observed, Reason, ServiceId,
    State, StatusReport, Task, TaskId, endpoint,
};
use proptest::prelude::*;

fn spec(name: u64, memory: u64, port: u16, force_update: u64) -> Arc<ServiceSpec> {
    Arc::new(ServiceSpec {
        name: format!("s{name}"),
        labels: BTreeMap::new(),
        mode: Mode::Replicated { replicas: 2 },
        task: TaskSpec {
            container: ContainerSpec {
                image: "web:1".into(),
                entrypoint: vec![],
                args: vec![],
                env: vec![],
                workdir: None,
                user: None,
                hostname: None,
                mounts: vec![],
                read_only: false,
                stop_signal: None,
                stop_grace_period_ms: 10_000,
                labels: BTreeMap::new(),
            },
            limits: Resources::default(),
            reservations: Resources { cpu_nanos: 0, memory_bytes: memory << 22 },
            restart: RestartPolicy::default(),
            force_update,
            ..TaskSpec::default()
        },
        ports: if port == 9 { vec![] } else { vec![PortSpec { published: port, target: 80 }] },
        ..ServiceSpec::default()
    })
}

fn observed() -> impl Strategy<Value = Observed> {
    prop::sample::select(vec![
        Observed::New,
        Observed::Assigned,
        Observed::Preparing,
        Observed::Ready,
        Observed::Running,
        Observed::Running,
        Observed::Complete,
        Observed::Shutdown,
        Observed::Failed,
        Observed::Rejected,
        Observed::Lost,
    ])
}

fn desired() -> impl Strategy<Value = Desired> {
    prop::sample::select(vec![
        Desired::Ready,
        Desired::Running,
        Desired::Running,
        Desired::Complete,
        Desired::Shutdown,
        Desired::Remove,
    ])
}

fn change() -> impl Strategy<Value = Change> {
    let task = || (0u64..12).prop_map(TaskId);
    let node = || (0u64..4).prop_map(NodeId);
    let reason = || {
        prop::sample::select(vec![
            Reason::ScaleUp,
            Reason::Restart,
            Reason::Reschedule(Moved::NodeDown),
            Reason::Exhausted,
        ])
    };
    let beside = prop::option::weighted(0.3, task());
    let new = (1u32..4, desired(), reason(), beside).prop_map(|(slot, desired, reason, beside)| {
        NewTask { desired, beside, ..NewTask::new(slot, reason) }
    });
    prop_oneof![
        4 => (0u64..3, 1u32..4, task(), prop::collection::vec(new, 1..4)).prop_map(
            |(service, revision, base, tasks)| Change::CreateTasks {
                service: ServiceId(service),
                revision,
                base,
                tasks,
            }
        ),
        6 => (task(), node()).prop_map(|(task, node)| Change::Assign { task, node }),
        4 => (task(), desired(), reason())
            .prop_map(|(task, desired, reason)| Change::SetDesired { task, desired, reason }),
        1 => task().prop_map(|task| Change::Explain { task, message: "no room".into() }),
        1 => task().prop_map(|task| Change::Delete { task }),
        1 => task().prop_map(|task| Change::Lose { task }),
        1 => (node(), 0u64..80).prop_map(|(node, version)| Change::NodeDown {
            node,
            version,
            message: "silent".into(),
        }),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let node = || (0u64..4).prop_map(NodeId);
    let service = || (0u64..3).prop_map(ServiceId);
    let availability =
        prop::sample::select(vec![Availability::Active, Availability::Pause, Availability::Drain]);
    let report = (node(), 0u64..12, observed()).prop_map(|(node, task, state)| {
        let task = TaskId(task);
        let report = StatusReport::new(task, state, 7);
        (node, report)
    });
    prop_oneof![
        3 => (service(), 0u64..3, 0u64..3, 8u16..11).prop_map(|(id, name, memory, port)| {
            Command::CreateService { id, spec: spec(name, memory, port, 0), at_ms: 1 }
        }),
        3 => (service(), 0u64..80, 0u64..3, 0u64..3, 8u16..11, 0u64..3).prop_map(
            |(id, version, name, memory, port, force)| Command::UpdateService {
                id,
                version,
                spec: spec(name, memory, port, force),
                at_ms: 1,
                give_up: vec![],
            }
        ),
        1 => service().prop_map(|id| Command::RemoveService { id, at_ms: 1, version: None }),
        3 => (node(), 0u64..4).prop_map(|(id, name)| Command::RegisterNode {
            id,
            name: format!("n{name}"),
            at_ms: 1,
        }),
        4 => (node(), 0u64..3).prop_map(|(id, boot)| Command::NodeReady {
            id,
            description: Box::new(NodeDescription {
                address: format!("10.0.0.{boot}"),
                healthy: true,
                boot,
                capacity: Resources { cpu_nanos: 0, memory_bytes: 5 << 22 },
                ..NodeDescription::default()
            }),
            at_ms: 1,
        }),
        1 => (node(), 0u64..80, availability).prop_map(|(id, version, availability)| {
            let spec = NodeSpec { availability, ..NodeSpec::default() };
            Command::UpdateNode { id, version, spec, at_ms: 1 }
        }),
        1 => (node(), any::<bool>())
            .prop_map(|(id, force)| Command::RemoveNode { id, force, at_ms: 1 }),
        12 => prop::collection::vec(change(), 1..5)
            .prop_map(|changes| Command::Plan { at_ms: 2, changes }),
        8 => prop::collection::vec(report, 1..4)
            .prop_map(|reports| Command::RecordStatus { reports }),
    ]
}

/// Names versions that exist often enough for updates to be taken.
fn aim(state: &State, command: Command, honest: bool) -> Command {
    match command {
        Command::UpdateService { id, version, spec, at_ms, give_up } if honest => {
            let service = state.service(id);
            let version = service.map_or(version, |service| service.version);
            let mut spec = (*spec).clone();
            if let Some(service) = service {
                spec.name = service.spec.name.clone();
            }
            Command::UpdateService { id, version, spec: Arc::new(spec), at_ms, give_up }
        }
        Command::UpdateNode { id, version, spec, at_ms } if honest => {
            let version = state.node(id).map_or(version, |node| node.version);
            Command::UpdateNode { id, version, spec, at_ms }
        }
        Command::Plan { at_ms, mut changes } if honest => {
            for change in &mut changes {
                if let Change::NodeDown { node, version, .. } = change {
                    *version = state.node(*node).map_or(*version, |node| node.version);
                }
            }
            Command::Plan { at_ms, changes }
        }
        other => other,
    }
}

fn check(before: &State, after: &State, index: u64) {
    for task in after.tasks() {
        if let Some(old) = before.task(task.id).filter(|old| old.created_at_ms != 0) {
            // An id that was forgotten within the command may have been used anew.
            if old.service == task.service && old.slot == task.slot && old.version != index {
                let (from, to) = (old.status.state, task.status.state);
                let renewed = task.node.is_none() && to == Observed::Pending;
                assert!(renewed || task.desired >= old.desired);
                assert!(renewed || from == to || from.can_advance_to(to), "{old:?} {task:?}");
            }
        }
        assert!(after.service(task.service).is_some(), "a task without a service: {task:?}");
        let known = after.service(task.service).and_then(|s| s.task_spec(task.revision));
        assert!(known.is_some(), "a revision in use was dropped: {task:?}");
        let slot: Vec<&Task> = after.tasks_of_slot(task.service, task.slot).collect();
        let fill: Vec<&&Task> = slot.iter().filter(|task| task.fills_slot()).collect();
        let pair = matches!(fill[..], [one, other] if one.is_beside(other));
        assert!(fill.len() <= 1 || pair, "{slot:#?}");
        if task.desired == Desired::Running && task.fills_slot() {
            let barred = |other: &&&Task| other.id != task.id && !task.is_beside(other);
            let other = slot.iter().filter(barred).find(|other| other.holds_resources());
            assert!(other.is_none(), "may run twice: {slot:#?}");
        }
    }
    for node in after.nodes() {
        let held = after.usage(node.id).reserved.memory_bytes;
        assert!(held <= node.description.capacity.memory_bytes, "overbooked: {node:?}");
    }
    for service in after.services() {
        let same = |id| {
            endpoint::of_service(before, id).map(|e| (e.ports, e.backends))
                == endpoint::of_service(after, id).map(|e| (e.ports, e.backends))
        };
        if !same(service.id) {
            assert_eq!(after.endpoints_version(), index, "endpoints changed silently");
        }
        if service.removed {
            assert!(after.tasks_of_service(service.id).next().is_some(), "an empty shell stays");
        }
    }
}

proptest! {
    #[test]
    fn no_log_breaks_the_state(
        log in prop::collection::vec((command(), prop::bool::weighted(0.8)), 1..150)
    ) {
        let mut state = State::default();
        let mut taken = Vec::new();
        let mut snapshot = None;
        for (index, (command, honest)) in (1u64..).zip(log) {
            let command = aim(&state, command, honest);
            let before = state.clone();
            let outcome = cluster_model::apply(&mut state, index, &command);
            if outcome.reply.is_err() {
                prop_assert_eq!(&state, &before, "refused, but something changed");
            }
            check(&before, &state, index);
            taken.push(command);
            if index == 40 {
                snapshot = Some(postcard::to_allocvec(&state).expect("encodes"));
            }
        }
        let replay = |mut state: State, from: usize| {
            for (index, command) in (1u64..).zip(&taken).skip(from) {
                cluster_model::apply(&mut state, index, command);
            }
            state
        };
        prop_assert_eq!(&replay(State::default(), 0), &state, "the same log, another state");
        if let Some(bytes) = snapshot {
            let read: State = postcard::from_bytes(&bytes).expect("decodes");
            prop_assert_eq!(&replay(read, 40), &state, "snapshot and tail, another state");
        }
        let bytes = postcard::to_allocvec(&state).expect("encodes");
        let read: State = postcard::from_bytes(&bytes).expect("decodes");
        prop_assert_eq!(&read, &state, "indexes drifted from the tables");
    }
}
