use clap::Parser;
use cluster_pb::types::v1::restart_policy::Condition;

use super::*;
use crate::Cli;
use crate::cli::Command;
use crate::commands::service::Verb;

fn spec(words: &[&str]) -> pb::ServiceSpec {
    let line = ["clusterctl", "service", "create"].iter().chain(words);
    let Command::Service(Verb::Create(args)) = Cli::try_parse_from(line).unwrap().command else {
        panic!("not a create")
    };
    build(&args).unwrap()
}

fn container(spec: &pb::ServiceSpec) -> &pb::ContainerSpec {
    spec.task.as_ref().unwrap().container.as_ref().unwrap()
}

#[test]
fn all_after_the_image_is_the_containers() {
    let spec = spec(&["--name", "a", "web:1", "--name", "b", "-p", "80", "--", "x"]);
    assert_eq!(spec.name, "a");
    assert_eq!(spec.replicas, 1);
    assert_eq!(container(&spec).image, "web:1");
    assert_eq!(container(&spec).args, ["--name", "b", "-p", "80", "--", "x"]);
}

#[test]
fn every_flag_reaches_its_field() {
    let spec = spec(&[
        "--replicas=3",
        "--publish",
        "8080:80/tcp",
        "-p",
        "90",
        "--env",
        "A=1",
        "-e",
        "B=x y",
        "--mount",
        "type=volume,source=v,target=/v",
        "--label",
        "l=1",
        "--container-label",
        "c=2",
        "--constraint",
        "node.labels.z==q",
        "--limit-cpu",
        "0.5",
        "--limit-memory",
        "64M",
        "--reserve-cpu",
        "0.25",
        "--reserve-memory",
        "32MiB",
        "--restart-condition",
        "on-failure",
        "--restart-delay",
        "5s",
        "--restart-max-attempts",
        "2",
        "--stop-grace-period",
        "1m",
        "--stop-signal",
        "SIGINT",
        "--user",
        "1:2",
        "--workdir",
        "/w",
        "--entrypoint",
        "sh -c 'a b'",
        "--hostname",
        "h",
        "--read-only",
        "--name",
        "web",
        "web:1",
    ]);
    let task = spec.task.as_ref().unwrap();
    let restart = task.restart.as_ref().unwrap();
    let container = container(&spec);
    assert_eq!((spec.name.as_str(), spec.replicas), ("web", 3));
    let port = |published, target| pb::PortSpec { published, target, host: false };
    assert_eq!(spec.ports, [port(8080, 80), port(0, 90)]);
    assert_eq!(container.env, ["A=1", "B=x y"]);
    assert_eq!(container.mounts[0].target, "/v");
    assert_eq!(spec.labels["l"], "1");
    assert_eq!(container.labels["c"], "2");
    assert_eq!(task.constraints, ["node.labels.z==q"]);
    let resources = |cpu_nanos, memory_bytes| Some(pb::Resources { cpu_nanos, memory_bytes });
    assert_eq!(task.limits, resources(500_000_000, 64 << 20));
    assert_eq!(task.reservations, resources(250_000_000, 32 << 20));
    assert_eq!(restart.condition(), Condition::OnFailure);
    assert_eq!((restart.delay_ms, restart.max_attempts), (Some(5_000), Some(2)));
    assert_eq!(container.stop_grace_period_ms, Some(60_000));
    assert_eq!(container.stop_signal.as_deref(), Some("SIGINT"));
    assert_eq!(container.user.as_deref(), Some("1:2"));
    assert_eq!(container.workdir.as_deref(), Some("/w"));
    assert_eq!(container.hostname.as_deref(), Some("h"));
    assert_eq!(container.entrypoint, ["sh", "-c", "a b"]);
    assert!(container.read_only);
}

#[test]
fn what_is_built_is_what_managers_accept() {
    let spec = spec(&["--name", "web", "-p", "80:80", "web:1"]);
    let decoded = cluster_wire::spec::service_spec_from_pb(spec).unwrap();
    cluster_model::validate::service(&decoded).unwrap();
}

#[test]
fn a_name_is_made_from_the_image() {
    for (image, start) in
        [("web:1", "web-"), ("host:5000/a/b-c:1@sha256:ff", "b-c-"), ("///", "service-")]
    {
        let name = name_for(image);
        assert!(name.starts_with(start), "{image} became {name}");
        assert_eq!(name.len(), start.len() + 5);
        cluster_model::validate::name("name", &name).unwrap();
    }
}

fn built(words: &[&str]) -> Result<pb::ServiceSpec, Error> {
    let line = ["clusterctl", "service", "create", "--name", "web"].iter().chain(words);
    let line = line.chain(&["web:1"]);
    let Command::Service(Verb::Create(args)) = Cli::parse_words(line).unwrap().command else {
        panic!("not a create")
    };
    let spec = build(&args)?;
    check::new(&spec)?;
    Ok(spec)
}

