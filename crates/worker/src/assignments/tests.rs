use cluster_pb::types::v1 as types;
use proptest::prelude::*;

use super::*;

fn spec(image: &str) -> types::TaskSpec {
    types::TaskSpec {
        container: Some(types::ContainerSpec { image: image.into(), ..Default::default() }),
        ..Default::default()
    }
}

fn task(id: u64, desired: &str, spec: Option<types::TaskSpec>) -> pb::Assignment {
    pb::Assignment {
        task_id: TaskId(id).to_string(),
        service_id: ServiceId(1).to_string(),
        service_name: "web".into(),
        slot: 1,
        revision: 1,
        desired_state: desired.into(),
        spec,
        target_ports: vec![80],
        ..Default::default()
    }
}

fn message(sequence: u64, version: u64, full: bool, tasks: Vec<pb::Assignment>) -> pb::Assignments {
    pb::Assignments { term: 1, version, sequence, full, tasks, ..Default::default() }
}

#[test]
fn a_full_set_then_changes() {
    let mut intake = Intake::default();
    let first = message(1, 5, true, vec![task(1, "running", Some(spec("web:1")))]);
    let table = intake.accept(&Table::default(), first).unwrap().unwrap();
    assert_eq!(table.tasks[&TaskId(1)].desired, Desired::Running);

    // Specs need not be repeated, neither for the task nor for others of its revision.
    let mut second = message(2, 6, false, vec![task(1, "shutdown", None), task(2, "ready", None)]);
    second.removed = vec![TaskId(9).to_string()];
    let table = intake.accept(&table, second).unwrap().unwrap();
    assert_eq!(table.tasks[&TaskId(1)].desired, Desired::Shutdown);
    assert!(Arc::ptr_eq(&table.tasks[&TaskId(1)].spec, &table.tasks[&TaskId(2)].spec));

    let mut third = message(3, 7, false, vec![]);
    third.removed = vec![TaskId(1).to_string()];
    let table = intake.accept(&table, third).unwrap().unwrap();
    assert_eq!(table.tasks.keys().copied().collect::<Vec<_>>(), [TaskId(2)]);
}

#[test]
fn older_stamps_are_refused_also_across_sessions() {
    let held = Table { stamp: Stamp { term: 2, version: 10 }, ..Default::default() };
    for (term, version) in [(2, 9), (1, 50)] {
        let offered =
            pb::Assignments { term, version, sequence: 1, full: true, ..Default::default() };
        let refused = Intake::default().accept(&held, offered).unwrap_err();
        assert!(matches!(refused, Refused::Stale { .. }), "{refused}");
    }
    let same =
        pb::Assignments { term: 2, version: 10, sequence: 1, full: true, ..Default::default() };
    assert!(Intake::default().accept(&held, same).unwrap().is_some());
}

#[test]
fn a_lost_message_and_a_change_without_a_base_are_noticed() {
    let mut intake = Intake::default();
    let early = intake.accept(&Table::default(), message(1, 1, false, vec![])).unwrap_err();
    assert!(matches!(early, Refused::NotFull));
    let mut intake = Intake::default();
    intake.accept(&Table::default(), message(1, 1, true, vec![])).unwrap();
    let gap = intake.accept(&Table::default(), message(3, 2, false, vec![])).unwrap_err();
    assert!(matches!(gap, Refused::Gap { expected: 2, got: 3 }));
}

#[test]
fn a_set_in_parts_takes_effect_as_a_whole() {
    let held = Table { tasks: [(TaskId(7), Arc::new(sample(7)))].into(), ..Default::default() };
    let mut intake = Intake::default();
    let mut first = message(1, 5, true, vec![task(1, "running", Some(spec("web:1")))]);
    first.more = true;
    assert!(intake.accept(&held, first).unwrap().is_none());
    let last = message(2, 5, true, vec![task(2, "running", None)]);
    let table = intake.accept(&held, last).unwrap().unwrap();
    assert_eq!(table.tasks.keys().copied().collect::<Vec<_>>(), [TaskId(1), TaskId(2)]);
}

#[test]
fn nonsense_is_refused_with_its_field() {
    let mut wrong = task(1, "running", Some(spec("web:1")));
    wrong.task_id = "x".into();
    let refused =
        Intake::default().accept(&Table::default(), message(1, 1, true, vec![wrong])).unwrap_err();
    assert!(refused.to_string().contains("task_id"), "{refused}");
    let bare = message(1, 1, true, vec![task(1, "running", None)]);
    let refused = Intake::default().accept(&Table::default(), bare).unwrap_err();
    assert!(matches!(refused, Refused::NoSpec { .. }));
}

fn sample(id: u64) -> Assignment {
    let mut intake = Intake::default();
    let set = message(1, 1, true, vec![task(id, "running", Some(spec("web:1")))]);
    let table = intake.accept(&Table::default(), set).unwrap().unwrap();
    (*table.tasks[&TaskId(id)]).clone()
}

#[test]
fn the_table_survives_the_disk_and_damage_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("assignments");
    assert_eq!(store::load(&path).unwrap(), Table::default());
    let (a, mut b) = (sample(1), sample(2));
    b.spec = a.spec.clone();
    let table = Table {
        stamp: Stamp { term: 3, version: 9 },
        tasks: [(TaskId(1), Arc::new(a)), (TaskId(2), Arc::new(b))].into(),
    };
    store::save(&path, &table).unwrap();
    let loaded = store::load(&path).unwrap();
    assert_eq!(loaded, table);
    assert!(Arc::ptr_eq(&loaded.tasks[&TaskId(1)].spec, &loaded.tasks[&TaskId(2)].spec));

    let good = std::fs::read(&path).unwrap();
    let mut flipped = good.clone();
    flipped[30] ^= 1;
    for bad in [&good[..good.len() / 2], &flipped, &good[..4], b""] {
        std::fs::write(&path, bad).unwrap();
        assert!(matches!(store::load(&path), Err(store::Error::Damaged { .. })));
    }
}

proptest! {
    /// Whatever comes in whatever order, stamps and desired states of what is held never go back.
    #[test]
    fn nothing_goes_back(
        messages in prop::collection::vec(
            (1u64..3, 1u64..8, any::<bool>(), prop::collection::vec((1u64..4, 0usize..5), 0..3)),
            1..12,
        )
    ) {
        const STATES: [&str; 5] = ["ready", "running", "complete", "shutdown", "remove"];
        let mut intake = Intake::default();
        let mut held = Table::default();
        let mut sequence = 0;
        for (term, version, full, tasks) in messages {
            let tasks = tasks.into_iter().map(|(id, state)| task(id, STATES[state], Some(spec("a"))));
            let mut offer = message(sequence + 1, version, full, tasks.collect());
            offer.term = term;
            match intake.accept(&held, offer) {
                Ok(Some(next)) => {
                    sequence += 1;
                    prop_assert!(next.stamp >= held.stamp);
                    for (id, task) in &next.tasks {
                        if let Some(before) = held.tasks.get(id) {
                            prop_assert!(task.desired >= before.desired);
                        }
                    }
                    held = next;
                }
                Ok(None) => unreachable!("nothing comes in parts"),
                Err(_) => {
                    intake = Intake::default();
                    sequence = 0;
                }
            }
        }
    }
}
