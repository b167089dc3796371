//! Create, start, wait, stop, remove: what callers build on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;

use crate::contract::bench::{exiting, id, running, stubborn};
use crate::contract::{Bench, PATIENCE, case_list, within};
use crate::error::Error;
use crate::observe::{Event, ExitSource, State};
use crate::signal::Signal;
use crate::spec::{ContainerSpec, Mount};

case_list! {
    |_| true => [
        an_exit_code_is_told, wait_is_repeatable_and_late, wait_may_be_dropped, a_kill_is_told_as_signal,
        stop_lets_it_end, stop_kills_after_the_grace, stop_of_a_created_one_is_quick, create_is_idempotent,
        start_is_idempotent, remove_is_idempotent, a_live_one_needs_force, unknown_ids_are_not_found,
        labels_select, events_wake, bad_specs_name_the_field, twenty_at_once,
    ],
    |caps| caps.stats => [stats_cover_live_ones],
}

async fn an_exit_code_is_told(bench: Arc<dyn Bench>) {
    let runtime = bench.runtime();
    for code in [0, 1, 7, 255] {
        let spec = exiting(&*bench, &format!("c{code}"), code);
        runtime.create(&spec).await.expect("create");
        runtime.start(&spec.id).await.expect("start");
        let exit = within("exit", runtime.wait(&spec.id)).await.expect("wait");
        assert_eq!(
            (exit.code, exit.signal, exit.oom, exit.source),
            (Some(code), None, false, ExitSource::Observed)
        );
        assert_eq!(exit.is_success(), code == 0);
    }
}

async fn wait_is_repeatable_and_late(bench: Arc<dyn Bench>) {
    let runtime = bench.runtime();
    let spec = exiting(&*bench, "late", 3);
    runtime.create(&spec).await.expect("create");
    let early = tokio::spawn({
        let (runtime, id) = (runtime.clone(), spec.id.clone());
        async move { runtime.wait(&id).await }
    });
    runtime.start(&spec.id).await.expect("start");
    let first = within("early wait", early).await.expect("join").expect("wait");
    let second = within("late wait", runtime.wait(&spec.id)).await.expect("wait");
    assert_eq!(first, second);
    let seen = runtime.inspect(&spec.id).await.expect("inspect").expect("there");
    assert_eq!((seen.state, seen.pid), (State::Exited(first), None));
}

async fn wait_may_be_dropped(bench: Arc<dyn Bench>) {
    let runtime = bench.runtime();
    let spec = running(&*bench, "drop");
    runtime.create(&spec).await.expect("create");
    runtime.start(&spec.id).await.expect("start");
    for _ in 0..3 {
        let given_up = tokio::time::timeout(Duration::from_millis(5), runtime.wait(&spec.id)).await;
        assert!(given_up.is_err(), "it runs");
    }
    runtime.signal(&spec.id, Signal::KILL).await.expect("kill");
    assert_eq!(within("exit", runtime.wait(&spec.id)).await.expect("wait").signal, Some(9));
}

async fn a_kill_is_told_as_signal(bench: Arc<dyn Bench>) {
    let runtime = bench.runtime();
    let spec = running(&*bench, "kill");
    runtime.create(&spec).await.expect("create");
    runtime.start(&spec.id).await.expect("start");
    runtime.signal(&spec.id, Signal::KILL).await.expect("kill");
    let exit = within("exit", runtime.wait(&spec.id)).await.expect("wait");
    assert_eq!(
        (exit.code, exit.signal, exit.shell_code(), exit.oom_killed()),
        (None, Some(9), Some(137), false)
    );
    // The kernel, too, lets an ended process be signalled until it was waited for.
    runtime.signal(&spec.id, Signal::TERM).await.expect("signal after the end");
}

async fn stop_lets_it_end(bench: Arc<dyn Bench>) {
    let runtime = bench.runtime();
    let spec = running(&*bench, "stop");
    runtime.create(&spec).await.expect("create");
    runtime.start(&spec.id).await.expect("start");
    if runtime.caps().real {
        // Its trap is set once it says so.
        let mut lines =
            runtime.logs(&spec.id, crate::LogQuery { follow: true, ..Default::default() });
        within("first line", lines.next()).await.expect("line").expect("logs");
    }
    let began = Instant::now();
    let exit = within("stop", runtime.stop(&spec.id, Signal::TERM, PATIENCE)).await.expect("stop");
    assert!(began.elapsed() < PATIENCE / 2, "it ended by itself");
    if runtime.caps().real {
        assert_eq!(exit.code, Some(0));
    }
    assert_eq!(runtime.stop(&spec.id, Signal::TERM, PATIENCE).await.expect("stop again"), exit);
}

