//! Where tasks go: constraints, spread levels, strategies, wishes, ports, generic resources.

use cluster_model::node::Generic;
use cluster_model::spec::{Affinity, AffinityTarget, HostPort, PortSpec, ServiceSpec, Strategy};
use cluster_model::{Availability, Command, Desired, NodeId, Observed, Refusal, ServiceId};

use crate::holdings::equip;
use crate::world::{MIB, World, spec};

fn racks(racks: &[&str]) -> World {
    let mut world = World::with_nodes(racks.len() as u64);
    for (node, rack) in (1..).zip(racks) {
        if !rack.is_empty() {
            world.label(NodeId(node), "rack", rack);
        }
    }
    world
}

fn spread_over(name: &str, replicas: u32, keys: &[&str]) -> ServiceSpec {
    let mut spec = spec(name, replicas);
    spec.task.placement.spread_over = keys.iter().map(|key| key.parse().expect("a key")).collect();
    spec
}

fn message(world: &World, service: ServiceId) -> String {
    let waits = world.holders(service).into_iter().find(|task| task.node.is_none());
    waits.expect("one waits").status.details.message.as_deref().expect("says why").to_owned()
}

#[test]
fn contradictory_constraints_wait_and_a_label_helps() {
    let mut world = World::with_nodes(2);
    let mut web = spec("web", 1);
    web.task.placement.constraints = ["node.labels.kernel>=5.4.0", "node.labels.zone in (a, b)"]
        .map(|text| text.parse().expect("parses"))
        .into();
    let web = world.create(1, web);
    world.settle();
    assert_eq!(
        message(&world, web),
        "no suitable node: 2 nodes do not meet constraint node.labels.kernel>=5.4.0"
    );
    world.label(NodeId(2), "kernel", "5.15.0-91-generic");
    world.label(NodeId(2), "zone", "b");
    world.settle();
    assert_eq!(world.spread(web), [0, 1]);
}

#[test]
fn racks_get_tasks_by_their_capacity() {
    let mut world = racks(&["a", "b", "b"]);
    let web = world.create(1, spread_over("web", 4, &["node.labels.rack"]));
    world.settle();
    // Shares of 4/3 and 8/3.
    assert_eq!(world.spread(web), [1, 2, 1]);
    world.scale(web, 9);
    world.settle();
    assert_eq!(world.spread(web), [3, 3, 3]);
}

#[test]
fn equal_zones_get_equal_numbers_however_many_nodes_have_room_for_more() {
    let mut world = racks(&["a", "a", "b", "b"]);
    let web = world.create(1, spread_over("web", 10, &["node.labels.rack"]));
    world.settle();
    assert_eq!(world.spread(web), [3, 2, 3, 2]);
    // Without one of them all run in the other.
    for node in [1, 2] {
        world.cut_off(NodeId(node));
    }
    world.advance(crate::world::LEASE_MS + 1);
    world.settle();
    assert_eq!(world.spread(web), [0, 0, 5, 5]);
}

#[test]
fn weighted_zones_get_weighted_numbers() {
    let mut world = racks(&["a", "b"]);
    equip(&mut world, NodeId(1), |node| node.capacity.cpu_nanos = 7_000_000_000);
    equip(&mut world, NodeId(2), |node| node.capacity.cpu_nanos = 3_000_000_000);
    let web = world.create(1, spread_over("web", 10, &["node.labels.rack"]));
    world.settle();
    assert_eq!(world.spread(web), [7, 3]);
}

#[test]
fn two_levels_a_branch_without_label_and_a_full_branch() {
    let mut world = racks(&["a", "a", "b", ""]);
    for (node, row) in [(1, "x"), (2, "y"), (3, "x"), (4, "x")] {
        world.label(NodeId(node), "row", row);
    }
    let keys = ["node.labels.rack", "node.labels.row"];
    let web = world.create(1, spread_over("web", 4, &keys));
    world.settle();
    assert_eq!(world.spread(web), [1, 1, 1, 1]);
    // The unlabelled node is full: what would be its share goes elsewhere.
    let mut large = spread_over("large", 8, &keys);
    large.task.reservations.memory_bytes = 256 * MIB;
    world.join(NodeId(4), 200 * MIB);
    let large = world.create(2, large);
    world.settle();
    assert_eq!(world.spread(large), [3, 2, 3, 0]);
}

