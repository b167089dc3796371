//! Agents' reports and what follows for the balancers.

use super::fixture::{Fixture, WEB, new_task};
use crate::command::{Command, Reply, StatusReport};
use crate::id::{NodeId, TaskId};
use crate::task::{Desired, Observed};

#[test]
fn reports_may_come_late_and_twice() {
    let mut fixture = Fixture::web();
    assert!(fixture.add(10, new_task(1, Desired::Running)));
    assert!(!fixture.report(1, 10, Observed::Running), "it has no node");
    assert!(fixture.assign(10, 1));
    assert!(!fixture.report(2, 10, Observed::Running), "it is not this node's");
    assert!(fixture.report(1, 10, Observed::Running));
    let since = fixture.task(10).status.started_at_ms;
    assert!(!fixture.report(1, 10, Observed::Running));
    assert!(!fixture.report(1, 10, Observed::Preparing));
    assert!(fixture.report(1, 10, Observed::Failed));
    assert!(!fixture.report(1, 10, Observed::Running));
    assert!(!fixture.report(1, 10, Observed::Lost));
    assert_eq!(fixture.task(10).status.started_at_ms, since);
    assert!(!fixture.report(1, 99, Observed::Running), "forgotten tasks are passed over");
}

#[test]
fn a_task_that_stops_serving_is_stamped_so_that_its_signal_can_wait() {
    let mut fixture = Fixture::web();
    fixture.running(10, 1, 1);
    assert_eq!(fixture.task(10).withdrawn, 0);
    assert!(fixture.desire(10, Desired::Shutdown));
    assert_eq!(fixture.task(10).withdrawn, fixture.index);
    assert_eq!(fixture.state.endpoints_version(), fixture.index);
    let stamped = fixture.index;
    assert!(fixture.desire(10, Desired::Remove));
    assert_eq!(fixture.task(10).withdrawn, stamped);
    assert!(fixture.report(1, 10, Observed::Shutdown));
    assert!(fixture.state.task(TaskId(10)).is_none(), "stopped, then forgotten");
}

#[test]
fn nothing_waits_for_the_balancers_where_nothing_is_published_or_nothing_served() {
    let mut fixture = Fixture::web();
    fixture.update(WEB, |spec| spec.ports.clear()).expect("updated");
    let version = fixture.state.endpoints_version();
    fixture.running(10, 1, 1);
    assert!(fixture.desire(10, Desired::Shutdown));
    assert_eq!((fixture.task(10).withdrawn, fixture.state.endpoints_version()), (0, version));

    let mut fixture = Fixture::web();
    assert!(fixture.add(10, new_task(1, Desired::Running)));
    assert!(fixture.assign(10, 1));
    assert!(fixture.desire(10, Desired::Shutdown));
    assert_eq!(fixture.task(10).withdrawn, 0);
}

#[test]
fn a_task_that_ends_by_itself_leaves_the_balancers_without_a_stamp() {
    let mut fixture = Fixture::web();
    fixture.running(10, 1, 1);
    assert!(fixture.report(1, 10, Observed::Failed));
    assert_eq!(fixture.task(10).withdrawn, 0);
    assert_eq!(fixture.state.endpoints_version(), fixture.index);
}

#[test]
fn a_message_changes_within_a_state_and_never_back() {
    let mut fixture = Fixture::web();
    assert!(fixture.add(10, new_task(1, Desired::Running)));
    assert!(fixture.assign(10, 1));
    assert!(fixture.report(1, 10, Observed::Starting));
    let mut says = |number: u64, text: &str| {
        let report = StatusReport {
            message: Some(text.into()),
            readiness: number,
            ..StatusReport::new(TaskId(10), Observed::Starting, 100)
        };
        let reports = vec![(NodeId(1), report)];
        let reply = fixture.apply(Command::RecordStatus { reports });
        let status = fixture.task(10).status.clone();
        assert!(!status.ready);
        (
            reply == Ok(Reply::Counted { taken: 1, refused: 0 }),
            status.details.message.as_deref().unwrap().to_owned(),
        )
    };
    assert_eq!(says(1, "a"), (true, "a".into()));
    assert_eq!(says(3, "c"), (true, "c".into()));
    assert_eq!(says(2, "b"), (false, "c".into()));
    assert_eq!(says(3, "c"), (false, "c".into()), "it is no news");
}
