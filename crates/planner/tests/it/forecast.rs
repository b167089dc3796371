//! Dry runs.

use std::sync::Arc;

use cluster_model::spec::Mode;
use cluster_model::{Availability, Command, NodeId, NodeSpec, Refusal, ServiceId, ServiceSpec};
use cluster_planner::forecast::{Forecast, forecast};

use crate::world::{MIB, World, spec};

fn ask(world: &World, command: &Command) -> Forecast {
    let before = world.state.clone();
    let found = forecast(&world.state, command, world.now_ms, 7).expect("accepted");
    assert_eq!(before, world.state, "a dry run changes nothing");
    assert_eq!(forecast(&world.state, command, world.now_ms, 7), Ok(found.clone()));
    found
}

fn update(world: &World, id: ServiceId, edit: impl FnOnce(&mut ServiceSpec)) -> Command {
    let service = world.state.service(id).expect("known");
    let mut spec = (*service.spec).clone();
    edit(&mut spec);
    let (version, spec) = (service.version, Arc::new(spec));
    Command::UpdateService { id, version, spec, at_ms: world.now_ms, give_up: vec![] }
}

fn counts(forecast: &Forecast) -> [usize; 5] {
    [
        forecast.started.len(),
        forecast.stopped.len(),
        forecast.replaced.len() + forecast.moved.len(),
        forecast.preempted.len(),
        forecast.pending.len(),
    ]
}

#[test]
fn a_new_service_is_started_as_far_as_there_is_room() {
    let world = World::with_nodes(2);
    let mut spec = spec("web", 5);
    spec.task.reservations.memory_bytes = 500 * MIB;
    let command =
        Command::CreateService { id: ServiceId(9), spec: Arc::new(spec), at_ms: world.now_ms };
    let found = ask(&world, &command);
    assert_eq!(counts(&found), [4, 0, 0, 0, 1]);
    assert!(found.pending[0].why.contains("insufficient memory"), "{found:?}");
    assert!(found.started.iter().all(|effect| effect.name == "web" && effect.to.is_some()));
    assert!(!found.truncated);
}

#[test]
fn what_waits_anyway_is_not_told_again() {
    let mut world = World::with_nodes(1);
    let mut big = spec("big", 2);
    big.task.reservations.memory_bytes = 700 * MIB;
    world.create(1, big);
    world.settle();
    let id = world.create(2, spec("web", 1));
    world.settle();
    let found =
        ask(&world, &update(&world, id, |spec| spec.mode = Mode::Replicated { replicas: 3 }));
    assert_eq!(counts(&found), [2, 0, 0, 0, 0]);
    // Room that becomes free is used.
    let command = Command::RemoveService { id: ServiceId(2), at_ms: world.now_ms, version: None };
    assert_eq!(counts(&ask(&world, &command)), [0, 1, 0, 0, 0]);
}

#[test]
fn an_update_replaces_and_a_scale_down_stops() {
    let mut world = World::with_nodes(3);
    let id = world.create(1, spec("web", 3));
    world.settle();
    let found = ask(&world, &update(&world, id, |spec| spec.task.force_update += 1));
    assert_eq!(counts(&found), [0, 0, 3, 0, 0]);
    let fewer = update(&world, id, |spec| spec.mode = Mode::Replicated { replicas: 1 });
    let found = ask(&world, &fewer);
    assert_eq!(counts(&found), [0, 2, 0, 0, 0]);
    assert!(found.stopped.iter().all(|effect| &*effect.why == "scale down"));
}

#[test]
fn a_drain_moves_and_a_refused_command_is_refused() {
    let mut world = World::with_nodes(3);
    let web = world.create(1, spec("web", 3));
    let mut agents = spec("agents", 0);
    agents.mode = Mode::Global;
    world.create(2, agents);
    world.settle();
    let node = world.state.node(NodeId(2)).expect("known");
    let drained = NodeSpec { availability: Availability::Drain, ..node.spec.clone() };
    let command = Command::UpdateNode {
        id: NodeId(2),
        version: node.version,
        spec: drained.clone(),
        at_ms: world.now_ms,
    };
    let found = ask(&world, &command);
    assert_eq!((found.moved.len(), found.stopped.len()), (1, 1), "{found:?}");
    assert_eq!((found.moved[0].service, found.moved[0].from), (web, Some(NodeId(2))));
    let stale = Command::UpdateNode { id: NodeId(2), version: 1, spec: drained, at_ms: 0 };
    let refused = forecast(&world.state, &stale, world.now_ms, 7);
    assert!(matches!(refused, Err(Refusal::VersionMoved { .. })));
}

#[test]
fn a_job_runs_to_its_end_and_schedules_do_not_launch() {
    let world = World::with_nodes(2);
    let mut job = spec("job", 0);
    job.mode = Mode::ReplicatedJob { completions: 5, max_concurrent: 2 };
    let at_ms = world.now_ms;
    let command = Command::CreateService { id: ServiceId(9), spec: Arc::new(job.clone()), at_ms };
    assert_eq!(counts(&ask(&world, &command)), [5, 0, 0, 0, 0]);
    job.job.schedule = Some(cluster_model::spec::Schedule {
        cron: "* * * * *".into(),
        time_zone: String::new(),
        overlap: cluster_model::spec::Overlap::Allow,
        starting_deadline_ms: None,
        keep_succeeded: 3,
        keep_failed: 1,
    });
    let command = Command::CreateService { id: ServiceId(9), spec: Arc::new(job), at_ms };
    assert_eq!(ask(&world, &command), Forecast::default());
}
