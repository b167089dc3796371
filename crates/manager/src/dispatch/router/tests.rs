use cluster_model::node::NodeDescription;
use cluster_model::spec::{Mode, PortSpec, ServiceSpec};
use cluster_model::{Change, Command, NodeId, Observed, StatusReport, Task, apply};
use cluster_planner::{Ids, Scope};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;
use crate::dispatch::counts::KeptCounts;

#[test]
fn a_large_service_comes_in_several_messages_and_the_others_beside_it() {
    let service = |name: &str, backends: usize, gone: usize| pb::ServiceEndpoints {
        service_id: name.to_owned(),
        backends: vec![pb::Backend::default(); backends],
        gone: vec![String::new(); gone],
        delta: gone > 0,
        ..Default::default()
    };
    let large = ENTRIES_MAX * 2 + 5;
    let services = vec![
        service("a", 1, 0),
        service("b", large, 0),
        service("c", 0, large),
        service("d", 0, 0),
    ];
    let gone = vec!["e".to_owned(); ENTRIES_MAX + 1];
    let messages = parts(7, true, services, gone.clone());
    let (last, first) = messages.split_last().unwrap();
    assert!(!last.more && first.iter().all(|message| message.more));
    assert!(messages.iter().all(|message| message.full && message.version == 7));
    assert_eq!(messages.iter().flat_map(|message| message.gone.clone()).collect::<Vec<_>>(), gone);
    let entries = |message: &pb::Endpoints| -> usize {
        let services = message.services.iter();
        let held: usize = services.map(|part| 1 + part.backends.len() + part.gone.len()).sum();
        held + message.gone.len()
    };
    assert!(messages.iter().all(|message| entries(message) <= ENTRIES_MAX));
    assert!(first.iter().all(|message| entries(message) == ENTRIES_MAX));
    let of = |name: &str| -> Vec<pb::ServiceEndpoints> {
        let all = messages.iter().flat_map(|message| message.services.clone());
        all.filter(|part| part.service_id == name).collect()
    };
    let b = of("b");
    assert_eq!(b.iter().map(|part| part.backends.len()).sum::<usize>(), large);
    // Only the first says that there are no others.
    assert!(!b[0].delta && b[1..].iter().all(|part| part.delta));
    assert_eq!(of("c").iter().map(|part| part.gone.len()).sum::<usize>(), large);
    assert!(of("c").iter().all(|part| part.delta));
    assert_eq!((of("a").len(), of("d").len()), (1, 1));
}

/// What a session has been told: backends by service and task.
#[derive(Clone, Debug, Default, PartialEq)]
struct Heard(BTreeMap<String, BTreeMap<String, pb::Backend>>);

impl Heard {
    fn hear(&mut self, messages: &[pb::Endpoints]) {
        if messages[0].full {
            self.0.clear();
        }
        for message in messages {
            for service in &message.services {
                let known = self.0.entry(service.service_id.clone()).or_default();
                if !service.delta {
                    known.clear();
                }
                let all = service.backends.iter().cloned();
                known.extend(all.map(|backend| (backend.task_id.clone(), backend)));
                known.retain(|task, _| !service.gone.contains(task));
            }
            for gone in &message.gone {
                self.0.remove(gone);
            }
        }
    }

    fn of(state: &State) -> Self {
        let mut heard = Self::default();
        heard.hear(&full_endpoints(state));
        heard
    }
}

const NODES: u64 = 5;

/// A cluster in which things go on at random.
struct Life {
    state: State,
    index: u64,
    rng: StdRng,
    ids: Ids,
}

impl Life {
    fn new(seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        let mut life = Self { state: State::default(), index: 0, rng, ids: Ids::new(seed | 1) };
        for number in 1..=NODES {
            let (id, name) = (NodeId(number), format!("node-{number}"));
            life.write(Command::RegisterNode { id, name, at_ms: 1 });
            life.ready(id);
        }
        life
    }

    /// What is refused changes nothing.
    fn write(&mut self, command: Command) {
        self.index += 1;
        let _refused_or_done = apply(&mut self.state, self.index, &command).reply;
    }

    fn ready(&mut self, id: NodeId) {
        let address = format!("10.0.{}.1", self.rng.random_range(0..3));
        let description = NodeDescription { address, healthy: true, ..Default::default() };
        self.write(Command::NodeReady { id, description: Box::new(description), at_ms: 1 });
    }

