//! A change of the CA, driven by the planner over changes of leaders: any order of confirmations,
//! lost and repeated ones, comes to the same end, and then nothing is planned.

use std::collections::BTreeMap;

use cluster_model::cluster::Secret;
use cluster_model::node::NodeDescription;
use cluster_model::security::NewCa;
use cluster_model::{CaPhase, Cluster, Command, Manager, NodeId, Secure, State, apply};
use proptest::prelude::*;

const MANAGER: NodeId = NodeId(1);

fn world(workers: u64) -> State {
    let mut state = State::default();
    let secret = || Secret::new("s".into());
    let manager = Manager { name: "m".into(), address: "a:1".into(), joined_at_ms: 0 };
    let mut commands = vec![Command::Bootstrap(Box::new(Cluster {
        ca_certificate: "old".into(),
        ca_key: secret(),
        worker_token: secret(),
        manager_token: secret(),
        managers: BTreeMap::from([(MANAGER, manager)]),
        ..cluster_model::testing::cluster(7)
    }))];
    for id in (100..100 + workers).map(NodeId) {
        commands.push(Command::RegisterNode { id, name: format!("n{}", id.0), at_ms: 1 });
        let description = Box::new(NodeDescription::default());
        commands.push(Command::NodeReady { id, description, at_ms: 1 });
    }
    commands.push(Command::Secure(Secure::RotateCa(Box::new(NewCa {
        replaces: "old".into(),
        certificate: "new".into(),
        key: secret(),
        cross_certificate: "cross".into(),
        worker_token: secret(),
        manager_token: secret(),
        at_ms: 50,
    }))));
    for (index, command) in (1..).zip(&commands) {
        apply(&mut state, index, command).reply.expect("accepted");
    }
    state
}

proptest! {
    #[test]
    fn every_order_of_confirmations_ends_with_one_ca(
        workers in 0u64..5,
        order in proptest::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..40),
    ) {
        let mut state = world(workers);
        let mut index = 1000;
        let mut step = |state: &mut State, secure: Secure| {
            index += 1;
            apply(state, index, &Command::Secure(secure)).reply
        };
        let nodes: Vec<NodeId> =
            std::iter::once(MANAGER).chain((100..100 + workers).map(NodeId)).collect();
        let fair = nodes.iter().copied().cycle().take(nodes.len() * 3).map(|node| (node, true));
        let drawn = order.iter().map(|(node, plan)| (*node.get(&nodes), *plan));
        for (node, plan) in drawn.chain(fair) {
            if let Some(rotation) = state.rotation() {
                let (started_at_ms, phase) = (rotation.started_at_ms, rotation.phase);
                step(&mut state, Secure::ConfirmCa { node, started_at_ms, phase }).unwrap();
            }
            if plan && let Some(advance) = cluster_planner::certs::plan(&state, 99) {
                let both = state.trusted_cas();
                step(&mut state, advance.clone()).unwrap();
                // A second leader that planned from the same state comes too late.
                prop_assert!(step(&mut state, advance).is_err());
                prop_assert!(both.starts_with("new"));
            }
        }
        prop_assert!(state.rotation().is_none());
        prop_assert_eq!(state.trusted_cas(), "new");
        prop_assert_eq!(cluster_planner::certs::plan(&state, 99), None);
    }
}

#[test]
fn nothing_moves_while_a_node_is_missing() {
    let mut state = world(2);
    assert_eq!(cluster_planner::certs::plan(&state, 99), None);
    for (index, node) in [(2000, MANAGER), (2001, NodeId(100))] {
        let phase = CaPhase::Reissue;
        let confirm = Secure::ConfirmCa { node, started_at_ms: 50, phase };
        apply(&mut state, index, &Command::Secure(confirm)).reply.unwrap();
        assert_eq!(cluster_planner::certs::plan(&state, 99), None);
    }
}
