//! Tasks that must leave their nodes.

use cluster_model::spec::{Amount, Mode};
use cluster_model::task::Moved;
use cluster_model::{
    Availability, Command, Desired, DrainPolicy, NodeId, NodeSpec, Observed, Reason, ServiceId,
};

use crate::world::{CRASH, LONG, World, spec};

fn on(world: &World, web: ServiceId, node: u64) -> usize {
    world.holders(web).iter().filter(|task| task.node == Some(NodeId(node))).count()
}

#[test]
fn a_drained_node_gives_its_tasks_away_one_at_a_time() {
    let mut world = World::with_nodes(2);
    let web = world.create(1, spec("web", 6));
    world.settle();
    world.availability(NodeId(1), Availability::Drain);
    for _ in 0..60 {
        world.plan();
        assert!(world.running(web).len() >= 5);
        world.agents();
    }
    assert_eq!(on(&world, web, 1), 0);
    assert_eq!(world.running(web).len(), 6);
    let moved = Reason::Reschedule(Moved::NodeDrained);
    assert_eq!(world.running(web).iter().filter(|task| task.reason == moved).count(), 3);
    // Active again moves nothing back by itself.
    world.availability(NodeId(1), Availability::Active);
    world.settle();
    assert_eq!(on(&world, web, 1), 0);
}

#[test]
fn services_move_side_by_side() {
    let mut world = World::with_nodes(1);
    let services: Vec<ServiceId> =
        (1..=3).map(|id| world.create(id, spec(&format!("s{id}"), 2))).collect();
    world.settle();
    world.join(NodeId(2), 1 << 30);
    world.availability(NodeId(1), Availability::Drain);
    world.plan();
    for service in services {
        assert_eq!(on(&world, service, 2), 1);
    }
}

#[test]
fn a_drain_empties_the_node_even_when_nothing_else_can_take_the_tasks() {
    let mut world = World::with_nodes(1);
    let web = world.create(1, spec("web", 3));
    world.settle();
    world.availability(NodeId(1), Availability::Drain);
    world.settle();
    assert!(world.running(web).is_empty());
    for task in world.holders(web) {
        assert_eq!(task.node, None);
        assert_eq!(
            task.status.details.message.as_deref(),
            Some("no suitable node: 1 node drained")
        );
    }
    world.availability(NodeId(1), Availability::Active);
    world.settle();
    assert_eq!(world.running(web).len(), 3);
}

#[test]
fn tasks_that_do_not_run_do_not_hold_a_drain() {
    let mut world = World::with_nodes(2);
    let mut bad = spec("bad", 2);
    bad.task.container.image = CRASH.into();
    let bad = world.create(1, bad);
    for _ in 0..30 {
        world.plan();
        world.agents();
    }
    world.availability(NodeId(1), Availability::Drain);
    for _ in 0..30 {
        world.plan();
        world.agents();
    }
    assert_eq!(on(&world, bad, 1), 0);
    assert!(world.state.tasks_of_node(NodeId(1)).all(|task| !task.holds_resources()));
}

#[test]
fn a_label_that_goes_evicts_and_one_that_comes_attracts() {
    let mut world = World::with_nodes(2);
    world.label(NodeId(1), "rack", "a");
    let mut spec = spec("web", 2);
    spec.task.placement.constraints = vec!["node.labels.rack==a".parse().expect("parses")];
    let web = world.create(1, spec);
    world.settle();
    assert_eq!(world.spread(web), [2, 0]);
    world.label(NodeId(2), "rack", "a");
    world.label(NodeId(1), "rack", "b");
    world.settle();
    assert_eq!(world.spread(web), [0, 2]);
    assert_eq!(world.running(web).len(), 2);
    let reason = &world.holder(web, 1).reason;
    assert_eq!(*reason, Reason::Reschedule(Moved::ConstraintsNotMet));
}

#[test]
fn a_paused_node_keeps_its_tasks_and_gets_no_new_ones() {
    let mut world = World::with_nodes(2);
    let web = world.create(1, spec("web", 2));
    world.settle();
    world.availability(NodeId(1), Availability::Pause);
    world.scale(web, 4);
    world.settle();
    assert_eq!(world.spread(web), [1, 3]);
}

fn drain(world: &mut World, id: NodeId, drain: DrainPolicy) {
    let node = world.state.node(id).expect("known");
    let spec = NodeSpec { availability: Availability::Drain, drain, ..node.spec.clone() };
    let version = node.version;
    let at_ms = world.now_ms;
    world.apply(Command::UpdateNode { id, version, spec, at_ms }).expect("updated");
}

#[test]
fn a_larger_budget_lets_more_go_at_once() {
    let mut world = World::with_nodes(2);
    let mut spec = spec("web", 8);
    spec.max_unavailable = Amount::Percent(25);
    let web = world.create(1, spec);
    world.settle();
    world.availability(NodeId(1), Availability::Drain);
    world.plan();
    assert_eq!(world.running(web).len(), 6);
    world.update(web, |spec| spec.max_unavailable = Amount::Count(3));
    world.plan();
    assert_eq!(world.running(web).len(), 5);
}

#[test]
fn a_replacement_that_is_not_well_holds_the_drain_for_a_while_only() {
    let mut world = World::with_nodes(2);
    let web = world.create(1, spec("web", 4));
    world.settle();
    world.availability(NodeId(1), Availability::Drain);
    world.plan();
    world.agent(NodeId(1));
    world.plan();
    // The replacement never gets further than being prepared.
    let before = on(&world, web, 1);
    assert_eq!(before, 1);
    world.advance(599_000);
    world.plan();
    assert_eq!(on(&world, web, 1), before);
    world.advance(2_000);
    world.plan();
    assert_eq!(on(&world, web, 1), before - 1);
}

#[test]
fn at_the_deadline_and_by_force_everything_goes() {
    for force in [false, true] {
        let mut world = World::with_nodes(2);
        let web = world.create(1, spec("web", 6));
        world.settle();
        let deadline_at_ms = (!force).then_some(world.now_ms + 60_000);
        drain(&mut world, NodeId(1), DrainPolicy { deadline_at_ms, force });
        world.plan();
        if !force {
            assert_eq!(on(&world, web, 1), 2);
            assert_eq!(world.wake_at_ms, deadline_at_ms);
            world.advance(60_000);
            world.plan();
        }
        assert_eq!(on(&world, web, 1), 0);
        world.settle();
        assert_eq!(world.running(web).len(), 6);
    }
}

/// A running task of a job, put there by hand: the planner of jobs is not part of this test.
#[test]
fn running_tasks_of_jobs_finish_unless_the_deadline_comes_first() {
    let mut world = World::with_nodes(2);
    let mut spec = spec("job", 2);
    spec.mode = Mode::ReplicatedJob { completions: 2, max_concurrent: 0 };
    spec.task.container.image = LONG.into();
    let job = world.create(1, spec);
    world.settle();
    assert_eq!(world.spread(job), [1, 1]);
    let deadline_at_ms = Some(world.now_ms + 60_000);
    drain(&mut world, NodeId(1), DrainPolicy { deadline_at_ms, force: false });
    world.settle();
    assert_eq!(world.spread(job), [1, 1], "left to finish");
    world.advance(60_000);
    world.settle();
    assert_eq!(world.spread(job), [0, 2]);
    assert!(world.running(job).iter().all(|task| task.desired == Desired::Running));
    let task = world.holder(job, 1).id;
    world.ends(task, Observed::Complete);
}
