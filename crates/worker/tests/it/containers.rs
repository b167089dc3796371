//! Probes, host ports, draining and fencing on real containers.

use std::time::{Duration, Instant};

use cluster_image::Healthcheck;
use cluster_pb::dispatcher::v1 as pb;
use cluster_pb::types::v1 as types;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::machine::{Machine, exec, http, on_a_machine, probe, processes, script, tcp};
use crate::manager::SOON;
use crate::site::{container, id};

fn health(liveness: Option<types::Probe>, readiness: Option<types::Probe>) -> types::Health {
    types::Health { liveness, readiness, ..Default::default() }
}

/// The next report of a running task that says this about readiness.
async fn readiness(
    session: &mut crate::manager::Session,
    task: u64,
    ready: bool,
) -> pb::TaskReport {
    loop {
        let report = session.recorded(&id(task), "running").await;
        if report.ready == ready {
            return report;
        }
    }
}

async fn connect(port: u16) -> std::io::Result<TcpStream> {
    TcpStream::connect(("127.0.0.1", port)).await
}

async fn runs(machine: &Machine, task: u64) -> bool {
    let found = machine.runtime.inspect(&container(task)).await.unwrap();
    found.is_some_and(|container| container.state == cluster_runtime::State::Running)
}

#[test]
fn a_hanging_probe_is_killed_with_its_children_and_ends_the_task() {
    on_a_machine(async |mut machine| {
        let scope = machine.start().await;
        let (mut session, _) = machine.manager.session().await;
        let hang = "sleep 7601 & setsid sleep 7602 & (setsid sleep 7603 &); \
                    test ! -e /tmp/hang && exit 0; echo stuck; sleep 7604; true";
        let liveness = types::Probe { timeout_ms: Some(400), ..probe(exec(hang)) };
        let task = script(1, "", |spec| spec.health = Some(health(Some(liveness), None)));
        session.assign(10, true, vec![task]).await;
        session.recorded(&id(1), "running").await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(processes("sleep 760") <= 3, "of the check that may be running just now");
        machine.shell(1, "touch /tmp/hang").await;
        let unready = readiness(&mut session, 1, false).await;
        assert!(unready.message.starts_with("unhealthy: "), "{unready:?}");
        let report = session.recorded(&id(1), "failed").await;
        assert_eq!(report.error, "unhealthy: sh: no answer within 400ms");
        assert_eq!(report.exit_code, Some(0), "it was asked politely");
        assert_eq!(processes("sleep 760"), 0);
        machine.stop(scope).await;
        machine
    });
}

#[test]
fn http_readiness_lets_traffic_come_and_go() {
    on_a_machine(async |mut machine| {
        let scope = machine.start().await;
        let (mut session, _) = machine.manager.session().await;
        let text = "mkdir /tmp/www; httpd -f -p 8080 -h /tmp/www &";
        let probes = health(None, Some(probe(http(8080, "/ok"))));
        let task = script(1, text, |spec| spec.health = Some(probes));
        session.assign(10, true, vec![task]).await;
        session.recorded(&id(1), "starting").await;
        let first = id(1);
        let early = session.report(&first, "running");
        assert!(tokio::time::timeout(Duration::from_millis(700), early).await.is_err());

        machine.shell(1, "echo ok > /tmp/www/ok").await;
        let up = readiness(&mut session, 1, true).await;
        machine.shell(1, "rm /tmp/www/ok").await;
        let down = readiness(&mut session, 1, false).await;
        assert!(down.message.contains("8080/ok: status 404"), "{down:?}");
        machine.shell(1, "echo ok > /tmp/www/ok").await;
        let again = readiness(&mut session, 1, true).await;
        assert!(again.message.is_empty());
        assert!(up.readiness < down.readiness && down.readiness < again.readiness);

        // A restarted worker goes on from there, with higher numbers.
        machine.shell(1, "rm /tmp/www/ok").await;
        readiness(&mut session, 1, false).await;
        machine.stop(scope).await;
        drop(session);
        let scope = machine.start().await;
        let (mut session, _) = machine.manager.session().await;
        let adopted = session.recorded(&id(1), "running").await;
        assert!(!adopted.ready && adopted.readiness > again.readiness, "{adopted:?}");
        machine.shell(1, "echo ok > /tmp/www/ok").await;
        readiness(&mut session, 1, true).await;
        machine.stop(scope).await;
        machine
    });
}

