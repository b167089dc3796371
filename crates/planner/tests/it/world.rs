//! A cluster in miniature: one state, agents that do what they are told, and a clock that moves
//! when asked. Every write goes through `World::apply`, which checks the invariants.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster_model::node::NodeDescription;
use cluster_model::spec::{
    ContainerSpec, Disconnect, Mode, Resources, RestartPolicy, ServiceSpec, TaskSpec,
};
use cluster_model::{
    Availability, Change, Command, Desired, NodeId, NodeSpec, NodeState, Observed, Refusal, Reply,
    Rollout, ServiceId, State, StatusReport, Steer, Task, TaskId,
};
use cluster_planner::{Ids, Note, Plan, Scope};

pub const MIB: u64 = 1 << 20;
pub const LEASE_MS: u64 = 3_000;
/// Tasks with this image never start.
pub const BAD: &str = "bad";
/// Tasks with this image fail as soon as they run.
pub const CRASH: &str = "crash";
/// Tasks with this image run, but let no connections come.
pub const UNREADY: &str = "unready";
/// Jobs with this image do not end by themselves.
pub const LONG: &str = "long";

pub struct World {
    pub state: State,
    pub now_ms: u64,
    index: u64,
    ids: Ids,
    /// When each node was last heard; a node that is cut off is heard no more.
    heard: BTreeMap<NodeId, u64>,
    pub cut: Vec<NodeId>,
    pub log: Vec<Command>,
    pub wake_at_ms: Option<u64>,
    /// Images that make tasks fail do so no more.
    pub healed: bool,
    /// Containers that really run, on nodes that are cut off too.
    pub live: BTreeMap<TaskId, NodeId>,
}

pub fn spec(name: &str, replicas: u32) -> ServiceSpec {
    ServiceSpec {
        name: name.to_owned(),
        labels: BTreeMap::new(),
        mode: Mode::Replicated { replicas },
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
            reservations: Resources::default(),
            restart: RestartPolicy::default(),
            ..TaskSpec::default()
        },
        ports: vec![],
        ..ServiceSpec::default()
    }
}

impl World {
    pub fn new() -> Self {
        Self {
            state: State::default(),
            now_ms: 1_000_000,
            index: 0,
            ids: Ids::new(42),
            heard: BTreeMap::new(),
            cut: Vec::new(),
            log: Vec::new(),
            wake_at_ms: None,
            healed: false,
            live: BTreeMap::new(),
        }
    }

    pub fn with_nodes(count: u64) -> Self {
        let mut world = Self::new();
        for number in 1..=count {
            world.join(NodeId(number), 1024 * MIB);
        }
        world
    }

    pub fn apply(&mut self, command: Command) -> Result<Reply, Refusal> {
        let before = self.state.clone();
        self.index += 1;
        let reply = cluster_model::apply(&mut self.state, self.index, &command).reply;
        check_step(&before, &self.state);
        self.observe(&command);
        self.check_live();
        self.log.push(command);
        reply
    }

    fn observe(&mut self, command: &Command) {
        // An operator's word that nothing runs there.
        if let Command::RemoveNode { id, .. } = command
            && self.state.node(*id).is_none()
        {
            self.live.retain(|_, node| node != id);
        }
        let Command::RecordStatus { reports } = command else { return };
        for (node, report) in reports {
            if report.state.is_terminal() {
                self.live.remove(&report.task);
            } else if report.state == Observed::Running
                && self.state.task(report.task).is_some_and(|t| !t.status.state.is_terminal())
            {
                self.live.insert(report.task, *node);
            }
        }
    }

    /// Unless losses are replaced at once, no slot has two live tasks, wherever they run.
    fn check_live(&self) {
        let mut slots: BTreeMap<(ServiceId, u32), TaskId> = BTreeMap::new();
        for id in self.live.keys() {
            let Some(task) = self.state.task(*id) else { continue };
            let Some(service) = self.state.service(task.service) else { continue };
            if service.spec.disconnect == Disconnect::Replace {
                continue;
            }
            let other = slots.insert((task.service, task.slot), *id);
            assert_eq!(other, None, "two live: {:#?}", self.tasks(task.service));
        }
    }

    /// Workers that are cut off stop by themselves what they were told to.
    fn fence(&mut self) {
        let (state, heard, now_ms) = (&self.state, &self.heard, self.now_ms);
        self.live.retain(|id, node| {
            let Some(task) = state.task(*id).filter(|_| self.cut.contains(node)) else {
                return true;
            };
            let Some(service) = state.service(task.service) else { return true };
            let Disconnect::StopAfter { after_ms } = service.spec.disconnect else { return true };
            let spec = service.task_spec(task.revision).expect("kept");
            let grace_ms = spec.container.stop_grace_period_ms + spec.drain_timeout_ms;
            now_ms < heard.get(node).copied().unwrap_or_default() + after_ms + grace_ms
        });
    }

