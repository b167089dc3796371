//! Short texts: names, conditions, flags, tokens; and what else fits in one message.

use std::sync::LazyLock;
use std::time::Duration;

use cluster_identity::{Ca, CaDigest, JoinSecret, JoinToken, Leaf, Role, Subject};
use cluster_image::{Digest, Reference};
use cluster_model::constraint::{Constraint, Key};
use cluster_model::spec::{Overlap, Schedule};
use cluster_model::{
    ClusterId, Node, NodeDescription, NodeId, NodeSpec, NodeState, ServiceId, TaskId,
};
use cluster_planner::cron as schedules;
use cluster_runtime::shim::{fuzzing as shim, protocol};
use cluster_runtime::{ContainerId, LogLine, Signal};

/// Text as people and files give it; most inputs are not text.
fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

pub fn reference(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let _ = text.parse::<Digest>();
    let Ok(read) = text.parse::<Reference>() else { return };
    let names = [read.to_string(), read.canonical()];
    for name in names {
        let again: Reference = name.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(again, read, "`{text}` changes by being shown as `{name}`");
    }
}

pub fn constraint(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let _ = text.parse::<Key>();
    match text.parse::<Constraint>() {
        Ok(read) => {
            let shown = read.to_string();
            let again: Constraint =
                shown.parse().unwrap_or_else(|error| panic!("`{text}` as `{shown}`: {error}"));
            assert_eq!(again, read, "`{text}` changes by being shown as `{shown}`");
            let _ = read.holds(&NODE);
        }
        Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
    }
}

static NODE: LazyLock<Node> = LazyLock::new(|| Node {
    id: NodeId(1),
    version: 1,
    created_at_ms: 1,
    name: "worker-1".into(),
    spec: NodeSpec {
        labels: [("disk".into(), "ssd".into()), ("kernel".into(), "6.1.0".into())].into(),
        ..NodeSpec::default()
    },
    description: NodeDescription { address: "10.0.0.1".into(), ..NodeDescription::default() },
    state: NodeState::Ready,
    message: "".into(),
    state_since_ms: 1,
    last_down_ms: 0,
    down_index: 0,
});

/// The input is a schedule and, behind a line end, a time zone.
pub fn cron(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let (cron, zone) = text.split_once('\n').unwrap_or((text, "UTC"));
    if let Err(error) = schedules::validate(cron, zone) {
        assert!(!error.contains('\n'), "{error}");
        return;
    }
    let schedule = Schedule {
        cron: cron.to_owned(),
        time_zone: zone.to_owned(),
        overlap: Overlap::default(),
        starting_deadline_ms: None,
        keep_succeeded: 1,
        keep_failed: 1,
    };
    let mut at_ms = 1_700_000_000_000;
    for _ in 0..8 {
        // A schedule may end, such as one for 29 February at the end of the calendar.
        let Some(next_ms) = schedules::next_after(&schedule, at_ms) else { return };
        assert!(next_ms > at_ms, "time goes on");
        at_ms = next_ms;
    }
    let _ = schedules::next_after(&schedule, u64::MAX);
}

pub fn flags(data: &[u8]) {
    if let Some(text) = text(data) {
        cluster_ctl::fuzzing::values(text);
    }
}

/// Words are divided by line ends.
pub fn command_line(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let words: Vec<&str> = text.split('\n').take(64).collect();
    cluster_ctl::fuzzing::command_line(&words);
}

pub fn token(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let _ = text.parse::<Role>();
    if let Ok(read) = text.parse::<JoinToken>() {
        let shown = read.to_string();
        let again: JoinToken = shown.parse().expect("a shown token reads");
        assert!(again.secret.matches(&read.secret) && again.ca_digest == read.ca_digest);
    }
    if let Ok(secret) = JoinSecret::parse(text) {
        let again = JoinSecret::parse(&secret.expose()).expect("a shown secret reads");
        assert!(again.matches(&secret));
    }
    macro_rules! id {
        ($($kind:ty),*) => {$(
            if let Ok(id) = text.parse::<$kind>() {
                assert_eq!(id.to_string().parse::<$kind>(), Ok(id));
            }
        )*};
    }
    id!(ClusterId, NodeId, ServiceId, TaskId);
}

static CA: LazyLock<Ca> = LazyLock::new(|| Ca::create("c1", 1_700_000_000).expect("a CA"));

/// A certificate, alone or in PEM, and a request for one as a stranger may send it.
pub fn certificate(data: &[u8]) {
    if let Ok(leaf) = Leaf::from_der(data) {
        let _ = leaf.is_valid_at(1_700_000_000);
    }
    if let Some(text) = text(data) {
        let _ = Leaf::from_pem(text);
        let _ = CaDigest::of_pem(text);
    }
    let subject =
        Subject { role: Role::Worker, node_id: "n1".into(), cluster_id: CA.cluster_id().into() };
    let validity = Duration::from_secs(3600);
    if let Ok(chain) = CA.sign(data, &subject, 1_700_000_000, validity) {
        // Nothing that was asked for is taken over.
        let leaf = Leaf::from_pem(&chain).expect("what the CA signed reads");
        assert_eq!(leaf.subject, subject);
    }
}

/// A line between runtime and shim, a line of a log, names of containers and signals, and an
/// image's tables of users: the input is a user, `passwd` and `group`, divided by zero bytes.
pub fn container(data: &[u8]) {
    let _ = serde_json::from_slice::<protocol::Request>(data);
    let _ = serde_json::from_slice::<protocol::Reply>(data);
    if let Some(line) = LogLine::decode(data) {
        let mut again = Vec::new();
        line.encode(&mut again);
        let record = again.strip_suffix(b"\n").expect("a record ends its line");
        assert_eq!(LogLine::decode(record), Some(line), "a line changes by being written");
    }
    let Some(text) = text(data) else { return };
    let _ = text.parse::<Signal>();
    if let Ok(id) = text.parse::<ContainerId>() {
        assert_eq!(id.as_str(), text);
    }
    let mut parts = text.splitn(3, '\0');
    let mut part = || parts.next().unwrap_or_default();
    let _ = shim::identify(part(), part(), part());
}

/// The first bytes that one worker sends another, and networks as flags give them.
pub fn mesh(data: &[u8]) {
    use cluster_network::mesh::fuzzing;
    if let Some(bytes) = data.first_chunk::<{ fuzzing::PREAMBLE }>() {
        fuzzing::preamble(bytes);
    }
    if let Some(text) = text(data)
        && let Ok(subnet) = text.parse::<cluster_network::Subnet>()
    {
        assert!(subnet.contains(subnet.gateway()), "{text}");
    }
}
