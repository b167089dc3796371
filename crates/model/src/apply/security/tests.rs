use std::collections::BTreeMap;

use super::*;
use crate::cluster::{Cluster, Manager, Secret};
use crate::command::Command;
use crate::node::NodeDescription;
use crate::{apply, security};

const MANAGER: NodeId = NodeId(1);
const UP: NodeId = NodeId(11);
const DOWN: NodeId = NodeId(12);

struct World {
    state: State,
    index: u64,
}

impl World {
    fn new() -> Self {
        let mut world = Self { state: State::default(), index: 0 };
        let manager =
            Manager { name: "m".into(), address: "10.0.0.1:7100".into(), joined_at_ms: 0 };
        world.good(Command::Bootstrap(Box::new(Cluster {
            ca_certificate: "old\n".into(),
            ca_key: Secret::new("old key".into()),
            worker_token: Secret::new("w1".into()),
            manager_token: Secret::new("m1".into()),
            managers: BTreeMap::from([(MANAGER, manager)]),
            ..crate::testing::cluster(7)
        })));
        for id in [UP, DOWN] {
            world.good(Command::RegisterNode { id, name: format!("n{}", id.0), at_ms: 1 });
        }
        let description = Box::new(NodeDescription::default());
        world.good(Command::NodeReady { id: UP, description, at_ms: 2 });
        world
    }

    fn apply(&mut self, command: Command) -> Result<Reply, Refusal> {
        self.index += 1;
        apply(&mut self.state, self.index, &command).reply
    }

    fn good(&mut self, command: Command) {
        self.apply(command).unwrap();
    }

    fn secure(&mut self, secure: Secure) -> Result<Reply, Refusal> {
        self.apply(Command::Secure(secure))
    }

    fn rotate(&mut self) -> Result<Reply, Refusal> {
        self.secure(Secure::RotateCa(Box::new(NewCa {
            replaces: "old\n".into(),
            certificate: "new\n".into(),
            key: Secret::new("new key".into()),
            cross_certificate: "cross\n".into(),
            worker_token: Secret::new("w2".into()),
            manager_token: Secret::new("m2".into()),
            at_ms: 100,
        })))
    }

    fn confirm(&mut self, node: NodeId, phase: CaPhase) {
        self.secure(Secure::ConfirmCa { node, started_at_ms: 100, phase }).unwrap();
    }

    fn advance(&mut self, phase: CaPhase) -> Result<Reply, Refusal> {
        self.secure(Secure::AdvanceCa { started_at_ms: 100, phase, at_ms: 200 })
    }

    fn waits_for(&self) -> Vec<NodeId> {
        self.state.ca_waits_for().collect()
    }

    fn cluster(&self) -> &Cluster {
        self.state.cluster().unwrap()
    }
}

#[test]
fn a_change_of_the_ca_waits_for_everybody_and_ends_with_one_ca() {
    let mut world = World::new();
    assert_eq!(world.state.trusted_cas(), "old\n");
    world.rotate().unwrap();
    assert!(matches!(world.rotate(), Err(Refusal::CaNotNow(_))), "one at a time");
    assert_eq!(world.state.trusted_cas(), "new\nold\n");
    assert_eq!(world.cluster().ca_key.expose(), "new key", "the new one signs");
    assert_eq!(world.cluster().worker_token.expose(), "w1", "old tokens work for now");
    assert_eq!(world.waits_for(), [MANAGER, UP, DOWN]);
    for node in [MANAGER, UP] {
        world.confirm(node, CaPhase::Reissue);
    }
    assert!(world.advance(CaPhase::Reissue).is_err(), "one is missing");
    world.confirm(DOWN, CaPhase::Reissue);
    assert!(world.advance(CaPhase::Retire).is_err(), "not there yet");
    world.advance(CaPhase::Reissue).unwrap();
    assert!(world.advance(CaPhase::Reissue).is_err(), "a planner that comes late");
    assert_eq!(world.state.trusted_cas(), "new\n");
    assert_eq!(world.cluster().worker_token.expose(), "w2");
    assert_eq!(world.cluster().manager_token.expose(), "m2");
    assert_eq!(world.waits_for(), [UP], "managers and absent nodes follow by themselves");
    world.confirm(UP, CaPhase::Retire);
    world.advance(CaPhase::Retire).unwrap();
    assert!(world.state.rotation().is_none());
    assert_eq!(world.state.security().unwrap().ca_rotated_at_ms, 200);
    assert!(world.rotate().is_err(), "the CA it would replace is gone");
}

