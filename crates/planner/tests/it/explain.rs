//! Explanations, as people read them.

use cluster_model::{Availability, DrainPolicy, NodeId, NodeSpec, Observed, TaskId};
use cluster_planner::explain;

use crate::world::{MIB, World, spec};

#[test]
fn a_pending_task_names_obstacles_examples_and_what_would_help() {
    let mut world = World::with_nodes(7);
    for node in 1..=6 {
        world.label(NodeId(node), "rack", "b");
    }
    world.label(NodeId(7), "rack", "a");
    world.join(NodeId(7), 300 * MIB);
    let mut web = spec("web", 1);
    web.task.placement.constraints = vec!["node.labels.rack==a".parse().expect("parses")];
    web.task.reservations.memory_bytes = 500 * MIB;
    let web = world.create(1, web);
    world.settle();
    let task = world.holder(web, 1).id;
    let said = explain::task(&world.state, task, world.now_ms);
    assert_eq!(
        said.verdict,
        "pending: no suitable node: 6 nodes do not meet constraint node.labels.rack==a; \
         1 node has insufficient memory (wants 500 MiB, 300 MiB free)"
    );
    assert_eq!(said.obstacles.len(), 2);
    assert_eq!((said.obstacles[0].count, said.obstacles[0].examples.len()), (6, 5));
    assert_eq!(said.obstacles[1].examples, ["node-7"]);
    assert_eq!(
        said.remedies,
        [
            "label a node: clusterctl node update --label-add rack=a NODE",
            "lower --reserve-memory to at most 300 MiB",
            "add a node: `clusterctl cluster token --role worker` prints how",
        ]
    );
}

#[test]
fn a_placed_task_is_compared_with_the_next_best_node() {
    let mut world = World::with_nodes(3);
    let web = world.create(1, spec("web", 2));
    world.settle();
    let task = world.holder(web, 1).id;
    let said = explain::task(&world.state, task, world.now_ms);
    assert_eq!(
        said.verdict,
        "on node-1, chosen from 3 suitable nodes: as good as node-3, and first by id"
    );
    let mut other = spec("other", 2);
    other.task.placement.constraints = vec!["node.hostname==node-1".parse().expect("parses")];
    world.create(2, other);
    world.settle();
    let said = explain::task(&world.state, task, world.now_ms);
    assert!(
        said.verdict.contains("node-3 would be chosen now: fewest tasks (0; node-1 has 2)"),
        "{said:?}"
    );
    world.availability(NodeId(3), Availability::Pause);
    let said = explain::task(&world.state, task, world.now_ms);
    assert!(said.verdict.contains("fewest tasks of the service (0; node-2 has 1)"), "{said:?}");
    assert_eq!(said.obstacles[0].why, "paused");
    let said = explain::task(&world.state, TaskId(1), world.now_ms);
    assert!(said.verdict.contains("no such task"));
}

#[test]
fn a_crash_loop_shows_as_such() {
    let mut world = World::with_nodes(1);
    let web = world.create(1, spec("web", 1));
    for _ in 0..4 {
        world.settle_through_waits();
        let task = world.holder(web, 1).id;
        world.ends(task, Observed::Failed);
        world.plan();
    }
    let task = world.holder(web, 1).id;
    let said = explain::task(&world.state, task, world.now_ms);
    assert!(said.verdict.contains("crash loop: restarted 4 times in a row"), "{said:?}");
    assert!(
        said.verdict.contains("starts in 5 s") || said.verdict.contains("starts in 4 s"),
        "{said:?}"
    );
}

#[test]
fn a_drain_says_what_it_waits_for() {
    let mut world = World::with_nodes(2);
    let web = world.create(1, spec("web", 4));
    world.settle();
    let node = world.holder(web, 1).node.expect("placed");
    let deadline_at_ms = Some(world.now_ms + 60_000);
    let spec = NodeSpec {
        availability: Availability::Drain,
        drain: DrainPolicy { deadline_at_ms, force: false },
        ..NodeSpec::default()
    };
    let version = world.state.node(node).expect("known").version;
    let command =
        cluster_model::Command::UpdateNode { id: node, version, spec, at_ms: world.now_ms };
    world.apply(command).expect("updated");
    world.plan();
    let mut said = explain::drain(&world.state, node, world.now_ms);
    said.sort();
    assert_eq!(
        said,
        [
            "web.1 is being stopped (rescheduled: node drained)",
            "web.3 waits: 1 slots are without a healthy task, slot 1 among them, 1 may be, at most 60 s more",
        ]
    );
    world.settle();
    assert!(explain::drain(&world.state, node, world.now_ms).is_empty());
}