#[test]
fn an_unbalanced_service_is_levelled_and_others_do_not_wait_for_it() {
    let mut world = racks(&["a", "b", "b"]);
    for node in [2, 3] {
        world.availability(NodeId(node), Availability::Pause);
    }
    let web = world.create(1, spread_over("web", 9, &["node.labels.rack"]));
    world.settle();
    assert_eq!(world.spread(web), [9, 0, 0]);
    for node in [2, 3] {
        world.availability(NodeId(node), Availability::Active);
    }
    let other = world.create(2, spec("other", 1));
    world.scale(web, 15);
    world.settle();
    assert_eq!(world.spread(web), [9, 3, 3]);
    assert_eq!(world.running(other).len(), 1);
}

#[test]
fn bin_pack_fills_a_node_before_it_takes_another() {
    let mut world = World::with_nodes(3);
    let mut web = spec("web", 5);
    web.task.reservations.memory_bytes = 300 * MIB;
    web.task.placement.strategy = Some(Strategy::BinPack);
    let web = world.create(1, web);
    world.settle();
    assert_eq!(world.spread(web), [3, 2, 0]);
    // The fullest that still has room, and spread levels come first.
    let mut small = spread_over("small", 2, &["node.hostname"]);
    small.task.placement.strategy = Some(Strategy::BinPack);
    small.task.reservations.memory_bytes = 10 * MIB;
    let small = world.create(2, small);
    world.settle();
    assert_eq!(world.spread(small), [1, 1, 0]);
}

#[test]
fn wishes_attract_and_repel_but_do_not_bind() {
    let mut world = World::with_nodes(3);
    world.label(NodeId(3), "disk", "ssd");
    let mut data = spec("data", 1);
    let ssd = AffinityTarget::Node("node.labels.disk==ssd".parse().expect("parses"));
    data.task.placement.affinities = vec![Affinity { target: ssd, weight: 50 }];
    let data = world.create(1, data);
    world.settle();
    assert_eq!(world.spread(data), [0, 0, 1]);
    let by = |weight| vec![Affinity { target: AffinityTarget::Service("data".into()), weight }];
    let mut near = spec("near", 2);
    near.task.placement.affinities = by(100);
    let near = world.create(2, near);
    let mut far = spec("far", 4);
    far.task.placement.affinities = by(-1);
    let far = world.create(3, far);
    world.settle();
    assert_eq!(world.spread(near), [0, 0, 2]);
    assert_eq!(world.spread(far), [2, 2, 0]);
    for node in [1, 2] {
        world.availability(NodeId(node), Availability::Drain);
    }
    world.settle();
    assert_eq!(world.spread(far), [0, 0, 4], "a wish, not a condition");
}

#[test]
fn wishes_about_the_service_itself_follow_its_tasks() {
    let mut world = World::with_nodes(3);
    let own = AffinityTarget::Service("web".into());
    let mut web = spec("web", 4);
    web.task.placement.affinities = vec![Affinity { target: own, weight: 10 }];
    let web = world.create(1, web);
    world.settle();
    assert_eq!(world.spread(web), [4, 0, 0]);
}

#[test]
fn max_per_node_bounds_and_says_so() {
    let mut world = World::with_nodes(2);
    let mut web = spec("web", 3);
    web.task.placement.max_per_node = 1;
    let web = world.create(1, web);
    world.settle();
    assert_eq!(world.running(web).len(), 2);
    assert_eq!(
        message(&world, web),
        "no suitable node: 2 nodes have the 1 task of the service allowed per node"
    );
    world.join(NodeId(3), 1024 * MIB);
    world.settle();
    assert_eq!(world.spread(web), [1, 1, 1]);
    // A task that makes way in its own slot does not count.
    world.set_image(web, "web:2");
    world.settle_through_waits();
    let revision = world.state.service(web).expect("known").revision;
    assert!(world.running(web).iter().all(|task| task.revision == revision));
}

