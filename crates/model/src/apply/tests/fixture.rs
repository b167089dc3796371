//! A state that is written to through `apply` alone, with short words for the usual commands.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::command::{Change, Command, NewTask, Refusal, Reply, StatusReport};
use crate::id::{NodeId, ServiceId, TaskId};
use crate::node::NodeDescription;
use crate::spec::{ContainerSpec, Mode, PortSpec, Resources, RestartPolicy, ServiceSpec, TaskSpec};
use crate::state::State;
use crate::task::{Desired, Observed, Reason, Task};

pub const WEB: ServiceId = ServiceId(1);

#[derive(Default)]
pub struct Fixture {
    pub state: State,
    pub index: u64,
}

pub fn spec(name: &str, ports: &[(u16, u16)]) -> ServiceSpec {
    ServiceSpec {
        name: name.into(),
        labels: BTreeMap::new(),
        mode: Mode::Replicated { replicas: 2 },
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
            reservations: Resources { cpu_nanos: 1_000_000_000, memory_bytes: 64 << 20 },
            restart: RestartPolicy::default(),
            ..TaskSpec::default()
        },
        ports: ports.iter().map(|(published, target)| port(*published, *target)).collect(),
        ..ServiceSpec::default()
    }
}

fn port(published: u16, target: u16) -> PortSpec {
    PortSpec { published, target }
}

pub fn new_task(slot: u32, desired: Desired) -> NewTask {
    NewTask { desired, ..NewTask::new(slot, Reason::ScaleUp) }
}

impl Fixture {
    /// Two nodes with room for two tasks each, and the service `web` on port 80.
    pub fn web() -> Self {
        let mut fixture = Self::default();
        fixture.join(NodeId(1));
        fixture.join(NodeId(2));
        fixture.create(WEB, spec("web", &[(80, 8080)])).expect("created");
        fixture
    }

    pub fn apply(&mut self, command: Command) -> Result<Reply, Refusal> {
        let before = self.state.clone();
        self.index += 1;
        let reply = super::super::apply(&mut self.state, self.index, &command).reply;
        if reply.is_err() {
            assert_eq!(self.state, before, "a refused command changed something");
        }
        reply
    }

    pub fn join(&mut self, id: NodeId) {
        let name = format!("node-{}", id.0);
        self.apply(Command::RegisterNode { id, name, at_ms: 1 }).expect("registered");
        self.hello(id, 1).expect("ready");
    }

    pub fn hello(&mut self, id: NodeId, boot: u64) -> Result<Reply, Refusal> {
        let description = Box::new(NodeDescription {
            address: format!("10.0.0.{}", id.0),
            mesh_port: 7101,
            boot,
            capacity: Resources { cpu_nanos: 2_000_000_000, memory_bytes: 1 << 30 },
            healthy: true,
            ..NodeDescription::default()
        });
        self.apply(Command::NodeReady { id, description, at_ms: 2 })
    }

    pub fn create(&mut self, id: ServiceId, spec: ServiceSpec) -> Result<Reply, Refusal> {
        self.apply(Command::CreateService { id, spec: Arc::new(spec), at_ms: 3 })
    }

    pub fn update(
        &mut self,
        id: ServiceId,
        edit: impl FnOnce(&mut ServiceSpec),
    ) -> Result<Reply, Refusal> {
        let service = self.state.service(id).expect("known");
        let mut spec = (*service.spec).clone();
        edit(&mut spec);
        let (version, spec) = (service.version, Arc::new(spec));
        self.apply(Command::UpdateService { id, version, spec, at_ms: 4, give_up: vec![] })
    }

    /// Applies one step and answers whether it was taken.
    pub fn change(&mut self, change: Change) -> bool {
        let before = self.state.clone();
        let reply = self.apply(Command::Plan { at_ms: 5, changes: vec![change] });
        let taken = match reply {
            Ok(Reply::Counted { taken: 1, refused: 0 }) => true,
            Ok(Reply::Counted { taken: 0, refused: 0 | 1 }) => false,
            other => panic!("unexpected {other:?}"),
        };
        assert!(taken || self.state == before, "a refused step changed something");
        taken
    }

    pub fn add(&mut self, task: u64, new: NewTask) -> bool {
        let (base, tasks) = (TaskId(task), vec![new]);
        self.change(Change::CreateTasks { service: WEB, revision: 1, base, tasks })
    }

    pub fn assign(&mut self, task: u64, node: u64) -> bool {
        self.change(Change::Assign { task: TaskId(task), node: NodeId(node) })
    }

    pub fn desire(&mut self, task: u64, desired: Desired) -> bool {
        let (task, reason) = (TaskId(task), Reason::ScaleDown);
        self.change(Change::SetDesired { task, desired, reason })
    }

    pub fn report(&mut self, node: u64, task: u64, state: Observed) -> bool {
        let report = StatusReport::new(TaskId(task), state, 100 + self.index);
        let reply = self.apply(Command::RecordStatus { reports: vec![(NodeId(node), report)] });
        reply == Ok(Reply::Counted { taken: 1, refused: 0 })
    }

    /// A task of `web` that runs on a node.
    pub fn running(&mut self, task: u64, slot: u32, node: u64) {
        assert!(self.add(task, new_task(slot, Desired::Running)));
        assert!(self.assign(task, node));
        assert!(self.report(node, task, Observed::Running));
    }

    pub fn node_down(&mut self, node: u64) -> bool {
        let node = NodeId(node);
        let version = self.state.node(node).expect("known").version;
        let down = self.change(Change::NodeDown { node, version, message: "silent".into() });
        let tasks: Vec<TaskId> = self.state.tasks_of_node(node).map(|task| task.id).collect();
        for task in tasks {
            self.change(Change::Lose { task });
        }
        down
    }

    pub fn task(&self, task: u64) -> &Task {
        self.state.task(TaskId(task)).expect("known")
    }
}