async fn stop_kills_after_the_grace(bench: Arc<dyn Bench>) {
    let runtime = bench.runtime();
    let spec = stubborn(&*bench, "stubborn");
    runtime.create(&spec).await.expect("create");
    runtime.start(&spec.id).await.expect("start");
    if runtime.caps().real {
        let mut lines =
            runtime.logs(&spec.id, crate::LogQuery { follow: true, ..Default::default() });
        within("first line", lines.next()).await.expect("line").expect("logs");
    }
    let grace = Duration::from_millis(200);
    let began = Instant::now();
    let exit = within("stop", runtime.stop(&spec.id, Signal::TERM, grace)).await.expect("stop");
    assert!(began.elapsed() >= grace);
    assert_eq!(exit.signal, Some(9));
}

async fn stop_of_a_created_one_is_quick(bench: Arc<dyn Bench>) {
    let runtime = bench.runtime();
    let spec = running(&*bench, "created");
    runtime.create(&spec).await.expect("create");
    let began = Instant::now();
    let exit = within("stop", runtime.stop(&spec.id, Signal::TERM, PATIENCE)).await.expect("stop");
    assert!(began.elapsed() < PATIENCE / 2, "no grace for what never ran");
    assert_eq!(exit.signal, Some(9));
    let refused = runtime.start(&spec.id).await.expect_err("start of an ended one");
    assert!(matches!(refused, Error::WrongState { .. }), "{refused}");
}

async fn create_is_idempotent(bench: Arc<dyn Bench>) {
    let runtime = bench.runtime();
    let spec = running(&*bench, "twice");
    let first = runtime.create(&spec).await.expect("create");
    assert_eq!(runtime.create(&spec).await.expect("create again"), first);
    let at_once = futures::future::join_all((0..5).map(|_| runtime.create(&spec))).await;
    assert!(at_once.into_iter().all(|created| created.is_ok_and(|created| created == first)));
    let other = ContainerSpec { hostname: Some("other".to_owned()), ..spec.clone() };
    let refused = runtime.create(&other).await.expect_err("another container of this id");
    assert!(matches!(refused, Error::Conflict { .. }) && refused.is_permanent(), "{refused}");
    runtime.remove(&spec.id, true).await.expect("remove");
    runtime.create(&other).await.expect("the id is free again");
}

async fn start_is_idempotent(bench: Arc<dyn Bench>) {
    let runtime = bench.runtime();
    let spec = running(&*bench, "starts");
    let created = runtime.create(&spec).await.expect("create");
    let first = runtime.start(&spec.id).await.expect("start");
    assert_eq!(first.pid, created.pid);
    assert_eq!(runtime.start(&spec.id).await.expect("start again"), first);
    let seen = runtime.inspect(&spec.id).await.expect("inspect").expect("there");
    assert_eq!(
        (seen.state, seen.pid, seen.started_unix_ms),
        (State::Running, Some(first.pid), Some(first.at_unix_ms))
    );
}

async fn remove_is_idempotent(bench: Arc<dyn Bench>) {
    let runtime = bench.runtime();
    let spec = exiting(&*bench, "gone", 0);
    runtime.create(&spec).await.expect("create");
    runtime.start(&spec.id).await.expect("start");
    within("exit", runtime.wait(&spec.id)).await.expect("wait");
    for _ in 0..2 {
        runtime.remove(&spec.id, false).await.expect("remove");
    }
    assert_eq!(runtime.inspect(&spec.id).await.expect("inspect"), None);
    runtime.create(&spec).await.expect("the id is free again");
}

async fn a_live_one_needs_force(bench: Arc<dyn Bench>) {
    let runtime = bench.runtime();
    let spec = running(&*bench, "live");
    runtime.create(&spec).await.expect("create");
    runtime.start(&spec.id).await.expect("start");
    let refused = runtime.remove(&spec.id, false).await.expect_err("it lives");
    assert!(matches!(refused, Error::WrongState { .. }), "{refused}");
    let waiting = tokio::spawn({
        let (runtime, id) = (runtime.clone(), spec.id.clone());
        async move { runtime.wait(&id).await }
    });
    tokio::task::yield_now().await;
    within("remove", runtime.remove(&spec.id, true)).await.expect("remove by force");
    match within("waiter", waiting).await.expect("join") {
        Ok(exit) => assert_eq!(exit.signal, Some(9)),
        Err(error) => assert!(matches!(error, Error::NotFound { .. }), "{error}"),
    }
}

async fn unknown_ids_are_not_found(bench: Arc<dyn Bench>) {
    let runtime = bench.runtime();
    let id = id("nobody");
    let not_found = |error: Error| assert!(matches!(error, Error::NotFound { .. }), "{error}");
    not_found(runtime.start(&id).await.expect_err("start"));
    not_found(runtime.signal(&id, Signal::TERM).await.expect_err("signal"));
    not_found(runtime.wait(&id).await.expect_err("wait"));
    not_found(runtime.stop(&id, Signal::TERM, Duration::ZERO).await.expect_err("stop"));
    not_found(runtime.stats(Some(&id)).await.expect_err("stats"));
    not_found(runtime.exec(&id, crate::ExecSpec::new(["true"])).await.err().expect("exec"));
    assert_eq!(runtime.inspect(&id).await.expect("inspect"), None);
    runtime.remove(&id, true).await.expect("remove");
}