#[test]
fn force_leaves_absent_nodes_behind_and_nobody_else() {
    let mut world = World::new();
    world.rotate().unwrap();
    assert!(world.secure(Secure::ForceCa).is_ok());
    world.confirm(MANAGER, CaPhase::Reissue);
    assert_eq!(world.waits_for(), [UP]);
    assert!(world.advance(CaPhase::Reissue).is_err());
    world.confirm(UP, CaPhase::Reissue);
    world.advance(CaPhase::Reissue).unwrap();
    let missing: Vec<NodeId> = world.state.ca_missing().collect();
    assert_eq!(missing, [MANAGER, UP, DOWN]);
}

#[test]
fn removed_nodes_are_not_waited_for_and_late_confirmations_do_nothing() {
    let mut world = World::new();
    world.rotate().unwrap();
    world.good(Command::RemoveNode { id: DOWN, force: false, at_ms: 3 });
    assert_eq!(world.waits_for(), [MANAGER, UP]);
    world.confirm(DOWN, CaPhase::Reissue);
    assert!(!world.state.rotation().unwrap().confirmed.contains_key(&DOWN));
    let other = Secure::ConfirmCa { node: UP, started_at_ms: 99, phase: CaPhase::Reissue };
    world.secure(other).unwrap();
    world.confirm(UP, CaPhase::Retire);
    assert_eq!(world.waits_for(), [MANAGER, UP], "of another change, or of a phase to come");
}

#[test]
fn removal_revokes_and_a_manager_that_is_taken_back_counts_again() {
    let mut world = World::new();
    assert!(!world.state.is_revoked(UP));
    world.good(Command::RemoveNode { id: UP, force: true, at_ms: 3 });
    assert!(world.state.is_revoked(UP));
    let manager = world.cluster().managers[&MANAGER].clone();
    world.good(Command::RemoveManager { id: MANAGER });
    assert!(world.state.is_revoked(MANAGER));
    world.good(Command::PutManager { id: MANAGER, manager });
    assert!(!world.state.is_revoked(MANAGER));
    // Who never was there is not remembered.
    world.good(Command::RemoveManager { id: NodeId(99) });
    assert!(!world.state.is_revoked(NodeId(99)));
    for id in 1000..1000 + security::REVOKED_MAX as u64 {
        world.good(Command::RegisterNode { id: NodeId(id), name: format!("x{id}"), at_ms: 1 });
        world.good(Command::RemoveNode { id: NodeId(id), force: true, at_ms: 3 });
    }
    assert_eq!(world.state.security().unwrap().revoked.len(), security::REVOKED_MAX);
    assert!(!world.state.is_revoked(UP), "the oldest makes room");
}

#[test]
fn validity_has_bounds_and_confirmations_do_not_wake_nodes() {
    let mut world = World::new();
    for seconds in [0, 9, security::CERT_VALIDITY_MAX_S + 1] {
        let refused = world.secure(Secure::SetCertValidity { seconds });
        assert!(matches!(refused, Err(Refusal::Invalid(_))), "{seconds}");
    }
    let before = world.state.clone();
    world.secure(Secure::SetCertValidity { seconds: 3600 }).unwrap();
    assert!(world.state.changes(&before).trust);
    assert_eq!(world.state.cert_validity_s(), 3600);
    world.rotate().unwrap();
    let before = world.state.clone();
    world.confirm(UP, CaPhase::Reissue);
    assert!(!world.state.changes(&before).trust);
}

#[test]
fn a_state_of_an_older_release_reads_without_it() {
    let mut world = World::new();
    let bytes = postcard::to_stdvec(&world.state).unwrap();
    let (last, older) = bytes.split_last().unwrap();
    assert_eq!(*last, 0, "none");
    let read: State = postcard::from_bytes(older).unwrap();
    assert_eq!(read, world.state);
    world.rotate().unwrap();
    let bytes = postcard::to_stdvec(&world.state).unwrap();
    let read: State = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(read, world.state);
    let cut = postcard::from_bytes::<State>(&bytes[..bytes.len() - 1]);
    assert!(cut.is_err(), "what is there must read");
}
