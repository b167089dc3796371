//! What befalls the nodes and containers of a world, the same for every property.

use cluster_model::{Availability, Command, NodeId, Observed, TaskId};
use proptest::prelude::*;

use crate::world::{MIB, World};

pub const NODES: u64 = 4;

/// How often a fault or a turn of an agent comes, beside operators' deeds and planning.
pub const WEIGHT: u32 = 42;

#[derive(Clone, Debug)]
pub enum Fault {
    Join {
        node: u64,
    },
    Cut {
        node: u64,
    },
    RemoveNode {
        node: u64,
    },
    Set {
        node: u64,
        availability: Availability,
    },
    Label {
        node: u64,
        rack: bool,
    },
    /// A running container of a node that is heard ends.
    Exit {
        pick: usize,
        state: Observed,
    },
    /// No fault: an agent does what it was told.
    Agent {
        node: u64,
    },
    Advance {
        ms: u64,
    },
}

pub fn fault() -> impl Strategy<Value = Fault> {
    let node = 1..=NODES;
    let availability = prop_oneof![
        2 => Just(Availability::Active),
        1 => Just(Availability::Pause),
        1 => Just(Availability::Drain)
    ];
    let state = prop_oneof![Just(Observed::Failed), Just(Observed::Complete)];
    prop_oneof![
        2 => node.clone().prop_map(|node| Fault::Join { node }),
        3 => node.clone().prop_map(|node| Fault::Cut { node }),
        1 => node.clone().prop_map(|node| Fault::RemoveNode { node }),
        3 => (node.clone(), availability)
            .prop_map(|(node, availability)| Fault::Set { node, availability }),
        3 => (node.clone(), any::<bool>()).prop_map(|(node, rack)| Fault::Label { node, rack }),
        4 => (any::<usize>(), state).prop_map(|(pick, state)| Fault::Exit { pick, state }),
        20 => node.prop_map(|node| Fault::Agent { node }),
        6 => prop_oneof![Just(10u64), Just(1_100), Just(4_000), Just(25_000), Just(70_000)]
            .prop_map(|ms| Fault::Advance { ms }),
    ]
}

impl Fault {
    pub fn strike(&self, world: &mut World) {
        match *self {
            Self::Join { node } => world.join(NodeId(node), 1024 * MIB),
            Self::Cut { node } => world.cut_off(NodeId(node)),
            Self::RemoveNode { node } => {
                let (id, at_ms) = (NodeId(node), world.now_ms);
                // Refused when there is no such node.
                let _ = world.apply(Command::RemoveNode { id, force: true, at_ms });
            }
            Self::Set { node, availability } => world.availability(NodeId(node), availability),
            Self::Label { node, rack } => {
                world.label(NodeId(node), "rack", if rack { "a" } else { "b" });
            }
            Self::Exit { pick, state } => exit(world, pick, state),
            Self::Agent { node } => {
                world.agent(NodeId(node));
            }
            Self::Advance { ms } => world.advance(ms),
        }
    }
}

fn exit(world: &mut World, pick: usize, state: Observed) {
    let running: Vec<TaskId> = world
        .state
        .tasks()
        .filter(|task| task.status.state == Observed::Running)
        .filter(|task| task.node.is_some_and(|node| !world.cut.contains(&node)))
        .map(|task| task.id)
        .collect();
    if !running.is_empty() {
        world.ends(running[pick % running.len()], state);
    }
}
