//! A cluster to plan for: equal nodes, equal services.

use std::sync::Arc;

use cluster_model::node::NodeDescription;
use cluster_model::spec::{Mode, Resources, ServiceSpec};
use cluster_model::{Command, NodeId, ServiceId, State, apply};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Plain,
    /// One constraint and two spread levels.
    Spread,
}

pub struct World {
    pub state: State,
    pub index: u64,
}

impl World {
    pub fn new(nodes: u64, services: u64, replicas: u32, shape: Shape) -> Self {
        let mut world = Self { state: State::default(), index: 0 };
        for number in 1..=nodes {
            let (id, name) = (NodeId(number), format!("node-{number}"));
            world.write(Command::RegisterNode { id, name, at_ms: 1 });
            let labels = [
                ("class", format!("c{}", number % 10)),
                ("zone", format!("z{}", number % 40 % 4)),
                ("rack", format!("r{}", number % 40)),
            ];
            let description = Box::new(NodeDescription {
                capacity: Resources { cpu_nanos: 16_000_000_000, memory_bytes: 64 << 30 },
                labels: labels.map(|(key, value)| (key.to_owned(), value)).into(),
                healthy: true,
                ..NodeDescription::default()
            });
            world.write(Command::NodeReady { id, description, at_ms: 1 });
        }
        for number in 1..=services {
            let spec = Arc::new(spec(number, replicas, shape));
            world.write(Command::CreateService { id: ServiceId(number), spec, at_ms: 1 });
        }
        world
    }

    pub fn write(&mut self, command: Command) {
        self.index += 1;
        let reply = apply(&mut self.state, self.index, &command).reply;
        assert!(reply.is_ok(), "{reply:?}");
    }
}

fn spec(number: u64, replicas: u32, shape: Shape) -> ServiceSpec {
    let mut spec = ServiceSpec {
        name: format!("service-{number}"),
        mode: Mode::Replicated { replicas },
        ..ServiceSpec::default()
    };
    spec.task.container.image = "web:1".into();
    spec.task.reservations = Resources { cpu_nanos: 100_000_000, memory_bytes: 64 << 20 };
    if shape == Shape::Spread {
        let placement = &mut spec.task.placement;
        placement.constraints.extend(format!("engine.labels.class==c{}", number % 10).parse());
        placement.spread_over = ["engine.labels.zone", "engine.labels.rack"]
            .iter()
            .filter_map(|key| key.parse().ok())
            .collect();
    }
    spec
}