    pub fn join(&mut self, id: NodeId, memory_bytes: u64) {
        if self.state.node(id).is_none() {
            let name = format!("node-{}", id.0);
            let command = Command::RegisterNode { id, name, at_ms: self.now_ms };
            self.apply(command).expect("registered");
        }
        self.cut.retain(|cut| *cut != id);
        self.hello(id, memory_bytes);
    }

    fn hello(&mut self, id: NodeId, memory_bytes: u64) {
        let description = NodeDescription {
            address: format!("10.0.0.{}", id.0),
            os: "linux".into(),
            arch: "amd64".into(),
            capacity: Resources { cpu_nanos: 4_000_000_000, memory_bytes },
            healthy: true,
            ..NodeDescription::default()
        };
        let command =
            Command::NodeReady { id, description: Box::new(description), at_ms: self.now_ms };
        self.apply(command).expect("ready");
        self.heard.insert(id, self.now_ms);
    }

    /// Time passes; connected nodes are heard, the leases of others end.
    pub fn advance(&mut self, ms: u64) {
        self.now_ms += ms;
        for (id, heard) in &mut self.heard {
            if !self.cut.contains(id) {
                *heard = self.now_ms;
            }
        }
        self.fence();
        let heard = &self.heard;
        let leases = |id: NodeId| heard.get(&id).copied();
        let plan = cluster_planner::liveness::plan(&self.state, &leases, LEASE_MS, self.now_ms);
        if !plan.changes.is_empty() {
            self.apply_plan(plan.changes);
        }
    }

    pub fn cut_off(&mut self, id: NodeId) {
        if !self.cut.contains(&id) {
            self.cut.push(id);
        }
    }

    pub fn availability(&mut self, id: NodeId, availability: Availability) {
        let Some(node) = self.state.node(id) else { return };
        let spec = NodeSpec { availability, ..node.spec.clone() };
        let version = node.version;
        self.apply(Command::UpdateNode { id, version, spec, at_ms: self.now_ms }).expect("updated");
    }

    pub fn label(&mut self, id: NodeId, key: &str, value: &str) {
        let Some(node) = self.state.node(id) else { return };
        let mut spec = node.spec.clone();
        spec.labels.insert(key.into(), value.into());
        let version = node.version;
        self.apply(Command::UpdateNode { id, version, spec, at_ms: self.now_ms }).expect("updated");
    }

    pub fn create(&mut self, id: u64, spec: ServiceSpec) -> ServiceId {
        let id = ServiceId(id);
        let command = Command::CreateService { id, spec: Arc::new(spec), at_ms: self.now_ms };
        self.apply(command).expect("created");
        id
    }

    pub fn update(&mut self, id: ServiceId, edit: impl FnOnce(&mut ServiceSpec)) {
        let Some(service) = self.state.service(id).filter(|service| !service.removed) else {
            return;
        };
        let mut spec = (*service.spec).clone();
        edit(&mut spec);
        let (version, spec) = (service.version, Arc::new(spec));
        self.apply(Command::UpdateService {
            id,
            version,
            spec,
            at_ms: self.now_ms,
            give_up: vec![],
        })
        .expect("updated");
    }

    pub fn scale(&mut self, id: ServiceId, replicas: u32) {
        self.update(id, |spec| {
            spec.mode = match spec.mode {
                Mode::Replicated { .. } => Mode::Replicated { replicas },
                Mode::ReplicatedJob { max_concurrent, .. } => {
                    // What is valid: one at least, and as many as may run at once.
                    let completions = replicas.max(max_concurrent).max(1);
                    Mode::ReplicatedJob { completions, max_concurrent }
                }
                mode @ (Mode::Global | Mode::GlobalJob) => mode,
            }
        });
    }

    pub fn set_image(&mut self, id: ServiceId, image: &str) {
        self.update(id, |spec| spec.task.container.image = image.into());
    }

    pub fn steer(&mut self, id: ServiceId, steer: Steer) -> Result<Reply, Refusal> {
        self.apply(Command::SteerRollout { id, steer, at_ms: self.now_ms })
    }

    pub fn roll_back(&mut self, id: ServiceId) -> Result<Reply, Refusal> {
        let version = self.state.service(id).map_or(0, |service| service.version);
        self.apply(Command::RollBackService { id, version, to: None, at_ms: self.now_ms })
    }

    pub fn rollout(&self, id: ServiceId) -> &Rollout {
        self.state.service(id).and_then(|service| service.rollout.as_ref()).expect("a rollout")
    }

