//! What happens to the tasks of silent nodes.

use cluster_model::spec::Disconnect;
use cluster_model::{Command, Desired, NodeId, Observed, Reason, ServiceId};
use cluster_planner::{Held, explain};

use crate::world::{LEASE_MS, World, spec};

fn service(world: &mut World, replicas: u32, disconnect: Disconnect) -> ServiceId {
    let mut spec = spec("web", replicas);
    spec.disconnect = disconnect;
    let id = world.create(1, spec);
    world.settle();
    id
}

fn cut(world: &mut World, node: u64) {
    world.cut_off(NodeId(node));
    world.advance(LEASE_MS + 1);
    world.settle();
}

#[test]
fn replace_gives_up_at_once_and_the_stale_task_stops_when_its_node_returns() {
    let mut world = World::with_nodes(2);
    let id = service(&mut world, 2, Disconnect::Replace);
    let stale = world.tasks(id).iter().find(|t| t.node == Some(NodeId(2))).expect("placed").id;
    cut(&mut world, 2);
    assert_eq!(world.spread(id), [2, 0]);
    let lost = world.state.task(stale).expect("kept");
    assert_eq!((lost.status.state, lost.desired), (Observed::Lost, Desired::Shutdown));
    assert_eq!(world.live.len(), 3, "it runs on where nobody hears it");
    world.cut.clear();
    world.settle();
    assert!(!world.live.contains_key(&stale));
    assert_eq!(world.spread(id), [2, 0], "what was replaced does not move back");
}

#[test]
fn wait_never_replaces_and_says_so() {
    let mut world = World::with_nodes(2);
    let id = service(&mut world, 2, Disconnect::Wait);
    let before: Vec<_> = world.tasks(id).iter().map(|task| task.id).collect();
    cut(&mut world, 2);
    world.advance(24 * 3600 * 1000);
    world.settle();
    let waiting = world.holders(id).into_iter().find(|t| t.node == Some(NodeId(2))).expect("waits");
    let why = Held::of(&world.state, world.now_ms).why(waiting).expect("says why");
    assert_eq!(why, "node node-2 is down; waits for it (--on-disconnect wait)");
    assert_eq!(explain::task(&world.state, waiting.id, world.now_ms).verdict, why);
    world.cut.clear();
    world.settle();
    let after: Vec<_> = world.tasks(id).iter().map(|task| task.id).collect();
    assert_eq!(before, after, "it ran on");
    assert!(world.tasks(id).iter().all(|task| task.serves()));
    let held = Held::of(&world.state, world.now_ms);
    assert!(world.tasks(id).iter().all(|task| held.why(task).is_none()));
}

#[test]
fn waiting_ends_with_the_policy_or_the_node() {
    let mut world = World::with_nodes(2);
    let id = service(&mut world, 2, Disconnect::Wait);
    cut(&mut world, 2);
    world.update(id, |spec| spec.disconnect = Disconnect::Replace);
    world.settle();
    assert_eq!(world.spread(id), [2, 0]);

    let mut world = World::with_nodes(2);
    let id = service(&mut world, 2, Disconnect::Wait);
    cut(&mut world, 2);
    let at_ms = world.now_ms;
    world.apply(Command::RemoveNode { id: NodeId(2), force: false, at_ms }).expect("removed");
    world.settle();
    assert_eq!(world.spread(id), [2]);
}

#[test]
fn stop_after_replaces_when_the_worker_has_surely_stopped() {
    let mut world = World::with_nodes(2);
    let id = service(&mut world, 2, Disconnect::StopAfter { after_ms: 20_000 });
    let silent_at_ms = world.now_ms;
    cut(&mut world, 2);
    // 10 s of grace are in the spec.
    let bound_ms = world.now_ms + 20_000 + 10_000 + 5_000;
    assert_eq!(world.wake_at_ms, Some(bound_ms));
    world.advance(bound_ms - 1 - world.now_ms);
    world.settle();
    assert_eq!(world.spread(id), [1, 1]);
    assert_eq!(world.live.len(), 1, "the worker had stopped it by itself");
    world.advance(1);
    world.settle();
    assert_eq!(world.spread(id), [2, 0]);
    assert!(world.now_ms > silent_at_ms);
}

#[test]
fn a_node_that_returns_in_time_goes_on() {
    let mut world = World::with_nodes(2);
    let id = service(&mut world, 2, Disconnect::StopAfter { after_ms: 20_000 });
    cut(&mut world, 2);
    world.advance(5_000);
    world.cut.clear();
    world.settle_through_waits();
    assert_eq!(world.spread(id), [1, 1]);
    assert_eq!(world.tasks(id).len(), 2);
}

#[test]
fn a_removed_service_waits_for_nobody() {
    let mut world = World::with_nodes(2);
    let id = service(&mut world, 2, Disconnect::Wait);
    cut(&mut world, 2);
    let at_ms = world.now_ms;
    world.apply(Command::RemoveService { id, at_ms, version: None }).expect("removed");
    world.settle();
    assert!(world.state.service(id).is_none());
    world.cut.clear();
    world.settle();
    assert!(world.live.is_empty());
}

#[test]
fn a_lost_task_is_not_its_failure() {
    let mut world = World::with_nodes(2);
    let id = service(&mut world, 1, Disconnect::Replace);
    let node = world.holders(id)[0].node.expect("placed").0;
    cut(&mut world, node);
    let next = world.holders(id)[0];
    assert_eq!(next.restarts, 0);
    assert!(matches!(next.reason, Reason::Reschedule(_)));
}

/// A worker that is silent knows only what it was told before.
#[test]
fn a_bound_that_the_worker_was_never_told_is_not_relied_on() {
    let cases = [
        (Disconnect::Wait, 5_000, None),
        (Disconnect::StopAfter { after_ms: 60_000 }, 5_000, Some(60_000)),
        (Disconnect::StopAfter { after_ms: 5_000 }, 60_000, Some(60_000)),
    ];
    for (told, after_ms, stops_after_ms) in cases {
        let mut world = World::with_nodes(2);
        let id = service(&mut world, 2, told);
        cut(&mut world, 2);
        world.update(id, |spec| spec.disconnect = Disconnect::StopAfter { after_ms });
        world.settle();
        world.advance(stops_after_ms.unwrap_or(3_600_000));
        world.settle();
        assert_eq!(world.spread(id), [1, 1], "{told:?}: not sure yet");
        if stops_after_ms.is_some() {
            // Its grace period and a margin.
            world.advance(16_000);
            world.settle();
            assert_eq!(world.spread(id), [2, 0], "{told:?}");
        }
    }
}

/// The end of the lease was written by another leader's clock, which was behind.
#[test]
fn a_new_leader_counts_the_bound_by_its_own_clock() {
    let mut world = World::with_nodes(2);
    let id = service(&mut world, 2, Disconnect::StopAfter { after_ms: 30_000 });
    cut(&mut world, 2);
    let ms = world.now_ms + 600_000;
    let now = cluster_planner::Now { ms, leads_since_ms: ms - 1_000 };
    let mut ids = cluster_planner::Ids::new(1);
    let plan = cluster_planner::plan(&world.state, cluster_planner::Scope::All, now, &mut ids);
    assert_eq!(plan.changes, []);
    assert!(plan.wake_at_ms.is_some_and(|at_ms| at_ms > ms + 30_000), "{:?}", plan.wake_at_ms);
    assert_eq!(world.spread(id), [1, 1]);
}
