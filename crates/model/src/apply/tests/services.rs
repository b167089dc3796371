//! Services and their ports.

use super::fixture::{Fixture, WEB, new_task, spec};
use crate::command::{Command, Refusal, Reply};
use crate::endpoint;
use crate::id::{NodeId, ServiceId};
use crate::service::REVISIONS_KEPT;
use crate::spec::Mode;
use crate::task::{Desired, Observed, Reason};

const OTHER: ServiceId = ServiceId(2);

fn remove(fixture: &mut Fixture, id: ServiceId) -> Result<Reply, Refusal> {
    fixture.apply(Command::RemoveService { id, at_ms: 9, version: None })
}

#[test]
fn names_ids_and_ports_are_taken_once() {
    let mut fixture = Fixture::web();
    let taken = Refusal::NameTaken { kind: "service".into(), name: "web".into() };
    assert_eq!(fixture.create(OTHER, spec("web", &[])), Err(taken));
    let taken = Refusal::IdTaken(WEB.to_string());
    assert_eq!(fixture.create(WEB, spec("other", &[])), Err(taken));
    let taken = Refusal::PortTaken { port: 80, service: "web".into() };
    assert_eq!(fixture.create(OTHER, spec("other", &[(80, 80)])), Err(taken.clone()));
    fixture.create(OTHER, spec("other", &[(81, 80)])).expect("created");
    let update = fixture.update(OTHER, |spec| spec.ports[0].published = 80);
    assert_eq!(update, Err(taken));
    assert_eq!(fixture.state.port_owner(81), Some(OTHER));
}

#[test]
fn ports_that_are_asked_for_by_zero_are_chosen_and_kept() {
    let mut fixture = Fixture::web();
    fixture.create(OTHER, spec("other", &[(0, 90), (30_000, 91), (0, 92)])).expect("created");
    let ports = |fixture: &Fixture| {
        let service = fixture.state.service(OTHER).expect("known");
        service.ports.iter().map(|port| (port.published, port.target)).collect::<Vec<_>>()
    };
    assert_eq!(ports(&fixture), [(30_000, 91), (30_001, 90), (30_002, 92)]);
    fixture.update(OTHER, |spec| spec.ports = spec.ports.split_off(1)).expect("updated");
    assert_eq!(ports(&fixture), [(30_000, 91), (30_002, 92)]);
    assert_eq!(fixture.state.port_owner(30_001), None);
}

#[test]
fn dynamic_ports_run_out_with_a_word() {
    let mut fixture = Fixture::default();
    let mut refused = None;
    for id in 1..=11 {
        let mut wide = spec(&format!("s{id}"), &[]);
        let ports = (1..=256).map(|target| crate::spec::PortSpec { published: 0, target });
        wide.ports = ports.collect();
        if let Err(refusal) = fixture.create(ServiceId(id), wide) {
            refused = Some((id, refusal));
        }
    }
    assert_eq!(refused, Some((11, Refusal::NoFreePort)));
}

#[test]
fn an_update_needs_the_version_that_was_read_and_the_same_name() {
    let mut fixture = Fixture::web();
    let read = fixture.state.service(WEB).expect("known").version;
    fixture.update(WEB, |spec| spec.mode = Mode::Replicated { replicas: 5 }).expect("updated");
    let service = fixture.state.service(WEB).expect("known");
    assert_eq!((service.revision, service.spec.replicas()), (1, 5));
    let (current, stale) = (service.version, service.spec.clone());
    let command =
        Command::UpdateService { id: WEB, version: read, spec: stale, at_ms: 5, give_up: vec![] };
    let moved = Refusal::VersionMoved { kind: "service".into(), read, current };
    assert_eq!(fixture.apply(command), Err(moved));
    let renamed = fixture.update(WEB, |spec| spec.name = "new".into());
    assert_eq!(renamed, Err(Refusal::Immutable { field: "name".into() }));
}

#[test]
fn a_change_of_the_task_is_a_new_revision_and_old_ones_go_when_unused() {
    let mut fixture = Fixture::web();
    fixture.running(10, 1, 1);
    for count in 1..=20 {
        fixture.update(WEB, |spec| spec.task.force_update = count).expect("updated");
    }
    let service = fixture.state.service(WEB).expect("known");
    assert_eq!(service.revision, 21);
    assert!(service.revisions.contains_key(&1), "a task runs it");
    assert!(service.revisions.contains_key(&21));
    assert!(service.revisions.len() <= REVISIONS_KEPT);
    assert_eq!(fixture.state.usage(NodeId(1)).reserved.memory_bytes, 64 << 20);
}

#[test]
fn a_removed_service_stays_until_its_last_task_is_gone_but_frees_name_and_port() {
    let mut fixture = Fixture::web();
    fixture.running(10, 1, 1);
    fixture.add(11, new_task(2, Desired::Running));
    remove(&mut fixture, WEB).expect("removed");
    assert!(fixture.state.service(WEB).is_some_and(|service| service.removed));
    assert_eq!(fixture.state.task_count(), 1, "what never had a node is gone at once");
    assert_eq!(
        (fixture.task(10).desired, &fixture.task(10).reason),
        (Desired::Remove, &Reason::ServiceRemoved)
    );
    assert!(endpoint::of_service(&fixture.state, WEB).is_none());
    let missing = Refusal::NotFound { kind: "service".into(), id: WEB.to_string() };
    assert_eq!(remove(&mut fixture, WEB), Err(missing.clone()));
    fixture.create(OTHER, spec("web", &[(80, 80)])).expect("name and port are free");
    assert!(fixture.report(1, 10, Observed::Shutdown));
    assert!(fixture.state.service(WEB).is_none());
    assert_eq!(fixture.state.service_named("web"), Some(OTHER));
    assert_eq!(fixture.state.port_owner(80), Some(OTHER));
    assert_eq!(remove(&mut fixture, WEB), Err(missing));
}

#[test]
fn a_removed_service_goes_with_the_node_of_its_last_task() {
    let mut fixture = Fixture::web();
    fixture.running(10, 1, 1);
    remove(&mut fixture, WEB).expect("removed");
    assert!(fixture.node_down(1));
    assert!(fixture.state.service(WEB).is_none());
}

#[test]
fn endpoints_follow_what_runs_and_their_version_every_change() {
    let mut fixture = Fixture::web();
    let version = fixture.state.endpoints_version();
    fixture.running(10, 1, 1);
    assert_eq!(fixture.state.endpoints_version(), fixture.index);
    assert!(fixture.state.endpoints_version() > version);
    let endpoints = endpoint::of_service(&fixture.state, WEB).expect("published");
    assert_eq!(endpoints.backends.len(), 1);
    assert_eq!(endpoints.backends[0].address, "10.0.0.1");
    let version = fixture.state.endpoints_version();
    fixture.add(11, new_task(2, Desired::Running));
    assert_eq!(fixture.state.endpoints_version(), version, "nothing serves there yet");
    fixture.update(WEB, |spec| spec.ports[0].published = 81).expect("updated");
    assert_eq!(fixture.state.endpoints_version(), fixture.index);
}