#[test]
fn a_host_port_is_one_tasks_on_a_node_until_its_exit_is_reported() {
    let mut world = World::with_nodes(2);
    let mut web = spec("web", 3);
    web.task.host_ports = vec![HostPort { published: 8080, target: 80 }];
    let web = world.create(1, web);
    world.settle();
    assert_eq!(world.running(web).len(), 2);
    assert_eq!(message(&world, web), "no suitable node: 2 nodes have a task on host port 8080");
    world.scale(web, 2);
    world.settle();
    // The next owner waits while the first still stops.
    let mut next = spec("next", 1);
    next.task.host_ports = vec![HostPort { published: 8080, target: 80 }];
    let next = world.create(2, next);
    let going = world.holder(web, 2);
    let (task, node) = (going.id, going.node.expect("placed"));
    world.scale(web, 1);
    world.plan();
    assert_eq!(world.state.task(task).expect("stops").desired, Desired::Remove);
    let name = world.state.node(node).expect("known").name.clone();
    let waits = format!("waits for room: web.2 on {name} is stopping");
    assert_eq!(message(&world, next), waits);
    world.agent(node);
    world.settle();
    assert_eq!(world.holder(next, 1).node, Some(node));
}

#[test]
fn a_port_is_published_or_the_hosts_but_not_both() {
    let mut mesh = spec("mesh", 1);
    mesh.ports = vec![PortSpec { published: 8080, target: 80 }];
    let mut web = spec("web", 1);
    web.task.host_ports = vec![HostPort { published: 8080, target: 80 }];
    for (first, second) in [(&mesh, &web), (&web, &mesh)] {
        let mut world = World::with_nodes(2);
        world.create(1, first.clone());
        let (id, at_ms) = (ServiceId(2), world.now_ms);
        let spec = std::sync::Arc::new(second.clone());
        let refused = world.apply(Command::CreateService { id, spec, at_ms });
        let taken = Refusal::PortTaken { port: 8080, service: first.name.clone() };
        assert_eq!(refused, Err(taken));
    }
}

#[test]
fn generic_resources_are_counted_and_names_are_held_by_one_task() {
    let mut world = World::with_nodes(2);
    equip(&mut world, NodeId(1), |node| {
        let names = ["gpu2", "gpu0", "gpu1"].map(str::to_owned).into();
        node.generic.insert("gpu".into(), Generic::Named(names));
        node.generic.insert("licence".into(), Generic::Count(4));
    });
    let mut web = spec("web", 3);
    web.task.generic = [("gpu".to_owned(), 1), ("licence".to_owned(), 2)].into();
    let web = world.create(1, web);
    world.settle();
    let names: Vec<_> =
        world.running(web).iter().map(|task| task.extras.generic[0].1.clone()).collect();
    assert_eq!(names, [["gpu0"], ["gpu1"]]);
    assert_eq!(
        message(&world, web),
        "no suitable node: 1 node has insufficient gpu (wants 1, 0 free); \
         1 node has insufficient licence (wants 2, 0 free)"
    );
    let task = world.holder(web, 1).id;
    world.ends(task, Observed::Failed);
    world.settle_through_waits();
    let mut names: Vec<_> =
        world.running(web).iter().map(|task| task.extras.generic[0].1.clone()).collect();
    names.sort();
    assert_eq!(names, [["gpu0"], ["gpu1"]], "a name is free again when its task has ended");
}

#[test]
fn five_failures_of_a_revision_put_a_node_last_for_it_alone() {
    let mut world = World::with_nodes(1);
    let web = world.create(1, spec("web", 5));
    world.settle();
    for slot in 1..=5 {
        let task = world.holder(web, slot).id;
        world.ends(task, Observed::Failed);
    }
    world.settle_through_waits();
    assert_eq!(world.spread(web), [5], "the only node is taken all the same");
    world.join(NodeId(2), 1024 * MIB);
    world.scale(web, 12);
    world.settle();
    assert_eq!(world.spread(web), [5, 7], "although the first has fewer");
    let other = world.create(2, spec("other", 4));
    world.scale(other, 6);
    world.settle();
    assert!(world.spread(other)[0] >= 3, "{:?}", world.spread(other));
    // After five minutes it is forgotten.
    world.advance(301_000);
    world.scale(web, 14);
    world.settle();
    assert_eq!(world.spread(web), [7, 7]);
}
