//! Growing and shrinking.

use cluster_model::{Change, Desired, NodeId, Observed, Reason};

use crate::world::{BAD, World, spec};

#[test]
fn a_new_service_is_created_and_placed_in_one_plan() {
    let mut world = World::with_nodes(3);
    let web = world.create(1, spec("web", 2));
    let changes = world.plan();
    assert_eq!(changes.len(), 3, "{changes:?}");
    assert!(matches!(&changes[0], Change::CreateTasks { tasks, .. } if tasks.len() == 2));
    assert!(matches!(&changes[1..], [Change::Assign { .. }, Change::Assign { .. }]));
    let desired: Vec<Desired> = world.holders(web).iter().map(|task| task.desired).collect();
    assert_eq!(desired, [Desired::Running, Desired::Running]);
    world.settle();
    assert_eq!(world.running(web).len(), 2);
}

#[test]
fn growing_leaves_the_others_alone_and_fills_the_lowest_free_slots() {
    let mut world = World::with_nodes(2);
    let web = world.create(1, spec("web", 2));
    world.settle();
    let before: Vec<_> = world.running(web).into_iter().cloned().collect();
    world.scale(web, 4);
    world.settle();
    assert_eq!(world.running(web).iter().map(|task| task.slot).collect::<Vec<_>>(), [1, 2, 3, 4]);
    for task in before {
        assert_eq!(world.state.task(task.id), Some(&task));
    }
    assert_eq!(world.spread(web), [2, 2]);
}

#[test]
fn shrinking_takes_what_does_not_run_first() {
    let mut world = World::with_nodes(3);
    let web = world.create(1, spec("web", 3));
    world.settle();
    let second = world.holder(web, 2).id;
    world.ends(second, Observed::Failed);
    world.scale(web, 2);
    world.settle();
    let slots: Vec<u32> = world.running(web).iter().map(|task| task.slot).collect();
    assert_eq!(slots, [1, 3]);
    assert_eq!(world.tasks(web).len(), 2, "the slot that went keeps no history");
}

#[test]
fn shrinking_levels_the_nodes_and_then_takes_the_highest_slot() {
    let mut world = World::with_nodes(1);
    let web = world.create(1, spec("web", 3));
    world.settle();
    world.join(NodeId(2), 1 << 30);
    world.scale(web, 5);
    world.settle();
    assert_eq!(world.spread(web), [3, 2]);
    world.scale(web, 4);
    world.settle();
    assert_eq!(world.spread(web), [2, 2]);
    assert_eq!(world.running(web).iter().map(|task| task.slot).collect::<Vec<_>>(), [1, 2, 4, 5]);
    world.scale(web, 3);
    world.settle();
    assert_eq!(world.running(web).iter().map(|task| task.slot).collect::<Vec<_>>(), [1, 2, 4]);
    world.scale(web, 0);
    world.settle();
    assert!(world.tasks(web).is_empty());
}

#[test]
fn a_slot_whose_last_task_still_stops_gets_a_waiting_successor() {
    let mut world = World::with_nodes(1);
    let web = world.create(1, spec("web", 2));
    world.settle();
    world.scale(web, 1);
    world.plan();
    world.scale(web, 2);
    world.plan();
    assert_eq!(world.holder(web, 2).desired, Desired::Ready);
    world.settle();
    assert_eq!(world.running(web).len(), 2);
}

#[test]
fn one_service_in_trouble_does_not_hold_the_others_up() {
    let mut world = World::with_nodes(2);
    let bad = world.create(1, {
        let mut spec = spec("bad", 2);
        spec.task.container.image = BAD.into();
        spec
    });
    let web = world.create(2, spec("web", 2));
    for _ in 0..20 {
        world.plan();
        world.agents();
    }
    assert_eq!(world.running(web).len(), 2);
    assert!(world.running(bad).is_empty());
    assert!(world.holders(bad).iter().all(|task| task.reason == Reason::Restart));
}

#[test]
fn a_pass_is_bounded_and_shared_fairly() {
    let mut world = World::with_nodes(3);
    let large = world.create(1, spec("large", 30_000));
    let small = world.create(2, spec("small", 3));
    world.plan();
    assert_eq!(world.holders(large).len() + world.holders(small).len(), 10_000);
    assert_eq!(world.holders(small).len(), 3);
    assert_eq!(world.wake_at_ms, Some(world.now_ms));
    for _ in 0..5 {
        world.plan();
    }
    assert_eq!(world.holders(large).len(), 30_000);
    assert_eq!(world.spread(large), [10_000; 3]);
}