#[test]
fn a_slow_start_is_not_taken_for_a_failure() {
    on_a_machine(async |mut machine| {
        let scope = machine.start().await;
        let (mut session, _) = machine.manager.session().await;
        let text = "mkdir /tmp/www; sleep 2; httpd -f -p 8080 -h /tmp/www &";
        let impatient = |start_period_ms| types::Probe {
            retries: Some(1),
            start_period_ms,
            ..probe(tcp(8080))
        };
        let patient = script(1, text, |spec| {
            spec.health = Some(health(Some(impatient(30_000)), None));
        });
        let gated = script(2, text, |spec| {
            let startup = types::Probe { retries: Some(100), ..probe(tcp(8080)) };
            spec.health =
                Some(types::Health { startup: Some(startup), ..health(Some(impatient(0)), None) });
        });
        let hasty = script(3, text, |spec| spec.health = Some(health(Some(impatient(0)), None)));
        let begun = Instant::now();
        session.assign(10, true, vec![patient, gated, hasty]).await;
        let report = session.recorded(&id(3), "failed").await;
        assert!(report.error.contains("connecting to"), "{report:?}");
        for task in [1, 2] {
            assert!(session.recorded(&id(task), "running").await.ready);
        }
        assert!(begun.elapsed() > Duration::from_secs(2));
        machine.stop(scope).await;
        machine
    });
}

#[test]
fn the_image_s_healthcheck_is_honoured_also_after_a_restart() {
    on_a_machine(async |mut machine| {
        *machine.image.healthcheck.lock().unwrap() = Some(Healthcheck {
            test: vec!["CMD-SHELL".into(), "test -e /tmp/well || { echo I am ill; false; }".into()],
            interval_ns: 200_000_000,
            retries: 2,
            ..Default::default()
        });
        let scope = machine.start().await;
        let (mut session, _) = machine.manager.session().await;
        let ignoring = types::Health { ignore_image: true, ..Default::default() };
        let tasks = vec![
            script(1, "touch /tmp/well", |_| {}),
            script(2, "", |spec| spec.health = Some(ignoring)),
        ];
        session.assign(10, true, tasks).await;
        session.recorded(&id(1), "running").await;
        session.recorded(&id(2), "running").await;
        machine.stop(scope).await;
        drop(session);
        let scope = machine.start().await;
        let (mut session, _) = machine.manager.session().await;
        session.recorded(&id(1), "running").await;
        machine.shell(1, "rm /tmp/well").await;
        let report = session.recorded(&id(1), "failed").await;
        assert_eq!(report.error, "unhealthy: /bin/sh: exit code 1: I am ill");
        assert!(runs(&machine, 2).await);
        machine.stop(scope).await;
        machine
    });
}

fn echo(number: u64, published: u32, edit: impl FnOnce(&mut types::TaskSpec)) -> pb::Assignment {
    script(number, "nc -ll -p 7 -e cat &", |spec| {
        spec.host_ports = vec![types::PortSpec { published, target: 7, host: true }];
        edit(spec);
    })
}