    /// From now on another leader plans: its ids are not those of the one before.
    pub fn lead(&mut self, seed: u64) {
        self.ids = Ids::new(seed);
    }

    /// The log alone gives this state, and the state survives a snapshot with its indexes.
    pub fn check_replay(&self) {
        let mut replayed = State::default();
        for (index, command) in (1u64..).zip(&self.log) {
            // Refused then, refused now.
            let _ = cluster_model::apply(&mut replayed, index, command);
        }
        assert_eq!(replayed, self.state, "the same log gives another state");
        let bytes = postcard::to_allocvec(&self.state).expect("encodes");
        let read: State = postcard::from_bytes(&bytes).expect("decodes");
        assert_eq!(read, self.state, "indexes drifted from the tables");
    }

    pub fn make_plan(&mut self, scope: Scope<'_>) -> Plan {
        let plan = cluster_planner::plan(&self.state, scope, self.now_ms, &mut self.ids);
        let refused = plan.notes.iter().find(|note| matches!(note, Note::Refused { .. }));
        assert_eq!(refused, None, "a planner contradicts its own view: {plan:?}");
        plan
    }

    /// One full pass, taken at once; a second must find nothing.
    pub fn plan(&mut self) -> Vec<Change> {
        let plan = self.make_plan(Scope::All);
        let changes = plan.changes.clone();
        self.wake_at_ms = plan.wake_at_ms;
        if !plan.changes.is_empty() {
            self.apply_plan(plan.changes);
        }
        if !plan.notes.contains(&Note::Bounded) {
            let again = self.make_plan(Scope::All);
            assert_eq!(again.changes, vec![], "a second pass found more");
            // What a pass overtakes may leave a wake-up too many behind, never one too few.
            let early_enough = |at_ms| self.wake_at_ms.is_some_and(|first| first <= at_ms);
            assert!(again.wake_at_ms.is_none_or(early_enough), "a wake-up was forgotten");
            self.wake_at_ms = again.wake_at_ms;
        }
        changes
    }

    pub fn apply_plan(&mut self, changes: Vec<Change>) {
        let at_ms = self.now_ms;
        self.apply(Command::Plan { at_ms, changes }).expect("plans are not refused");
    }

    /// What the agent of a node would report next of one task.
    fn next_report(&self, task: &Task) -> Option<Observed> {
        let job = self.state.service(task.service)?.spec.mode.is_job();
        let image = self.state.service(task.service)?.task_spec(task.revision)?;
        let image = if self.healed { "good" } else { image.container.image.as_str() };
        let state = task.status.state;
        if task.desired > Desired::Running {
            let over = state.is_terminal() && state != Observed::Lost;
            return (!over).then_some(Observed::Shutdown);
        }
        match state {
            Observed::Assigned if image == BAD => Some(Observed::Rejected),
            Observed::Assigned => Some(Observed::Preparing),
            Observed::Preparing => Some(Observed::Ready),
            Observed::Ready if task.desired == Desired::Running => Some(Observed::Running),
            Observed::Running if image == CRASH => Some(Observed::Failed),
            Observed::Running if image != UNREADY && !task.status.ready => Some(Observed::Running),
            Observed::Running if job && image != LONG => Some(Observed::Complete),
            _ => None,
        }
    }

    fn runs_image(&self, task: &Task, image: &str) -> bool {
        let spec = self.state.service(task.service).and_then(|s| s.task_spec(task.revision));
        spec.is_some_and(|spec| spec.container.image == image)
    }

    /// One step of the agent of a node. Answers whether it had anything to say.
    pub fn agent(&mut self, id: NodeId) -> bool {
        if self.cut.contains(&id) {
            return false;
        }
        let Some(node) = self.state.node(id) else { return false };
        if node.state != NodeState::Ready {
            let memory = node.description.capacity.memory_bytes;
            self.hello(id, memory);
            return true;
        }
        // What it is no longer told of it stops.
        let state = &self.state;
        self.live.retain(|task, node| *node != id || state.task(*task).is_some());
        let reports: Vec<_> = self
            .state
            .tasks_of_node(id)
            .filter_map(|task| {
                let mut report = report(task.id, self.next_report(task)?, self.now_ms);
                report.ready &= self.healed || !self.runs_image(task, UNREADY);
                report.readiness = task.status.readiness + 1;
                Some((id, report))
            })
            .collect();
        if reports.is_empty() {
            return false;
        }
        self.apply(Command::RecordStatus { reports }).expect("recorded");
        true
    }

    pub fn agents(&mut self) -> bool {
        let nodes: Vec<NodeId> = self.state.nodes().map(|node| node.id).collect();
        let mut spoke = false;
        for id in nodes {
            spoke |= self.agent(id);
        }
        spoke
    }