#[test]
fn modes_and_schedules() {
    use pb::service_spec::Mode as Wire;
    let spec = built(&["--mode", "global"]).unwrap();
    assert_eq!((spec.mode(), spec.replicas), (Wire::Global, 0));
    let spec =
        built(&["--mode", "replicated-job", "--replicas", "7", "--max-concurrent", "2"]).unwrap();
    assert_eq!((spec.mode(), spec.replicas, spec.max_concurrent), (Wire::ReplicatedJob, 7, 2));
    let spec = built(&[
        "--schedule",
        "*/5 * * * *",
        "--schedule-timezone",
        "Europe/Berlin",
        "--schedule-overlap",
        "replace",
        "--schedule-starting-deadline",
        "5m",
        "--schedule-keep-succeeded",
        "5",
        "--schedule-keep-failed",
        "0",
        "--ttl-after-finished",
        "0",
        "--max-run-duration",
        "1h",
    ])
    .unwrap();
    assert_eq!(spec.mode(), Wire::ReplicatedJob);
    let job = spec.job.unwrap();
    assert_eq!((job.ttl_after_finished_ms, job.max_run_duration_ms), (Some(0), Some(3_600_000)));
    assert_eq!(
        job.schedule,
        Some(pb::Schedule {
            cron: "*/5 * * * *".into(),
            time_zone: "Europe/Berlin".into(),
            overlap: pb::schedule::Overlap::Replace.into(),
            starting_deadline_ms: Some(300_000),
            keep_succeeded: Some(5),
            keep_failed: Some(0),
        })
    );
}

