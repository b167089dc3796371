//! Measures planning: 50,000 tasks of 500 services on 5,000 nodes, then passes at rest.
//!
//! `cargo run --release -p cluster-planner --example placements`

#![allow(clippy::disallowed_methods, reason = "an example may look at the clock")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use cluster_model::node::NodeDescription;
use cluster_model::spec::{ContainerSpec, Mode, Resources, RestartPolicy, ServiceSpec, TaskSpec};
use cluster_model::{Change, Command, NodeId, ServiceId, State, apply};
use cluster_planner::{Ids, Scope, plan};

const NODES: u64 = 5_000;
const SERVICES: u64 = 500;
const REPLICAS: u32 = 100;

fn spec(number: u64) -> ServiceSpec {
    ServiceSpec {
        name: format!("service-{number}"),
        labels: BTreeMap::new(),
        mode: Mode::Replicated { replicas: REPLICAS },
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
            reservations: Resources { cpu_nanos: 100_000_000, memory_bytes: 64 << 20 },
            restart: RestartPolicy::default(),
            ..TaskSpec::default()
        },
        ports: vec![],
        ..ServiceSpec::default()
    }
}

fn world() -> (State, u64) {
    let mut state = State::default();
    let mut index = 0;
    let mut write = |state: &mut State, command| {
        index += 1;
        let reply = apply(state, index, &command).reply;
        assert!(reply.is_ok(), "{reply:?}");
    };
    for number in 1..=NODES {
        let (id, name) = (NodeId(number), format!("node-{number}"));
        write(&mut state, Command::RegisterNode { id, name, at_ms: 1 });
        let description = Box::new(NodeDescription {
            capacity: Resources { cpu_nanos: 16_000_000_000, memory_bytes: 64 << 30 },
            healthy: true,
            ..NodeDescription::default()
        });
        write(&mut state, Command::NodeReady { id, description, at_ms: 1 });
    }
    for number in 1..=SERVICES {
        let (id, spec) = (ServiceId(number), Arc::new(spec(number)));
        write(&mut state, Command::CreateService { id, spec, at_ms: 1 });
    }
    (state, index)
}

fn main() {
    let (mut state, mut index) = world();
    let mut ids = Ids::new(1);
    let mut placements = 0;
    let (mut planning, mut applying) = (0.0, 0.0);
    loop {
        let begin = Instant::now();
        let pass = plan(&state, Scope::All, 2, &mut ids);
        planning += begin.elapsed().as_secs_f64();
        if pass.changes.is_empty() {
            println!("full pass at rest: {:.1} ms", begin.elapsed().as_secs_f64() * 1e3);
            break;
        }
        placements += pass.changes.iter().filter(|c| matches!(c, Change::Assign { .. })).count();
        let begin = Instant::now();
        index += 1;
        apply(&mut state, index, &Command::Plan { at_ms: 2, changes: pass.changes })
            .reply
            .expect("taken");
        applying += begin.elapsed().as_secs_f64();
    }
    let one = BTreeSet::from([ServiceId(7)]);
    let begin = Instant::now();
    let scoped = plan(&state, Scope::Services(&one), 2, &mut ids);
    println!("scoped pass at rest: {:.2} ms", begin.elapsed().as_secs_f64() * 1e3);
    assert!(scoped.changes.is_empty());
    println!(
        "{placements} placements on {NODES} nodes: planned in {planning:.2} s, applied in {applying:.2} s"
    );
    println!(
        "{:.0} placements/s planned, state written speculatively",
        placements as f64 / planning
    );
}
