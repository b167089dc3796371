//! The same on a simulated machine, where time and answers are the test's.

use std::time::Duration;

use cluster_pb::dispatcher::v1 as pb;
use cluster_pb::dispatcher::v1::manager_message::Item as Says;
use cluster_pb::dispatcher::v1::worker_message::Item as Told;
use cluster_pb::types::v1 as types;
use cluster_runtime::{ExecAnswer, Runtime, State};
use tokio::net::TcpListener;

use crate::machine::{probe, tcp};
use crate::manager::{Manager, Session};
use crate::site::{Site, container, id, task};

async fn begin() -> (Manager, Site) {
    let manager = Manager::start().await;
    let site = Site::new(&manager);
    (manager, site)
}

fn with(number: u64, edit: impl FnOnce(&mut types::TaskSpec)) -> pb::Assignment {
    let mut task = task(number, "running");
    task.revision = u32::try_from(number).unwrap();
    edit(task.spec.as_mut().unwrap());
    task
}

fn check() -> types::Probe {
    let command = vec!["/check".to_owned()];
    probe(types::probe::Check::Exec(types::probe::Exec { command }))
}

async fn says(session: &mut Session, ready: bool) -> pb::TaskReport {
    loop {
        let report = session.recorded(&id(1), "running").await;
        if report.ready == ready {
            return report;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn liveness_and_readiness_differ() {
    let (mut manager, mut site) = begin().await;
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let number = port.local_addr().unwrap().port();
    let scope = site.start(&[manager.address()]).await;
    let (mut session, _) = manager.session().await;
    let probed = with(1, |spec| {
        spec.health = Some(types::Health {
            liveness: Some(check()),
            readiness: Some(probe(tcp(number.into()))),
            ..Default::default()
        });
    });
    session.assign(10, true, vec![probed]).await;
    says(&mut session, true).await;
    drop(port);
    let down = says(&mut session, false).await;
    assert!(down.message.starts_with("not ready: connecting to 127.0.0.1"), "{down:?}");
    let state = site.runtime.inspect(&container(1)).await.unwrap().unwrap().state;
    assert_eq!(state, State::Running, "only traffic goes");
    site.runtime.answer_exec("/check", ExecAnswer::Exit(7, "no database".into()));
    let report = session.recorded(&id(1), "failed").await;
    assert_eq!(report.error, "unhealthy: /check: exit code 7: no database");
    assert_eq!(report.exit_code, Some(143));
    site.stop(scope).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_unhealthy_stays_so_over_a_restart_of_the_worker() {
    let (mut manager, mut site) = begin().await;
    site.runtime.set_script(cluster_runtime::Script { ignore_stop: true, ..Default::default() });
    let scope = site.start(&[manager.address()]).await;
    let (mut session, _) = manager.session().await;
    let stubborn = with(1, |spec| {
        let container = spec.container.as_mut().unwrap();
        container.entrypoint = vec!["stubborn".into()];
        container.stop_grace_period_ms = Some(60_000);
        spec.health = Some(types::Health { liveness: Some(check()), ..Default::default() });
    });
    session.assign(10, true, vec![stubborn]).await;
    says(&mut session, true).await;
    site.runtime.answer_exec("/check", ExecAnswer::Exit(1, String::new()));
    let report = says(&mut session, false).await;
    assert!(report.message.starts_with("unhealthy: "), "{report:?}");
    site.stop(scope).await;
    drop(session);
    // It obeys at last, while nobody looks.
    site.runtime.end(&container(1), Some(0), None);
    let scope = site.start(&[manager.address()]).await;
    let (mut session, _) = manager.session().await;
    let report = session.recorded(&id(1), "failed").await;
    assert_eq!(report.error, "unhealthy: /check: exit code 1");
    site.stop(scope).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_waits_for_connections_and_is_cut_short_by_an_exit() {
    let (mut manager, mut site) = begin().await;
    let scope = site.start(&[manager.address()]).await;
    let (mut session, _) = manager.session().await;
    let drained = |number, desired: &str, withdrawn| {
        let mut task = with(number, |spec| spec.drain_timeout_ms = 60_000);
        (task.desired_state, task.withdrawn) = (desired.into(), withdrawn);
        task
    };
    let tasks =
        |desired, withdrawn| vec![drained(1, desired, withdrawn), drained(2, desired, withdrawn)];
    session.assign(10, true, tasks("running", 0)).await;
    for number in [1, 2] {
        session.recorded(&id(number), "running").await;
        site.balancers.set_busy(&id(number), true);
    }
    session.assign(11, false, tasks("shutdown", 11)).await;
    session.say(Says::Withdrawn(pb::Withdrawn { version: 11 })).await;
    let first = id(1);
    let early = session.report(&first, "shutdown");
    assert!(tokio::time::timeout(Duration::from_millis(800), early).await.is_err());
    site.balancers.set_busy(&id(1), false);
    let report = session.recorded(&id(1), "shutdown").await;
    assert_eq!(report.exit_code, Some(143));
    site.runtime.end(&container(2), Some(0), None);
    assert_eq!(session.recorded(&id(2), "shutdown").await.exit_code, Some(0));
    site.stop(scope).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_port_is_one_task_s() {
    let (mut manager, mut site) = begin().await;
    let scope = site.start(&[manager.address()]).await;
    let (mut session, _) = manager.session().await;
    let ported = |number| {
        with(number, |spec| {
            spec.host_ports = vec![types::PortSpec { published: 53, target: 5353, host: true }];
        })
    };
    session.assign(10, true, vec![ported(1)]).await;
    session.recorded(&id(1), "running").await;
    session.assign(11, false, vec![ported(2)]).await;
    let report = session.recorded(&id(2), "rejected").await;
    assert!(report.error.contains("host port 53"), "{report:?}");
    assert_eq!(site.balancers.host().len(), 1);
    site.runtime.end(&container(1), Some(0), None);
    session.recorded(&id(1), "complete").await;
    assert!(site.balancers.host().is_empty());
    session.assign(12, false, vec![ported(3)]).await;
    session.recorded(&id(3), "running").await;
    site.stop(scope).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_ends_when_cut_off_is_not_started_while_it_may_be() {
    let (mut manager, mut site) = begin().await;
    let scope = site.start(&[manager.address()]).await;
    let (mut session, _) = manager.session().await;
    let bounded = |desired: &str| {
        let mut task = task(1, desired);
        task.stop_after_ms = 300;
        task
    };
    session.assign(10, true, vec![bounded("ready")]).await;
    session.recorded(&id(1), "ready").await;
    manager.set_hears(false);
    tokio::time::sleep(Duration::from_millis(600)).await;
    session.assign(11, false, vec![bounded("running")]).await;
    let first = id(1);
    let early = session.report(&first, "running");
    assert!(tokio::time::timeout(Duration::from_millis(400), early).await.is_err());
    let state = site.runtime.inspect(&container(1)).await.unwrap().unwrap().state;
    assert_eq!(state, State::Created, "it is kept prepared");
    manager.set_hears(true);
    session.recorded(&id(1), "running").await;
    site.stop(scope).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_is_out_of_touch_itself_starts_no_such_task() {
    let (mut manager, mut site) = begin().await;
    manager.set_hears(false);
    let scope = site.start(&[manager.address()]).await;
    let (mut session, _) = manager.session().await;
    let mut bounded = task(1, "running");
    bounded.stop_after_ms = 60_000;
    let mut other = task(2, "running");
    other.revision = 2;
    session.assign(10, true, vec![bounded, other]).await;
    session.recorded(&id(2), "running").await;
    let first = id(1);
    let early = session.report(&first, "running");
    assert!(tokio::time::timeout(Duration::from_millis(400), early).await.is_err());
    manager.set_hears(true);
    session.recorded(&id(1), "running").await;
    site.stop(scope).await;
}

/// As when the disk is full: in the same session the managers hear why nothing happens, the container
/// that runs is left alone, and everything goes on once there is room again.
#[tokio::test(flavor = "multi_thread")]
async fn assignments_that_cannot_be_written_make_the_node_unhealthy_and_are_kept() {
    let (mut manager, mut site) = begin().await;
    let scope = site.start(&[manager.address()]).await;
    let (mut session, _) = manager.session().await;
    session.assign(10, true, vec![task(1, "running")]).await;
    session.recorded(&id(1), "running").await;

    let file = site.dir.path().join("assignments");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir_all(file.join("in-the-way")).unwrap();
    session.assign(11, false, vec![task(2, "running")]).await;
    let trouble = |wanted: &'static str| {
        move |told| match told {
            Told::Heartbeat(beat) if beat.trouble.contains(wanted) => Some(beat.trouble),
            _ => None,
        }
    };
    let told = session.expect(trouble("its assignments cannot be written down: ")).await;
    assert!(told.contains("assignments"), "{told}");
    // What comes meanwhile counts too.
    session.assign(12, false, vec![task(3, "running")]).await;
    session.expect(trouble("its assignments")).await;
    site.has(&[&id(1)]).await;

    std::fs::remove_dir_all(&file).unwrap();
    session.recorded(&id(2), "running").await;
    session.recorded(&id(3), "running").await;
    session
        .expect(|told| {
            matches!(told, Told::Heartbeat(beat) if beat.trouble.is_empty()).then_some(())
        })
        .await;
    assert!(file.is_file(), "acted on before it was written down");
    site.stop(scope).await;
}