    fn step(&mut self) {
        let services: Vec<(ServiceId, u64)> =
            self.state.services().map(|service| (service.id, service.version)).collect();
        let one =
            (!services.is_empty()).then(|| services[self.rng.random_range(0..services.len())]);
        match (self.rng.random_range(0..14), one) {
            (0, _) => {
                let spec = self.spec();
                let id = ServiceId(self.index + 1000);
                self.write(Command::CreateService { id, spec, at_ms: 1 });
            }
            (1, Some((id, version))) => {
                let mut spec = (*self.spec()).clone();
                let owner = self.state.service(id).expect("it was just listed");
                spec.name.clone_from(&owner.spec.name);
                let spec = Arc::new(spec);
                let give_up = Vec::new();
                self.write(Command::UpdateService { id, version, spec, at_ms: 1, give_up });
            }
            (2, Some((id, _))) => {
                self.write(Command::RemoveService { id, at_ms: 1, version: None });
            }
            (3, _) => {
                let node = NodeId(self.rng.random_range(1..=NODES));
                let version = self.state.node(node).map_or(0, |node| node.version);
                let down = Change::NodeDown { node, version, message: "silent".into() };
                self.write(Command::Plan { at_ms: 2, changes: vec![down] });
            }
            (4, _) => {
                let node = NodeId(self.rng.random_range(1..=NODES));
                // Also one that is ready already, with another address.
                self.ready(node);
            }
            (5, _) => {
                let id = NodeId(self.rng.random_range(1..=NODES));
                self.write(Command::RemoveNode { id, force: true, at_ms: 2 });
                let name = format!("node-{}", self.index);
                self.write(Command::RegisterNode { id, name, at_ms: 2 });
                self.ready(id);
            }
            (6 | 7, _) => {
                let plan = cluster_planner::plan(&self.state, Scope::All, 3, &mut self.ids);
                self.write(Command::Plan { at_ms: 3, changes: plan.changes });
            }
            _ => self.report(),
        }
    }

    fn spec(&mut self) -> Arc<ServiceSpec> {
        let mut spec = ServiceSpec {
            name: format!("s{}", self.index),
            mode: Mode::Replicated { replicas: self.rng.random_range(1..6) },
            ..ServiceSpec::default()
        };
        spec.task.container.image = "web:1".into();
        if self.rng.random_bool(0.8) {
            let published = self.rng.random_range(8000..8010);
            spec.ports = vec![PortSpec { published, target: self.rng.random_range(80..82) }];
        }
        Arc::new(spec)
    }

    fn report(&mut self) {
        let tasks: Vec<&Task> = self.state.tasks().filter(|task| task.node.is_some()).collect();
        if tasks.is_empty() {
            return;
        }
        let task = tasks[self.rng.random_range(0..tasks.len())];
        let node = task.node.expect("only those");
        let state = if self.rng.random_bool(0.9) { Observed::Running } else { Observed::Failed };
        let mut report = StatusReport::new(task.id, state, 4);
        report.ready = self.rng.random_bool(0.7);
        report.readiness = task.status.readiness + 1;
        self.write(Command::RecordStatus { reports: vec![(node, report)] });
    }
}

/// Whenever a session begins, and however many deltas of before it hears again: after each delta it
/// knows what a full set would say.
#[test]
fn deltas_lead_where_full_sets_lead() {
    let mut news = 0;
    for seed in 0..40 {
        let mut life = Life::new(seed);
        let mut told = State::default();
        let mut deltas: Vec<Vec<pb::Endpoints>> = Vec::new();
        let mut sessions: Vec<Heard> = Vec::new();
        for _ in 0..200 {
            life.step();
            if life.rng.random_bool(0.5) {
                continue;
            }
            if life.rng.random_bool(0.1) {
                let mut heard = Heard::of(&told);
                let again = life.rng.random_range(0..=deltas.len().min(4));
                for delta in &deltas[deltas.len() - again..] {
                    heard.hear(delta);
                }
                assert_eq!(heard, Heard::of(&told), "seed {seed}, {again} deltas again");
                sessions.push(heard);
            }
            if life.state.endpoints_version() == told.endpoints_version() {
                assert_eq!(Heard::of(&life.state), Heard::of(&told), "seed {seed}");
                continue;
            }
            let delta = endpoint_delta(&told, &life.state, &life.state.changes(&told));
            told = life.state.clone();
            for heard in &mut sessions {
                heard.hear(&delta);
                assert_eq!(*heard, Heard::of(&told), "seed {seed}");
            }
            deltas.push(delta);
            news += 1;
        }
    }
    assert!(news > 500, "only {news} changes of endpoints");
}

/// Whatever the router has seen when a list is made, and whatever changes before it is kept.
#[test]
fn kept_counts_are_those_of_the_view() {
    let (mut looks, mut looked) = (0, 0);
    for seed in 0..40 {
        let mut life = Life::new(seed);
        let mut last = State::default();
        // Now and then too much changes at once to be looked at, in every other life.
        let bounds = [usize::MAX, 3];
        let counts = KeptCounts::bounded(bounds[usize::try_from(seed % 2).expect("0 or 1")]);
        let mut views: Vec<State> = Vec::new();
        for _ in 0..200 {
            life.step();
            views.push(life.state.clone());
            let follows = life.rng.random_bool(0.4);
            if life.rng.random_bool(0.3) {
                // An older one, too: reads may be slow.
                let back = life.rng.random_range(0..views.len().min(3));
                let view = views[views.len() - 1 - back].clone();
                let mut reader = counts.reader(&view);
                for service in view.services() {
                    let shown = reader.of(service);
                    assert_eq!(shown, object::counts(&view, service), "seed {seed}");
                    looks += 1;
                }
                if follows {
                    counts.follow(&last, &life.state, &life.state.changes(&last));
                    last = life.state.clone();
                }
                looked += reader.keep();
            } else if follows {
                counts.follow(&last, &life.state, &life.state.changes(&last));
                last = life.state.clone();
            }
        }
    }
    assert!(looked * 10 < looks * 9, "{looked} of {looks} services were counted anew");
}
