//! A service spec on its whole way: from the wire to the model and back, through the rules, into a
//! state, and through the planners.

use std::sync::{Arc, LazyLock};

use cluster_model::spec::{Mode, Resources, ServiceSpec};
use cluster_model::{Command, NodeDescription, NodeId, ServiceId, State, TaskId, apply, validate};
use cluster_pb::types::v1 as pb;
use cluster_planner::{Ids, Scope, explain, forecast, plan};
use cluster_wire::spec::{service_spec_from_pb, service_spec_to_pb};
use prost::Message as _;

/// More replicas only take longer.
const REPLICAS_MAX: u32 = 40;
const NOW_MS: u64 = 1_800_000_000_000;

/// Three ready nodes.
static NODES: LazyLock<State> = LazyLock::new(|| {
    let mut state = State::default();
    let mut index = 0;
    let mut write = |command: Command| {
        index += 1;
        apply(&mut state, index, &command).reply.expect("a fixed command");
    };
    for number in 1..=3 {
        let id = NodeId(number);
        write(Command::RegisterNode { id, name: format!("n{number}"), at_ms: 1 });
        let description = NodeDescription {
            address: format!("10.0.0.{number}"),
            mesh_port: 7101,
            os: "linux".into(),
            arch: "x86_64".into(),
            boot: 1,
            capacity: Resources { cpu_nanos: 4_000_000_000, memory_bytes: 8 << 30 },
            labels: [("rack".to_owned(), number.to_string())].into(),
            healthy: true,
            ..NodeDescription::default()
        };
        write(Command::NodeReady { id, description: Box::new(description), at_ms: 2 });
    }
    state
});

pub fn spec(data: &[u8]) {
    let Ok(message) = pb::ServiceSpec::decode(data) else { return };
    let Ok(spec) = service_spec_from_pb(message) else { return };
    let again = service_spec_from_pb(service_spec_to_pb(&spec));
    assert_eq!(again.as_ref(), Ok(&spec), "a spec changes on its way");
    if let Err(invalid) = validate::service(&spec) {
        assert!(!invalid.to_string().contains('\n'), "{invalid}");
        return;
    }
    run(spec);
}

/// What a manager does with a spec that is valid.
fn run(mut spec: ServiceSpec) {
    match &mut spec.mode {
        Mode::Replicated { replicas } => *replicas = (*replicas).min(REPLICAS_MAX),
        Mode::ReplicatedJob { completions, max_concurrent } => {
            *completions = (*completions).min(REPLICAS_MAX);
            *max_concurrent = (*max_concurrent).min(REPLICAS_MAX);
        }
        Mode::Global | Mode::GlobalJob => {}
    }
    if validate::service(&spec).is_err() {
        return;
    }
    let id = ServiceId(99);
    let create = Command::CreateService { id, spec: Arc::new(spec), at_ms: NOW_MS };
    let _ = forecast::forecast(&NODES, &create, NOW_MS, 1);
    let mut state = NODES.clone();
    if apply(&mut state, 100, &create).reply.is_err() {
        return;
    }
    let mut ids = Ids::new(7);
    for pass in 0..3 {
        let now_ms = NOW_MS + pass * 60_000;
        let made = plan(&state, Scope::All, now_ms, &mut ids);
        if !made.changes.is_empty() {
            let command = Command::Plan { at_ms: now_ms, changes: made.changes };
            let _ = apply(&mut state, 101 + pass, &command);
        }
    }
    let tasks: Vec<TaskId> = state.tasks().map(|task| task.id).take(3).collect();
    for task in tasks {
        let _ = explain::task(&state, task, NOW_MS);
    }
}
