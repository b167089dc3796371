//! How cost grows: each group does the same with ever more nodes, tasks or backends around it. What
//! follows the change alone stays flat; what has to look at everything rises.
//!
//! `cargo xtask bench growth` runs it and keeps the plots in docs/plots.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

#[path = "../../planner/examples/shared/world.rs"]
mod world;

use std::collections::BTreeSet;
use std::hint::black_box;
use std::time::Duration;

use cluster_model::endpoint::{Backend, ServiceEndpoints};
use cluster_model::service::PublishedPort;
use cluster_model::{
    Change, Command, NodeId, Observed, ServiceId, State, StatusReport, Task, TaskId, apply,
};
use cluster_planner::{Ids, Scope, plan};
use cluster_wire::object;
use criterion::{
    AxisScale, BatchSize, BenchmarkId, Criterion, PlotConfiguration, criterion_group,
    criterion_main,
};
use prost::Message as _;

use world::{Shape, World};

const NODES: [u64; 5] = [100, 300, 1_000, 3_000, 10_000];
const TASKS: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];
const BACKENDS: [u64; 4] = [10, 100, 1_000, 10_000];
/// So many nodes have room for the most tasks.
const NODES_FOR_TASKS: u64 = 10_000;
const REPLICAS: u32 = 100;
/// Changes made in a state that is large already.
const FEW: usize = 100;

fn by_nodes(criterion: &mut Criterion) {
    for (name, services, replicas) in [("place-one", 1, 1), ("place-thousand", 10, 100)] {
        let mut group = criterion.benchmark_group(name);
        group.plot_config(logarithmic());
        for nodes in NODES {
            let world = World::new(nodes, services, replicas, Shape::Plain);
            let all: BTreeSet<ServiceId> = (1..=services).map(ServiceId).collect();
            group.bench_with_input(BenchmarkId::from_parameter(nodes), &nodes, |bench, _| {
                bench.iter(|| plan(&world.state, Scope::Services(&all), 2, &mut Ids::new(1)));
            });
        }
        group.finish();
    }
}

fn by_tasks(criterion: &mut Criterion) {
    let worlds: Vec<Case> = TASKS.iter().map(|tasks| Case::of(*tasks)).collect();
    let mut each = |name: &str, work: fn(&Case) -> usize| {
        let mut group = criterion.benchmark_group(name);
        group.plot_config(logarithmic());
        for case in &worlds {
            group.bench_with_input(BenchmarkId::from_parameter(case.tasks), case, |bench, case| {
                bench.iter(|| black_box(work(case)));
            });
        }
        group.finish();
    };
    each("pass-over-one-service", |case| {
        let one = BTreeSet::from([ServiceId(7)]);
        plan(&case.before, Scope::Services(&one), 3, &mut Ids::new(1)).changes.len()
    });
    each("compare-after-hundred-reports", |case| case.after.changes(&case.before).tasks.len());
    each("encode-and-compress-state", |case| {
        let bytes = postcard::to_stdvec(&case.before).expect("a state can be encoded");
        zstd::bulk::compress(&bytes, 1).expect("bytes can be compressed").len()
    });

    let mut group = criterion.benchmark_group("apply-hundred-reports");
    group.plot_config(logarithmic());
    for case in &worlds {
        group.bench_with_input(BenchmarkId::from_parameter(case.tasks), case, |bench, case| {
            let work = |state: &mut State| apply(state, case.index, &case.failures).reply;
            bench.iter_batched_ref(|| case.before.clone(), work, BatchSize::SmallInput);
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("decode-state");
    group.plot_config(logarithmic());
    for case in &worlds {
        let bytes = postcard::to_stdvec(&case.before).expect("a state can be encoded");
        group.bench_with_input(BenchmarkId::from_parameter(case.tasks), &bytes, |bench, bytes| {
            let read = || postcard::from_bytes::<State>(bytes).expect("what was just encoded");
            bench.iter_batched(|| (), |()| read(), BatchSize::PerIteration);
        });
    }
    group.finish();
}

fn by_backends(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode-endpoints");
    group.plot_config(logarithmic());
    for count in BACKENDS {
        let backend = |number| Backend {
            task: TaskId(number),
            node: NodeId(number),
            address: "10.0.0.1".into(),
            mesh_port: 4790,
        };
        let endpoints = ServiceEndpoints {
            service: ServiceId(1),
            name: "web".into(),
            ports: vec![PublishedPort { published: 80, target: 8080 }],
            backends: (1..=count).map(backend).collect(),
        };
        group.bench_with_input(BenchmarkId::from_parameter(count), &endpoints, |bench, all| {
            bench.iter(|| object::endpoints(all).encode_to_vec());
        });
    }
    group.finish();
}

/// A state of some size, and the same after a few changes.
struct Case {
    tasks: u64,
    before: State,
    failures: Command,
    /// Of the log, for the next command.
    index: u64,
    after: State,
}

impl Case {
    fn of(tasks: u64) -> Self {
        let world = running(tasks);
        let (before, index) = (world.state, world.index + 1);
        let failures = failures(&before);
        let mut after = before.clone();
        assert!(apply(&mut after, index, &failures).reply.is_ok());
        Self { tasks, before, failures, index, after }
    }
}

/// So many tasks that all run.
fn running(tasks: u64) -> World {
    let services = tasks / u64::from(REPLICAS);
    let mut world = World::new(NODES_FOR_TASKS, services, REPLICAS, Shape::Plain);
    let mut ids = Ids::new(1);
    loop {
        let changes = plan(&world.state, Scope::All, 2, &mut ids).changes;
        if changes.is_empty() {
            break;
        }
        let created: BTreeSet<TaskId> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Assign { task, .. } => Some(*task),
                _ => None,
            })
            .collect();
        world.write(Command::Plan { at_ms: 2, changes });
        let run = |id: &TaskId| {
            let node = world.state.task(*id)?.node?;
            Some((node, StatusReport::new(*id, Observed::Running, 3)))
        };
        let reports = created.iter().filter_map(run).collect();
        world.write(Command::RecordStatus { reports });
    }
    world
}

/// A hundred tasks, here and there, fail.
fn failures(state: &State) -> Command {
    let every = (state.task_count() / FEW).max(1);
    let fail = |task: &Task| Some((task.node?, StatusReport::new(task.id, Observed::Failed, 4)));
    Command::RecordStatus {
        reports: state.tasks().step_by(every).take(FEW).filter_map(fail).collect(),
    }
}

fn logarithmic() -> PlotConfiguration {
    PlotConfiguration::default().summary_scale(AxisScale::Logarithmic)
}

fn quick() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! {
    name = growth;
    config = quick();
    targets = by_nodes, by_tasks, by_backends
}
criterion_main!(growth);