async fn labels_select(bench: Arc<dyn Bench>) {
    let runtime = bench.runtime();
    let label = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    for (name, service) in [("a1", "a"), ("a2", "a"), ("b1", "b")] {
        let spec = ContainerSpec { labels: label("service", service), ..running(&*bench, name) };
        runtime.create(&spec).await.expect("create");
    }
    let names = async |labels: &BTreeMap<String, String>| {
        let found = runtime.list(labels).await.expect("list");
        found.into_iter().map(|container| container.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(&BTreeMap::new()).await, ["a1", "a2", "b1"]);
    assert_eq!(names(&label("service", "a")).await, ["a1", "a2"]);
    assert!(names(&label("other", "a")).await.is_empty());
}

async fn events_wake(bench: Arc<dyn Bench>) {
    let runtime = bench.runtime();
    let events = runtime.events();
    let spec = exiting(&*bench, "eventful", 5);
    runtime.create(&spec).await.expect("create");
    runtime.start(&spec.id).await.expect("start");
    within("exit", runtime.wait(&spec.id)).await.expect("wait");
    runtime.remove(&spec.id, false).await.expect("remove");
    let seen: Vec<Event> = within("events", events.take(4).collect()).await;
    let code = seen.iter().find_map(|event| match event {
        Event::Exited(_, exit) => exit.code,
        _ => None,
    });
    assert_eq!(code, Some(5));
    assert_eq!(
        (&seen[0], &seen[3]),
        (&Event::Created(spec.id.clone()), &Event::Removed(spec.id.clone()))
    );
    assert!(seen.contains(&Event::Started(spec.id)));
}

async fn bad_specs_name_the_field(bench: Arc<dyn Bench>) {
    let runtime = bench.runtime();
    let good = running(&*bench, "bad");
    let with = |change: fn(&mut ContainerSpec)| {
        let mut spec = good.clone();
        change(&mut spec);
        spec
    };
    let bad = [
        ("image.layers", with(|spec| spec.image.layers.clear())),
        ("args", with(|spec| spec.args = Some(Vec::new()))),
        ("env[0]", with(|spec| spec.env = vec![("A=B".into(), String::new())])),
        ("env", with(|spec| spec.env = vec![("BIG".into(), "x".repeat(5 << 20))])),
        (
            "env",
            with(|spec| {
                spec.env = (0..50).map(|n| (format!("V{n}"), "x".repeat(100 << 10))).collect()
            }),
        ),
        ("limits.memory_bytes", with(|spec| spec.limits.memory_bytes = Some(1 << 20))),
        ("limits.pids", with(|spec| spec.limits.pids = Some(0))),
        ("hostname", with(|spec| spec.hostname = Some("a b".into()))),
        ("workdir", with(|spec| spec.workdir = Some("../x".into()))),
        (
            "mounts[0].target",
            with(|spec| {
                spec.mounts =
                    vec![Mount::Tmpfs { target: "/a/../b".into(), size: None, mode: None }]
            }),
        ),
        ("log", with(|spec| spec.log.max_files = 0)),
    ];
    for (field, spec) in bad {
        match runtime.create(&spec).await.expect_err(field) {
            Error::Invalid { source, .. } => assert_eq!(source.field, field),
            other => panic!("{field}: {other}"),
        }
    }
    assert_eq!(runtime.inspect(&good.id).await.expect("inspect"), None);
}

async fn twenty_at_once(bench: Arc<dyn Bench>) {
    let runtime = bench.runtime();
    let specs: Vec<_> =
        (0..20).map(|number| exiting(&*bench, &format!("p{number}"), number)).collect();
    let codes = futures::future::join_all(specs.iter().map(async |spec| {
        runtime.create(spec).await.expect("create");
        runtime.start(&spec.id).await.expect("start");
        let exit = runtime.wait(&spec.id).await.expect("wait");
        runtime.remove(&spec.id, false).await.expect("remove");
        exit.code
    }));
    let codes = within("twenty containers", codes).await;
    assert_eq!(codes, (0..20).map(Some).collect::<Vec<_>>());
}

async fn stats_cover_live_ones(bench: Arc<dyn Bench>) {
    let runtime = bench.runtime();
    let live = running(&*bench, "busy");
    let ended = exiting(&*bench, "over", 0);
    for spec in [&live, &ended] {
        runtime.create(spec).await.expect("create");
        runtime.start(&spec.id).await.expect("start");
    }
    within("exit", runtime.wait(&ended.id)).await.expect("wait");
    let all = runtime.stats(None).await.expect("stats");
    assert_eq!(all.iter().map(|stats| &stats.id).collect::<Vec<_>>(), [&live.id]);
    let one = runtime.stats(Some(&live.id)).await.expect("stats");
    assert!(one[0].pids >= 1);
    if runtime.caps().real {
        assert!(one[0].cpu_usage_nanos > 0 && one[0].memory_bytes > 0);
    }
}