    /// The container of a task ends by itself.
    pub fn ends(&mut self, id: TaskId, state: Observed) {
        let Some(node) = self.state.task(id).and_then(|task| task.node) else { return };
        let reports = vec![(node, report(id, state, self.now_ms))];
        self.apply(Command::RecordStatus { reports }).expect("recorded");
    }

    /// Plans and acts, without letting time pass, until nothing moves.
    pub fn settle(&mut self) {
        for _ in 0..1_000 {
            let planned = !self.plan().is_empty();
            let acted = self.agents();
            if !planned && !acted {
                return;
            }
        }
        panic!("the world does not settle: {:#?}", self.state.tasks().collect::<Vec<_>>());
    }

    /// Settles, letting the time pass that waiting successors need.
    pub fn settle_through_waits(&mut self) {
        for _ in 0..200 {
            self.settle();
            match self.wake_at_ms {
                Some(at_ms) => self.advance(at_ms.saturating_sub(self.now_ms)),
                None => return,
            }
        }
        panic!("the world never comes to rest");
    }

    /// Time passes in small steps, in which the leader plans and the agents act.
    pub fn live(&mut self, ms: u64) {
        let end_ms = self.now_ms + ms;
        while self.now_ms < end_ms {
            self.plan();
            self.agents();
            self.advance(50);
        }
        self.plan();
    }

    /// Tasks of a revision that serve.
    pub fn serving(&self, service: ServiceId, revision: u32) -> usize {
        self.running(service).iter().filter(|task| task.revision == revision).count()
    }

    pub fn tasks(&self, service: ServiceId) -> Vec<&Task> {
        self.state.tasks_of_service(service).collect()
    }

    pub fn holders(&self, service: ServiceId) -> Vec<&Task> {
        self.state.tasks_of_service(service).filter(|task| task.fills_slot()).collect()
    }

    pub fn running(&self, service: ServiceId) -> Vec<&Task> {
        self.state.tasks_of_service(service).filter(|task| task.serves()).collect()
    }

    /// The task that fills a slot; of two beside each other, the older one.
    pub fn holder(&self, service: ServiceId, slot: u32) -> &Task {
        let fillers: Vec<&Task> =
            self.state.tasks_of_slot(service, slot).filter(|task| task.fills_slot()).collect();
        let beside = |task: &Task| fillers.iter().any(|other| task.extras.beside == Some(other.id));
        fillers.iter().find(|task| !beside(task)).expect("slot is filled")
    }

    /// Tasks of a service per node, in node order.
    pub fn spread(&self, service: ServiceId) -> Vec<usize> {
        let on = |id: NodeId| self.holders(service).iter().filter(|t| t.node == Some(id)).count();
        self.state.nodes().map(|node| on(node.id)).collect()
    }
}

pub fn report(task: TaskId, state: Observed, at_ms: u64) -> StatusReport {
    let exit_code = (state == Observed::Failed).then_some(1);
    StatusReport { exit_code, ..StatusReport::new(task, state, at_ms) }
}

/// What may never happen, whatever is applied.
fn check_step(before: &State, after: &State) {
    let mut slots = std::collections::BTreeSet::new();
    for change in after.changes(before).tasks {
        let Some(new) = after.task(change.task) else { continue };
        slots.insert((new.service, new.slot));
        if let Some(old) = before.task(change.task) {
            assert!(new.desired >= old.desired, "desired went back: {old:?} {new:?}");
            let (from, to) = (old.status.state, new.status.state);
            assert!(from == to || from.can_advance_to(to), "{old:?} {new:?}");
            assert!(old.node.is_none() || old.node == new.node, "moved: {old:?} {new:?}");
        }
    }
    for (service, slot) in slots {
        let tasks: Vec<&Task> = after.tasks_of_slot(service, slot).collect();
        let fill: Vec<&&Task> = tasks.iter().filter(|task| task.fills_slot()).collect();
        let pair = matches!(fill[..], [one, other] if one.is_beside(other));
        assert!(fill.len() <= 1 || pair, "filled twice: {tasks:#?}");
        for one in tasks.iter().filter(|t| t.desired == Desired::Running && t.fills_slot()) {
            let barred = |other: &&&Task| other.id != one.id && !one.is_beside(other);
            let other = tasks.iter().filter(barred).find(|task| task.holds_resources());
            assert!(other.is_none(), "may run twice: {tasks:#?}");
        }
    }
    crate::holdings::check(before, after);
    for node in after.nodes() {
        let (held, room) = (after.usage(node.id).reserved, node.description.capacity);
        assert!(held.memory_bytes <= room.memory_bytes, "memory of {node:?} overbooked: {held:?}");
        assert!(held.cpu_nanos <= room.cpu_nanos, "CPU of {node:?} overbooked: {held:?}");
    }
}
