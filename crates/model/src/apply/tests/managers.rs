use super::fixture::Fixture;
use super::nodes::cluster;
use crate::command::{Command, Refusal};
use crate::{Manager, NodeId, Upkeep};

fn founded() -> (Fixture, u64) {
    let mut fixture = Fixture::default();
    fixture.apply(cluster()).unwrap();
    let version = fixture.state.cluster().unwrap().version;
    (fixture, version)
}

fn manager(name: &str) -> Manager {
    Manager { name: name.into(), address: "10.0.0.9:7100".into(), joined_at_ms: 1 }
}

#[test]
fn a_recovery_is_applied_once_and_leaves_one_manager() {
    let (mut fixture, version) = founded();
    let recover = Command::Recover { version, id: NodeId(9), manager: manager("m9") };
    fixture.apply(recover.clone()).unwrap();
    let cluster = fixture.state.cluster().unwrap();
    assert_eq!(cluster.managers.keys().copied().collect::<Vec<_>>(), [NodeId(9)]);
    assert_eq!(fixture.state.endpoints_version(), fixture.index);
    fixture.apply(Command::PutManager { id: NodeId(10), manager: manager("m10") }).unwrap();
    assert!(matches!(fixture.apply(recover), Err(Refusal::VersionMoved { .. })));
    assert_eq!(fixture.state.cluster().unwrap().managers.len(), 2, "the newcomer stays");
}

#[test]
fn upkeep_has_bounds_and_a_version() {
    let (mut fixture, version) = founded();
    let upkeep = |after, every, keep| Upkeep {
        replace_dead_after_ms: after,
        snapshot_every_ms: every,
        snapshot_keep: keep,
    };
    let wrong = [
        upkeep(9_999, 0, 0),
        upkeep(u64::MAX, 0, 0),
        upkeep(0, 999, 1),
        upkeep(0, 1_000, 0),
        upkeep(0, 1_000, 1_001),
    ];
    for upkeep in wrong {
        let refused = fixture.apply(Command::UpdateUpkeep { version, upkeep });
        assert!(matches!(refused, Err(Refusal::Invalid(_))), "{upkeep:?}");
    }
    let good = upkeep(10_000, 60_000, 3);
    fixture.apply(Command::UpdateUpkeep { version, upkeep: good }).unwrap();
    assert_eq!(fixture.state.cluster().unwrap().upkeep, good);
    let stale = fixture.apply(Command::UpdateUpkeep { version, upkeep: good });
    assert!(matches!(stale, Err(Refusal::VersionMoved { .. })));
}
