use cluster_pb::types::v1 as pb;

use super::*;

fn rich() -> pb::Service {
    let http = pb::probe::Check::Http(pb::probe::Http { port: 80, path: "/healthz".into() });
    let probe = pb::Probe { check: Some(http), interval_ms: Some(10_000), ..Default::default() };
    let task = pb::TaskSpec {
        container: Some(pb::ContainerSpec { image: "web:2".into(), ..Default::default() }),
        health: Some(pb::Health { liveness: Some(probe), ..Default::default() }),
        spread_over: vec!["node.labels.rack".into()],
        max_per_node: 2,
        affinities: vec![pb::Affinity { service: "db".into(), weight: -50, ..Default::default() }],
        generic: [("gpu".to_owned(), 1)].into(),
        host_ports: vec![pb::PortSpec { published: 9000, target: 90, host: true }],
        drain_timeout_ms: 5_000,
        restart: Some(pb::RestartPolicy {
            max_attempts: Some(3),
            window_ms: Some(600_000),
            ..Default::default()
        }),
        ..Default::default()
    };
    let event = |at_ms, text: &str| pb::Event { at_ms, text: text.into() };
    pb::Service {
        id: "s1".into(),
        version: 9,
        created_at_ms: 1_000,
        updated_at_ms: 50_000,
        revision: 2,
        previous: 1,
        running: 2,
        desired: 3,
        outdated: 1,
        spec: Some(pb::ServiceSpec {
            name: "web".into(),
            replicas: 3,
            task: Some(task),
            update: Some(pb::UpdatePolicy {
                parallelism: "25%".into(),
                delay_ms: 1_500,
                canary: 1,
                max_failure_ratio_ppm: 250_000,
                ..Default::default()
            }),
            ..Default::default()
        }),
        rollout: Some(pb::Rollout {
            kind: "update".into(),
            state: "paused".into(),
            from: 1,
            to: 2,
            since_ms: 50_000,
            total: 3,
            done: 1,
            failures: 1,
            message: "task t9 of slot 2 failed".into(),
            ..Default::default()
        }),
        events: vec![event(1_000, "created"), event(50_000, "paused")],
        ..Default::default()
    }
}

#[test]
fn everything_about_a_service_stands_in_lines() {
    let text = describe(&ServiceView::from(rich()), 60_000);
    let expected = "\
id:                s1
name:              web
mode:              replicated
replicas:          2/3 (max 2 per node), 1 still of an older revision
update status:     update from revision 1 to 2 paused 10 seconds ago, 1 of 3 moved, 1 failed: task t9 of slot 2 failed
image:             web:2
ports:             node:9000->90/tcp
reservations:      gpu=1
health:            http 80/healthz, every 10s, 30s of patience, 3 retries
restart:           any, with back-off, at most 3 times in 10m
stop:              5s to end connections, 10000 ms of grace
update:            25% at once, stop-first, 1s500ms between, watched for 5s, pause when more than 25% failed or nothing moved for 10m, canary of 1 promoted by hand
rollback:          1 at once, stop-first, watched for 5s, pause when more than 0% failed or nothing moved for 10m
silent node:       replace
priority:          50
max unavailable:   1
spread over:       node.labels.rack
affinities:        service=db (-50)
per node:          at most 2
revision:          2
previous revision: 1
version:           9
created:           1970-01-01T00:00:01.000Z
updated:           1970-01-01T00:00:50.000Z
events:
  10 seconds ago  paused
  59 seconds ago  created
";
    assert_eq!(text, expected);
}

#[test]
fn a_scheduled_job_shows_when_it_is_launched() {
    let mut service = rich();
    let spec = service.spec.as_mut().unwrap();
    spec.mode = pb::service_spec::Mode::ReplicatedJob.into();
    spec.job = Some(pb::JobPolicy {
        schedule: Some(pb::Schedule { cron: "*/5 * * * *".into(), ..Default::default() }),
        max_run_duration_ms: Some(3_600_000),
        ..Default::default()
    });
    service.run = Some(pb::JobRun { outcome: "unfinished".into(), ..Default::default() });
    service.next_launch_ms = 120_000;
    let text = describe(&ServiceView::from(service), 60_000);
    for line in [
        "mode:              replicated-job",
        "replicas:          next in 1m, 1 still of an older revision",
        "schedule:          */5 * * * * in UTC, overlap forbid, keeps 3 that succeeded and 1 that failed",
        "next launch:       1970-01-01T00:02:00.000Z (in 1m)",
        "longest run:       1h",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line} is not in:\n{text}");
    }
    assert!(!text.contains("rollback:"), "jobs have no rollouts:\n{text}");
}