/// A connection to the container, once it answers.
async fn answered(port: u16) -> TcpStream {
    let answer = async {
        loop {
            if let Ok(mut stream) = connect(port).await
                && stream.write_all(b"x").await.is_ok()
                && matches!(stream.read_u8().await, Ok(b'x'))
            {
                return stream;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, answer).await.expect("an answer")
}

#[test]
fn a_host_port_answers_until_its_task_leaves_and_is_refused_when_taken() {
    on_a_machine(async |mut machine| {
        let scope = machine.start().await;
        let (mut session, _) = machine.manager.session().await;
        let other = TcpListener::bind("0.0.0.0:9001").await.unwrap();
        session.assign(10, true, vec![echo(1, 9000, |_| {}), echo(2, 9001, |_| {})]).await;
        session.recorded(&id(1), "running").await;
        let report = session.recorded(&id(2), "rejected").await;
        assert!(report.error.contains("host port 9001") && report.error.contains("in use"));
        assert!(report.error.contains("publish another port"), "{report:?}");
        drop(other);
        drop(answered(9000).await);

        // It is there again after a restart of the worker.
        machine.stop(scope).await;
        drop(session);
        let scope = machine.start().await;
        let (mut session, _) = machine.manager.session().await;
        session.recorded(&id(1), "running").await;
        drop(answered(9000).await);
        let mut stop = echo(1, 9000, |_| {});
        stop.desired_state = "shutdown".into();
        session.assign(11, true, vec![stop]).await;
        session.recorded(&id(1), "shutdown").await;
        assert!(connect(9000).await.is_err());
        machine.stop(scope).await;
        machine
    });
}

#[test]
fn open_connections_get_their_time_before_the_stop_signal_and_no_more() {
    on_a_machine(async |mut machine| {
        let scope = machine.start().await;
        let (mut session, _) = machine.manager.session().await;
        let task = |number, port, drain_timeout_ms, desired: &str| {
            let mut task = echo(number, port, |spec| spec.drain_timeout_ms = drain_timeout_ms);
            task.desired_state = desired.into();
            task
        };
        let tasks =
            |desired: &str| vec![task(1, 9000, 30_000, desired), task(2, 9001, 1500, desired)];
        session.assign(10, true, tasks("running")).await;
        session.recorded(&id(1), "running").await;
        session.recorded(&id(2), "running").await;
        let (mut first, mut second) = (answered(9000).await, answered(9001).await);
        let asked = Instant::now();
        session.assign(11, false, tasks("shutdown")).await;
        // The second client stays for ever.
        let report = session.recorded(&id(2), "shutdown").await;
        let waited = asked.elapsed();
        assert!(
            waited >= Duration::from_millis(1500) && waited < Duration::from_secs(3),
            "{waited:?}"
        );
        assert_eq!(report.exit_code, Some(0));
        assert!(second.read_u8().await.is_err(), "cut when the container went");
        // The first is served, and nobody else is let in.
        assert!(connect(9000).await.is_err());
        first.write_all(b"y").await.unwrap();
        assert_eq!(first.read_u8().await.unwrap(), b'y');
        assert!(runs(&machine, 1).await);
        drop(first);
        session.recorded(&id(1), "shutdown").await;
        assert!(asked.elapsed() < Duration::from_secs(10));
        machine.stop(scope).await;
        machine
    });
}

#[test]
fn a_task_ends_by_itself_when_nobody_hears_its_node() {
    on_a_machine(async |mut machine| {
        let scope = machine.start().await;
        let (mut session, _) = machine.manager.session().await;
        let bounded = |number, text: &str| {
            let mut task = script(number, text, |spec| {
                spec.container.as_mut().unwrap().stop_grace_period_ms = Some(1000);
            });
            task.stop_after_ms = 2000;
            task
        };
        let other = script(3, "", |_| {});
        let tasks = || vec![bounded(1, ""), bounded(2, "trap '' TERM;"), other.clone()];
        session.assign(10, true, tasks()).await;
        for task in 1..=3 {
            session.recorded(&id(task), "running").await;
        }
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert!(runs(&machine, 1).await, "as long as it is heard");

        // The session stays, but what the worker says arrives nowhere that counts.
        machine.manager.set_hears(false);
        let cut = Instant::now();
        let gone = async |task| {
            while runs(&machine, task).await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            cut.elapsed()
        };
        let polite = gone(1).await;
        let killed = gone(2).await;
        // Counted from the sending of the last heartbeat that was heard.
        let slack = Duration::from_millis(600);
        // Of a busy machine.
        let late = Duration::from_millis(1500);
        let bound = Duration::from_secs(2);
        assert!(polite + slack > bound && polite < bound + late, "{polite:?}");
        let grace = Duration::from_secs(1);
        assert!(killed + slack > bound + grace && killed < bound + grace + late, "{killed:?}");
        assert!(runs(&machine, 3).await, "others run on");
        for task in [1, 2] {
            let report = session.recorded(&id(task), "lost").await;
            assert_eq!(report.error, "stopped by itself: no manager heard this node for 2 s");
        }
        machine.stop(scope).await;
        machine
    });
}

#[test]
fn without_any_manager_a_task_ends_by_itself_and_tells_so_later() {
    on_a_machine(async |mut machine| {
        let scope = machine.start().await;
        let (mut session, _) = machine.manager.session().await;
        let mut task = script(1, "", |_| {});
        task.stop_after_ms = 4000;
        session.assign(10, true, vec![task.clone()]).await;
        session.recorded(&id(1), "running").await;
        // Its contact is on disk a second after the session began at the latest.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        machine.manager.set_hears(false);
        machine.stop(scope).await;
        drop(session);
        let cut = Instant::now();
        assert!(runs(&machine, 1).await);
        tokio::time::sleep(Duration::from_millis(3000)).await;
        // The next process goes on counting where this one was.
        let scope = machine.start_alone().await;
        while runs(&machine, 1).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // One that counted afresh would take seven.
        assert!(cut.elapsed() < Duration::from_secs(6), "{:?}", cut.elapsed());
        machine.stop(scope).await;
        let scope = machine.start().await;
        let (mut session, _) = machine.manager.session().await;
        let report = session.recorded(&id(1), "lost").await;
        assert_eq!(report.error, "stopped by itself: no manager heard this node for 4 s");
        machine.stop(scope).await;
        machine
    });
}

#[test]
fn generic_resources_are_told_by_environment() {
    on_a_machine(async |mut machine| {
        let scope = machine.start().await;
        let (mut session, _) = machine.manager.session().await;
        let mut task = script(1, "", |spec| {
            spec.generic = [("gpu-a100".to_owned(), 2), ("licence".to_owned(), 3)].into();
        });
        let names = vec!["u1".to_owned(), "u2".to_owned()];
        task.generic = vec![pb::GenericHold { kind: "gpu-a100".into(), names }];
        session.assign(10, true, vec![task]).await;
        session.recorded(&id(1), "running").await;
        let env = machine.shell(1, "env | grep RESOURCE | sort").await;
        assert_eq!(env, "CLUSTER_RESOURCE_GPU_A100=u1,u2\nCLUSTER_RESOURCE_LICENCE=3\n");
        machine.stop(scope).await;
        machine
    });
}
