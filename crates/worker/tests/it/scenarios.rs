use std::path::Path;
use std::time::Duration;

use cluster_identity::net::Net;
use cluster_identity::{Identity, Role, now_unix};
use cluster_pb::dispatcher::v1 as pb;
use cluster_pb::dispatcher::v1::manager_message::Item as Says;
use cluster_pb::dispatcher::v1::worker_message::Item as Told;
use cluster_pb::types::v1 as types;
use cluster_runtime::{Runtime, State};
use cluster_wire::{Code, Failure};
use cluster_worker::join;

use crate::manager::{Manager, SOON};
use crate::site::{Site, container, id, task};

async fn begin() -> (Manager, Site) {
    let manager = Manager::start().await;
    let site = Site::new(&manager);
    (manager, site)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_runs_leaves_the_balancers_stops_and_is_forgotten() {
    let (mut manager, mut site) = begin().await;
    let scope = site.start(&[manager.address()]).await;
    let (mut session, hello) = manager.session().await;
    let description = hello.description.unwrap();
    assert_eq!((description.boot, description.runtime.as_str()), (1, "simulated"));
    assert!(description.capacity.unwrap().memory_bytes > 0);

    session.assign(10, true, vec![task(1, "running")]).await;
    session.recorded(&id(1), "running").await;
    assert!(site.balancers.local().contains_key(&id(1)), "known to the mesh before it is reported");
    session.expect(|told| matches!(told, Told::Heartbeat(_)).then_some(())).await;

    let mut stop = task(1, "shutdown");
    stop.spec = None;
    stop.withdrawn = 11;
    session.assign(11, false, vec![stop]).await;
    // The signal waits for the balancers of other workers; a report would say it did not.
    let first = id(1);
    let early =
        tokio::time::timeout(Duration::from_millis(300), session.report(&first, "shutdown"));
    assert!(early.await.is_err(), "stopped before the balancers let go");
    session.say(Says::Withdrawn(pb::Withdrawn { version: 11 })).await;
    let report = session.recorded(&id(1), "shutdown").await;
    assert_eq!(report.exit_code, Some(143));
    site.has(&[&id(1)]).await;
    assert!(site.balancers.local().is_empty());

    session.change(12, false, vec![], vec![id(1)]).await;
    site.has(&[]).await;
    site.stop(scope).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_task_waits_for_its_start() {
    let (mut manager, mut site) = begin().await;
    let scope = site.start(&[manager.address()]).await;
    let (mut session, _) = manager.session().await;
    session.assign(10, true, vec![task(1, "ready")]).await;
    session.recorded(&id(1), "ready").await;
    let state = site.runtime.inspect(&container(1)).await.unwrap().unwrap().state;
    assert_eq!(state, State::Created);
    session.assign(11, false, vec![task(1, "running")]).await;
    session.recorded(&id(1), "running").await;
    site.stop(scope).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_are_told_with_their_cause() {
    let (mut manager, mut site) = begin().await;
    let scope = site.start(&[manager.address()]).await;
    let (mut session, _) = manager.session().await;
    let tasks = (1..=4).map(|number| task(number, "running")).collect();
    session.assign(10, true, tasks).await;
    for number in 1..=4 {
        session.recorded(&id(number), "running").await;
    }
    site.runtime.end(&container(1), Some(3), None);
    let report = session.recorded(&id(1), "failed").await;
    assert_eq!((report.exit_code, report.error.as_str()), (Some(3), "exited with code 3"));
    site.runtime.end(&container(2), None, Some(9));
    let report = session.recorded(&id(2), "failed").await;
    assert_eq!(report.error, "killed by signal 9 (SIGKILL)");
    site.runtime.out_of_memory(&container(3));
    let report = session.recorded(&id(3), "failed").await;
    assert!(report.oom && report.error.starts_with("out of memory"), "{report:?}");
    site.runtime.end(&container(4), Some(0), None);
    session.recorded(&id(4), "complete").await;
    // Kept until the managers let go: somebody may want the output.
    assert_eq!(site.containers().await.len(), 4);
    site.stop(scope).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_is_rejected_with_the_reason() {
    let (mut manager, mut site) = begin().await;
    let scope = site.start(&[manager.address()]).await;
    let (mut session, _) = manager.session().await;
    let with = |number, edit: fn(&mut types::ContainerSpec)| {
        let mut task = task(number, "running");
        task.revision = u32::try_from(number).unwrap();
        edit(task.spec.as_mut().unwrap().container.as_mut().unwrap());
        task
    };
    let tasks = vec![
        with(1, |spec| spec.image = "missing.invalid/web:1".into()),
        with(2, |spec| {
            spec.mounts = vec![types::Mount {
                kind: types::mount::Kind::Bind.into(),
                source: "/no/such/folder".into(),
                target: "/data".into(),
                ..Default::default()
            }];
        }),
        with(3, |spec| spec.stop_signal = Some("SIGNOPE".into())),
        with(4, |spec| spec.image = "Not An Image".into()),
    ];
    session.assign(10, true, tasks).await;
    let expected = [
        (1, "missing.invalid/web:1"),
        (2, "/no/such/folder does not exist"),
        (3, "SIGNOPE"),
        (4, "not an image reference"),
    ];
    for (number, text) in expected {
        let report = session.recorded(&id(number), "rejected").await;
        assert!(report.error.contains(text), "{report:?}");
    }
    assert!(site.containers().await.is_empty());
    site.stop(scope).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unanswered_reports_come_again_through_the_next_manager() {
    let (mut first, mut site) = begin().await;
    let scope = site.start(&[first.address()]).await;
    let (mut session, _) = first.session().await;
    session.assign(10, true, vec![task(1, "running"), task(2, "running")]).await;
    session.report(&id(1), "running").await;
    session.report(&id(2), "running").await;
    drop(session);

    let (mut session, _) = first.session().await;
    session.assign(10, true, vec![task(1, "running"), task(2, "running")]).await;
    session.recorded(&id(1), "running").await;
    session.recorded(&id(2), "running").await;
    site.runtime.end(&container(1), Some(1), None);
    session.recorded(&id(1), "failed").await;
    site.stop(scope).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn older_assignments_are_refused_and_change_nothing() {
    let (mut manager, mut site) = begin().await;
    let scope = site.start(&[manager.address()]).await;
    let (mut session, _) = manager.session().await;
    session.assign(10, true, vec![task(1, "running")]).await;
    session.recorded(&id(1), "running").await;
    drop(session);

    let (mut session, _) = manager.session().await;
    session.assign(9, true, vec![]).await;
    session.closed().await;
    assert_eq!(site.containers().await, [id(1)]);

    let (mut session, _) = manager.session().await;
    session.assign(10, true, vec![task(1, "running")]).await;
    // A lost message ends the session too.
    session
        .say(Says::Assignments(pb::Assignments {
            version: 11,
            term: 1,
            sequence: 3,
            ..Default::default()
        }))
        .await;
    session.closed().await;
    site.stop(scope).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_worker_adopts_what_runs_and_tells_what_it_missed() {
    let (mut manager, mut site) = begin().await;
    let scope = site.start(&[manager.address()]).await;
    let (mut session, _) = manager.session().await;
    let all = || (1..=3).map(|number| task(number, "running")).collect::<Vec<_>>();
    session.assign(10, true, all()).await;
    for number in 1..=3 {
        session.recorded(&id(number), "running").await;
    }
    let started = site.runtime.inspect(&container(1)).await.unwrap().unwrap().started_unix_ms;
    site.stop(scope).await;
    drop(session);
    site.runtime.end(&container(2), Some(7), None);

    // Without any manager everything is left alone, and looked after.
    let scope = site.start(&["127.0.0.1:9".to_owned()]).await;
    assert_eq!(site.containers().await.len(), 3);
    assert!(site.balancers.local().contains_key(&id(1)));
    site.stop(scope).await;

    let scope = site.start(&[manager.address()]).await;
    let (mut session, hello) = manager.session().await;
    assert_eq!(hello.description.unwrap().boot, 3);
    let missed = session.report(&id(2), "failed").await;
    assert_eq!(missed.exit_code, Some(7));
    // The managers have given task 3 up meanwhile: it goes, once they have said so.
    assert_eq!(site.containers().await.len(), 3);
    session.assign(12, true, vec![task(1, "running"), task(2, "running")]).await;
    site.has(&[&id(1), &id(2)]).await;
    let now = site.runtime.inspect(&container(1)).await.unwrap().unwrap().started_unix_ms;
    assert_eq!(started, now, "the same container");
    site.stop(scope).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_containers_are_removed_only_after_the_first_full_set() {
    let (mut manager, mut site) = begin().await;
    let scope = site.start(&[manager.address()]).await;
    let (mut session, _) = manager.session().await;
    session.assign(10, true, vec![task(1, "running")]).await;
    session.recorded(&id(1), "running").await;
    site.stop(scope).await;
    drop(session);
    // As if the disk had lost it.
    std::fs::write(site.dir.path().join("assignments"), b"damaged").unwrap();

    let scope = site.start(&[manager.address()]).await;
    let (mut session, _) = manager.session().await;
    session.expect(|told| matches!(told, Told::Heartbeat(_)).then_some(())).await;
    assert_eq!(site.containers().await, [id(1)]);
    session.assign(11, true, vec![]).await;
    site.has(&[]).await;
    let files = Path::new(site.dir.path()).join("tasks").join(id(1));
    let gone = async {
        while files.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, gone).await.expect("the task's files stay");
    site.stop(scope).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_was_rejected_is_not_tried_again_after_a_restart() {
    let (mut manager, mut site) = begin().await;
    let scope = site.start(&[manager.address()]).await;
    let (mut session, _) = manager.session().await;
    let mut bad = task(1, "running");
    bad.spec.as_mut().unwrap().container.as_mut().unwrap().image = "missing.invalid/x".into();
    session.assign(10, true, vec![bad.clone()]).await;
    session.report(&id(1), "rejected").await;
    site.stop(scope).await;
    drop(session);
    let scope = site.start(&[manager.address()]).await;
    let (mut session, _) = manager.session().await;
    bad.spec = task(1, "running").spec;
    session.assign(11, true, vec![bad]).await;
    session.recorded(&id(1), "rejected").await;
    assert!(site.containers().await.is_empty());
    site.stop(scope).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_reach_the_balancers_and_are_acknowledged() {
    let (mut manager, mut site) = begin().await;
    let scope = site.start(&[manager.address()]).await;
    let (mut session, _) = manager.session().await;
    let service = pb::ServiceEndpoints {
        service_id: id(900),
        service_name: "web".into(),
        ports: vec![types::PortSpec { published: 80, target: 8080, host: false }],
        backends: vec![pb::Backend {
            task_id: id(1),
            node_id: id(2),
            address: "10.0.0.2".into(),
            mesh_port: 7101,
        }],
        ..Default::default()
    };
    let full =
        pb::Endpoints { version: 7, full: true, services: vec![service], ..Default::default() };
    session.say(Says::Endpoints(full)).await;
    session.acknowledged(7).await;
    assert_eq!(site.balancers.followed().ports[0].backends[0].target_port, 8080);
    let gone = pb::Endpoints { version: 8, gone: vec![id(900)], ..Default::default() };
    session.say(Says::Endpoints(gone)).await;
    session.acknowledged(8).await;
    assert!(site.balancers.followed().ports.is_empty());
    drop(session);
    // A new session is told at once how far the balancers are.
    let (mut session, _) = manager.session().await;
    session.acknowledged(8).await;
    site.stop(scope).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_tasks_start_together() {
    let (mut manager, mut site) = begin().await;
    let scope = site.start(&[manager.address()]).await;
    let (mut session, _) = manager.session().await;
    session.assign(10, true, (1..=50).map(|number| task(number, "running")).collect()).await;
    for number in 1..=50 {
        session.recorded(&id(number), "running").await;
    }
    site.stop(scope).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn output_goes_to_the_manager_that_asked() {
    let (mut manager, mut site) = begin().await;
    let scope = site.start(&[manager.address()]).await;
    let (mut session, _) = manager.session().await;
    session.assign(10, true, vec![task(1, "running")]).await;
    session.recorded(&id(1), "running").await;
    let request = pb::LogRequest {
        request_id: "r1".into(),
        task_ids: vec![id(1), id(99)],
        follow: false,
        ..Default::default()
    };
    session.say(Says::LogRequest(request)).await;
    let lines = manager.lines(1).await;
    assert!(lines.iter().all(|line| line.task_id == id(1) && line.unix_nanos > 0));
    site.stop(scope).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_gives_an_identity_and_a_wrong_one_a_clear_refusal() {
    let manager = Manager::start().await;
    let other = Manager::start().await;
    let addresses = [manager.address()];
    let token = join::token(&manager.token(Role::Worker)).unwrap();
    let (identity, managers) =
        join::join(&addresses, &token, "w", SOON, &Net::default()).await.unwrap();
    assert_eq!(identity.role, Role::Worker);
    assert_eq!(managers, addresses);

    let dir = tempfile::tempdir().unwrap();
    identity.store(dir.path()).unwrap();
    let kept: Identity = join::kept(dir.path(), Some(&token)).unwrap().unwrap();
    assert_eq!(kept.node_id, identity.node_id);

    // A token of another cluster: for joining, and beside a folder that belongs to this one.
    let foreign = join::token(&other.token(Role::Worker)).unwrap();
    let error = join::join(&addresses, &foreign, "w", SOON, &Net::default()).await.unwrap_err();
    assert!(!error.is_unreachable());
    let text = format!("{:#}", anyhow::Error::new(error));
    assert!(text.contains("another cluster"), "{text}");
    let error = join::kept(dir.path(), Some(&foreign)).unwrap_err();
    assert!(matches!(error, join::Error::OtherCluster { .. }), "{error}");
    // A rotated one: right CA, wrong secret.
    let rotated = cluster_identity::JoinToken { secret: foreign.secret, ..token };
    let error = join::join(&addresses, &rotated, "w", SOON, &Net::default()).await.unwrap_err();
    assert!(error.to_string().contains("rotated"), "{error}");
    let error = join::token(&manager.token(Role::Manager)).unwrap_err();
    assert!(error.to_string().contains("--role worker"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_stops_what_it_runs_and_ends() {
    let (mut manager, mut site) = begin().await;
    let scope = site.start(&[manager.address()]).await;
    let (mut session, _) = manager.session().await;
    session.assign(10, true, vec![task(1, "running")]).await;
    session.recorded(&id(1), "running").await;
    session.refuse(Failure::new(Code::Removed, "gone").into()).await;
    let failure = tokio::time::timeout(SOON, scope.failed()).await.unwrap();
    assert!(failure.error.contains("removed from the cluster"), "{failure}");
    assert!(site.containers().await.is_empty());
    site.stop(scope).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_in_time_without_a_restart() {
    let mut manager = Manager::start().await;
    let minute = Duration::from_secs(60);
    let mut site = Site::with_certificate(&manager, minute * 9, minute * 10);
    let before = site.tls.leaf().not_after;
    let scope = site.start(&[manager.address()]).await;
    let (mut session, _) = manager.session().await;
    let renewed = async {
        while site.tls.leaf().not_after == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, renewed).await.unwrap();
    let kept = Identity::load(site.dir.path()).unwrap();
    assert_eq!(kept.not_after().unwrap(), site.tls.leaf().not_after);
    // The session that was open goes on.
    session.assign(10, true, vec![task(1, "running")]).await;
    session.recorded(&id(1), "running").await;
    site.stop(scope).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_slept_past_its_certificate_comes_back_as_the_same_node() {
    let mut manager = Manager::start().await;
    let hour = Duration::from_secs(3600);
    let mut site = Site::with_certificate(&manager, hour * 48, hour * 24);
    assert!(site.tls.leaf().not_after < now_unix());
    let scope = site.start(&[manager.address()]).await;
    let (mut session, _) = manager.session().await;
    session.assign(10, true, vec![task(1, "running")]).await;
    session.recorded(&id(1), "running").await;
    assert_eq!(manager.taken_back(), 1);
    let kept = Identity::load(site.dir.path()).unwrap();
    assert_eq!(kept.node_id, "00000000000w1");
    site.stop(scope).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_ca_is_taken_and_confirmed_while_tasks_run_on() {
    let mut manager = Manager::start().await;
    let mut site = Site::new(&manager);
    let scope = site.start(&[manager.address()]).await;
    let (mut session, _) = manager.session().await;
    session.assign(10, true, vec![task(1, "running")]).await;
    session.recorded(&id(1), "running").await;
    let before = site.tls.identity().ca_digests();
    let told = manager.replace_ca();
    session.say(Says::Trust(told.clone())).await;
    let confirmed = async {
        while manager.confirmed().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, confirmed).await.unwrap();
    let now = site.tls.identity();
    assert_eq!(now.ca_pem, told.cas);
    assert!(now.is_issued_by(&told.cas), "by the new one");
    let digests: Vec<String> = now.ca_digests().iter().map(ToString::to_string).collect();
    assert_eq!(manager.confirmed(), [digests]);
    let kept = Identity::load(site.dir.path()).unwrap();
    assert!(kept.knew_ca(site.dir.path(), &before[0]), "tokens of the old CA are known");
    // A node that was removed is refused from then on.
    let revoked = vec!["00000000000w7".to_owned()];
    session.say(Says::Trust(pb::Trust { revoked, confirm: false, ..told })).await;
    let denied = async {
        while !site.tls.is_denied("00000000000w7") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, denied).await.unwrap();
    session.assign(11, true, vec![task(1, "running"), task(2, "running")]).await;
    session.recorded(&id(2), "running").await;
    site.stop(scope).await;
}