#[test]
fn rollouts_reach_their_policies() {
    use pb::update_policy::{FailureAction, Order};
    let flags = |prefix: &str| -> Vec<String> {
        [
            ("parallelism", "25%"),
            ("delay", "5s"),
            ("monitor", "10s"),
            ("order", "start-first"),
            ("failure-action", "continue"),
            ("max-failure-ratio", "0.25"),
            ("progress-deadline", "0"),
        ]
        .iter()
        .map(|(flag, value)| format!("--{prefix}-{flag}={value}"))
        .collect()
    };
    let all = [
        flags("update"),
        flags("rollback"),
        vec![
            "--update-canary=1".to_owned(),
            "--update-auto-promote".to_owned(),
            "--replicas=4".to_owned(),
        ],
    ]
    .concat();
    let spec = built(&all.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    let rollback = pb::UpdatePolicy {
        parallelism: "25%".into(),
        delay_ms: 5_000,
        monitor_ms: Some(10_000),
        order: Order::StartFirst.into(),
        failure_action: FailureAction::Continue.into(),
        max_failure_ratio_ppm: 250_000,
        progress_deadline_ms: Some(0),
        canary: 0,
        auto_promote: false,
    };
    let update = pb::UpdatePolicy { canary: 1, auto_promote: true, ..rollback.clone() };
    assert_eq!((spec.update, spec.rollback), (Some(update), Some(rollback)));
}

#[test]
fn probes_reach_their_fields() {
    use pb::probe::{Check, Exec, Http, Tcp};
    let spec = built(&[
        "--health-cmd=curl localhost",
        "--health-interval=1s",
        "--health-timeout=2s",
        "--health-retries=4",
        "--health-start-period=5s",
        "--health-start-interval=500ms",
        "--readiness-http=8080/ready",
        "--startup-tcp=8080",
    ])
    .unwrap();
    let health = spec.task.unwrap().health.unwrap();
    let command = ["/bin/sh", "-c", "curl localhost"].map(str::to_owned).to_vec();
    assert_eq!(
        health.liveness,
        Some(pb::Probe {
            check: Some(Check::Exec(Exec { command })),
            interval_ms: Some(1_000),
            timeout_ms: Some(2_000),
            retries: Some(4),
            start_period_ms: 5_000,
            start_interval_ms: Some(500),
        })
    );
    let check = |probe: Option<pb::Probe>| probe.unwrap().check.unwrap();
    let http = Check::Http(Http { port: 8080, path: "/ready".into() });
    assert_eq!(check(health.readiness), http);
    assert_eq!(check(health.startup), Check::Tcp(Tcp { port: 8080 }));
    let spec = built(&["--no-healthcheck"]).unwrap();
    assert!(spec.task.unwrap().health.unwrap().ignore_image);
}

#[test]
fn placement_and_restart_reach_their_fields() {
    let spec = built(&[
        "--placement-pref=spread=node.labels.rack",
        "--placement-pref=spread=node.hostname",
        "--placement-strategy=bin-pack",
        "--affinity=service=db,weight=70",
        "--anti-affinity=node.labels.ssd==true",
        "--generic-resource=gpu=2",
        "--priority=80",
        "--max-unavailable=25%",
        "--on-disconnect=stop-after=30s",
        "--drain-timeout=10s",
        "--replicas-max-per-node=2",
        "--publish=mode=host,published=8080,target=80",
        "--restart-window=10m",
        "--restart-max-attempts=3",
        "--restart-max-delay=30s",
    ])
    .unwrap();
    let task = spec.task.clone().unwrap();
    assert_eq!(task.spread_over, ["node.labels.rack", "node.hostname"]);
    assert_eq!((task.strategy.as_str(), task.max_per_node), ("bin-pack", 2));
    let weights: Vec<i32> = task.affinities.iter().map(|affinity| affinity.weight).collect();
    assert_eq!(weights, [70, -50]);
    assert_eq!(task.generic["gpu"], 2);
    assert_eq!(task.drain_timeout_ms, 10_000);
    assert_eq!((spec.priority, spec.max_unavailable.as_str()), (Some(80), "25%"));
    let disconnect = spec.disconnect.unwrap();
    assert_eq!(
        (disconnect.policy(), disconnect.after_ms),
        (pb::disconnect::Policy::StopAfter, 30_000)
    );
    assert_eq!(spec.ports, [pb::PortSpec { published: 8080, target: 80, host: true }]);
    let restart = task.restart.unwrap();
    assert_eq!((restart.window_ms, restart.max_delay_ms), (Some(600_000), Some(30_000)));
}

#[test]
fn contradictions_are_refused_with_the_flags_name() {
    for (words, said) in [
        (
            "--replicas=2 --update-canary=5",
            "--update-canary: 5 is more than the 2 replicas; write for example 1",
        ),
        (
            "--replicas-max-per-node=0",
            "--replicas-max-per-node: 0 would let no node run a task; write 1 or more, or leave the \
             flag out for no limit",
        ),
        (
            "--mode=global --replicas=3",
            "--replicas: a global service runs one task on each node; leave the flag out",
        ),
        (
            "--max-concurrent=2",
            "--max-concurrent: is only for replicated jobs, made with --mode replicated-job; a service \
             keeps the mode that it was created with",
        ),
        (
            "--mode=replicated-job --replicas=2 --max-concurrent=3",
            "--max-concurrent: 3 is more than the completions, 2; write at most that, or 0 for all \
             at once",
        ),
        (
            "--mode=replicated-job --replicas=0",
            "--replicas: is 0, but a job completes at least once; write 1 or more",
        ),
        (
            "--mode=replicated-job --publish=80:80",
            "--publish: are not for jobs, which end; publish ports of a service instead",
        ),
        (
            "--mode=replicated-job --update-delay=5s",
            "--update-…: is not for jobs: an update begins another run; leave the policy out",
        ),
        (
            "--mode=replicated --schedule=@daily",
            "--schedule: is only for the modes replicated-job and global-job",
        ),
        (
            "--schedule-overlap=allow",
            "--schedule-overlap: needs a schedule; add --schedule \"*/5 * * * *\"",
        ),
        (
            "--ttl-after-finished=1h",
            "--ttl-after-finished: is only for the modes replicated-job and global-job",
        ),
        (
            "--update-auto-promote",
            "--update-auto-promote: there are no canaries; add for example --update-canary 1",
        ),
        (
            "--health-interval=5s",
            "--health-interval: there is nothing to check; add --health-cmd, --health-http or \
             --health-tcp, such as --health-http 8080/healthz",
        ),
        (
            "--on-disconnect=stop-after=10ms",
            "--on-disconnect: 10ms is outside 1s to 7d; write for example 30s",
        ),
        ("--drain-timeout=8d", "--drain-timeout: 8d is more than 7d; write for example 30s"),
        (
            "--restart-window=1m --restart-max-attempts=51",
            "--restart-max-attempts: 51 is more than 50, the most that a window can count; write \
             for example 5, or take the window out",
        ),
        (
            "--publish=80:80 --publish=80:81",
            "--publish: 80 is published twice by this service; use another port",
        ),
        (
            "--generic-resource=gpu=1 --generic-resource=gpu=2",
            "--generic-resource: `gpu` is given \
             twice; add them up",
        ),
        (
            "--limit-memory=1K",
            "--limit-memory: 1024 bytes is outside 4 MiB to 1 PiB; write for example 64M",
        ),
        ("--replicas=1000000000", "--replicas: 1000000000 is more than 100000"),
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        let error = built(&words).expect_err(said);
        assert_eq!(error.message, said);
        assert_eq!(error.exit.code(), 2, "{said}");
    }
}
