use cluster_identity::Role;
use cluster_model::cluster::Secret;
use cluster_model::security::NewCa;
use cluster_model::{Cluster, ClusterId, NodeId, apply};

use super::*;

const HOUR: u64 = 3600;

struct World {
    state: State,
    index: u64,
    ca: Ca,
}

impl World {
    fn new() -> Self {
        let id = ClusterId(7);
        let ca = Ca::create(&id.to_string(), now_unix()).unwrap();
        let mut world = Self { state: State::default(), index: 0, ca };
        let cluster = Cluster {
            ca_certificate: world.ca.cert_pem().into(),
            ca_key: Secret::new(world.ca.key_pem().expose().into()),
            ..cluster_model::testing::cluster(id.0)
        };
        world.apply(Command::Bootstrap(Box::new(cluster)));
        world
    }

    fn apply(&mut self, command: Command) {
        self.index += 1;
        apply(&mut self.state, self.index, &command).reply.unwrap();
    }

    fn rotate(&mut self) -> Ca {
        let next = Ca::create(self.ca.cluster_id(), now_unix()).unwrap();
        self.apply(Command::Secure(Secure::RotateCa(Box::new(NewCa {
            replaces: self.ca.cert_pem().into(),
            certificate: next.cert_pem().into(),
            key: Secret::new(next.key_pem().expose().into()),
            cross_certificate: self.ca.cross_sign(&next, now_unix()).unwrap(),
            worker_token: Secret::new(String::new()),
            manager_token: Secret::new(String::new()),
            at_ms: 1,
        }))));
        next
    }

    fn subject(&self) -> Subject {
        Subject {
            role: Role::Manager,
            node_id: NodeId(1).to_string(),
            cluster_id: self.ca.cluster_id().into(),
        }
    }

    fn is_wanted(&self, identity: &Identity, now: u64) -> bool {
        is_wanted(identity, &identity.leaf().unwrap(), &self.state, now)
    }
}

#[test]
fn a_certificate_is_replaced_when_it_would_live_longer_than_it_shall() {
    let mut world = World::new();
    let identity = issue(&world.state, &world.subject()).unwrap();
    let now = now_unix();
    assert!(world.is_wanted(&identity, now));
    world.apply(Command::Secure(Secure::SetCertValidity { seconds: HOUR }));
    assert!(!world.is_wanted(&identity, now));
    // An hour before its end it is as good as a new one.
    let end = identity.not_after().unwrap();
    assert!(world.is_wanted(&identity, end - HOUR));
    let short = issue(&world.state, &world.subject()).unwrap();
    assert!(short.not_after().unwrap() <= now_unix() + HOUR);
    assert!(world.is_wanted(&short, now));
    world.apply(Command::Secure(Secure::SetCertValidity { seconds: 24 * HOUR }));
    assert!(world.is_wanted(&short, now), "a short one is no harm");
}

#[test]
fn while_the_ca_is_replaced_the_new_one_signs_and_shows_the_way_to_the_old_one() {
    let mut world = World::new();
    let before = issue(&world.state, &world.subject()).unwrap();
    let next = world.rotate();
    let now = now_unix();
    assert!(!world.is_wanted(&before, now));
    let during = issue(&world.state, &world.subject()).unwrap();
    assert!(world.is_wanted(&during, now));
    assert!(during.is_issued_by(next.cert_pem()) && !during.is_issued_by(world.ca.cert_pem()));
    assert_eq!(during.ca_digests(), [next.digest(), world.ca.digest()]);
    assert_eq!(during.chain_pem.matches("BEGIN CERTIFICATE").count(), 4, "leaf to the old root");
    world.apply(Command::Secure(Secure::AdvanceCa {
        started_at_ms: 1,
        phase: CaPhase::Reissue,
        at_ms: 2,
    }));
    assert!(!world.is_wanted(&during, now), "it trusts one too many");
    let after = issue(&world.state, &world.subject()).unwrap();
    assert_eq!(after.ca_digests(), [next.digest()]);
    assert_eq!(after.chain_pem.matches("BEGIN CERTIFICATE").count(), 2);
}
