//! Every limit refuses with the field's path, and the value at the limit passes.

use super::*;
use crate::constraint::{Constraint, Key, Rule};
use crate::spec::rollout::PPM;
use crate::spec::{
    Affinity, AffinityTarget, Amount, Check, ContainerSpec, FailureAction, HostPort, Mode, Mount,
    MountKind, Order, PortSpec, Probe, Schedule,
};

fn spec() -> ServiceSpec {
    let container = ContainerSpec { image: "web:1".into(), ..ContainerSpec::default() };
    ServiceSpec {
        name: "web".into(),
        mode: Mode::Replicated { replicas: 2 },
        task: TaskSpec { container, ..TaskSpec::default() },
        ..ServiceSpec::default()
    }
}

fn job(completions: u32, max_concurrent: u32) -> Mode {
    Mode::ReplicatedJob { completions, max_concurrent }
}

fn scheduled(spec: &mut ServiceSpec) -> &mut Schedule {
    spec.mode = job(1, 0);
    spec.job.schedule.insert(Schedule {
        cron: "*/5 * * * *".into(),
        time_zone: String::new(),
        overlap: Default::default(),
        starting_deadline_ms: None,
        keep_succeeded: 3,
        keep_failed: 1,
    })
}

fn probe() -> Probe {
    Probe::new(Check::Http { port: 80, path: "/healthz".into() })
}

fn affinity(weight: i8) -> Affinity {
    Affinity { target: AffinityTarget::Service("db".into()), weight }
}

fn constraint(length: usize) -> Constraint {
    let value = "x".repeat(length - "node.labels.a==".len());
    Constraint { key: Key::NodeLabel("a".into()), rule: Rule::Equal(value) }
}

fn tmpfs(target: &str) -> Mount {
    let kind = MountKind::Tmpfs { size_bytes: 0 };
    Mount { kind, target: target.into(), read_only: false }
}

type Edit = fn(&mut ServiceSpec);

#[test]
fn good_specs_pass_up_to_the_limits() {
    let good: &[Edit] = &[
        |_| {},
        |s| s.name = "a".repeat(63),
        |s| s.name = "web-1_x.y".into(),
        |s| s.mode = Mode::Replicated { replicas: 0 },
        |s| s.mode = Mode::Replicated { replicas: REPLICAS_MAX },
        |s| s.task.limits.memory_bytes = 4 << 20,
        |s| s.task.reservations.cpu_nanos = 1_000_000,
        |s| s.ports = vec![PortSpec { published: 0, target: 80 }; 2],
        |s| s.task.container.env = vec![("A".into(), "x".repeat(ENVIRONMENT_BYTES_MAX - 3))],
        |s| s.task.container.mounts = vec![tmpfs("/a"), tmpfs("/b")],
        |s| s.task.container.stop_signal = Some("SIGRTMIN+3".into()),
        |s| s.update.canary = 2,
        |s| {
            s.update.canary = 5;
            s.mode = Mode::Replicated { replicas: 0 };
        },
        |s| {
            s.update.canary = 5;
            s.mode = Mode::Global;
        },
        |s| s.update.parallelism = Amount::Percent(100),
        |s| s.update.parallelism = Amount::Count(0),
        |s| s.update.max_failure_ratio_ppm = PPM,
        |s| s.update.delay_ms = DURATION_MAX_MS,
        |s| s.max_unavailable = Amount::Percent(1),
        |s| s.priority = 100,
        |s| s.disconnect = Disconnect::StopAfter { after_ms: 1_000 },
        |s| s.task.drain_timeout_ms = DURATION_MAX_MS,
        |s| s.task.health.readiness = Some(probe()),
        |s| s.task.health.liveness = Some(Probe { interval_ms: 1, retries: 1, ..probe() }),
        |s| s.task.placement.constraints = vec![constraint(CONSTRAINT_BYTES_MAX); LIST_MAX],
        |s| s.task.placement.spread_over = vec![Key::NodeHostname; 8],
        |s| s.task.placement.affinities = vec![affinity(-100); 64],
        |s| s.task.generic = [("gpu-a_1".to_owned(), 1)].into(),
        |s| {
            s.update.order = Order::StartFirst;
            s.task.placement.max_per_node = 1;
            s.task.host_ports = vec![HostPort { published: 80, target: 80 }];
        },
        |s| {
            s.task.restart.window_ms = Some(1_000);
            s.task.restart.max_attempts = Some(50);
        },
        |s| s.mode = job(1, 1),
        |s| s.mode = Mode::GlobalJob,
        |s| scheduled(s).cron = "x".repeat(256),
        |s| {
            s.name = "a".repeat(52);
            scheduled(s).starting_deadline_ms = Some(1_000);
            s.job.ttl_after_finished_ms = Some(0);
        },
    ];
    for (place, edit) in good.iter().enumerate() {
        let mut spec = spec();
        edit(&mut spec);
        assert_eq!(service(&spec), Ok(()), "case {place}");
    }
}

#[test]
fn bad_specs_are_refused_by_field() {
    let bad: &[(&str, Edit)] = &[
        ("name", |s| s.name = String::new()),
        ("name", |s| s.name = "a".repeat(64)),
        ("name", |s| s.name = "two words".into()),
        ("name", |s| s.name = "line\nbreak".into()),
        ("name", |s| s.name = "-web".into()),
        ("name", |s| s.name = "wéb".into()),
        ("replicas", |s| s.mode = Mode::Replicated { replicas: 1_000_000_000 }),
        ("labels", |s| drop(s.labels.insert("a b".into(), String::new()))),
        ("labels.a", |s| drop(s.labels.insert("a".into(), "x".repeat(5_000)))),
        ("ports[0].target", |s| s.ports = vec![PortSpec { published: 80, target: 0 }]),
        ("ports[1].published", |s| s.ports = vec![PortSpec { published: 80, target: 80 }; 2]),
        ("limits.memory", |s| s.task.limits.memory_bytes = (4 << 20) - 1),
        ("limits.cpu", |s| s.task.limits.cpu_nanos = 999_999),
        ("reservations.memory", |s| s.task.reservations.memory_bytes = u64::MAX),
        ("reservations.memory", |s| {
            s.task.limits.memory_bytes = 64 << 20;
            s.task.reservations.memory_bytes = 65 << 20;
        }),
        ("restart.delay", |s| s.task.restart.delay_ms = Some(u64::MAX)),
        ("image", |s| s.task.container.image = String::new()),
        ("image", |s| s.task.container.image = "web 1".into()),
        ("args", |s| s.task.container.args = vec!["a\0b".into()]),
        ("args", |s| s.task.container.args = vec!["x".repeat(300_000)]),
        ("env", |s| s.task.container.env = vec![("A".into(), "x".repeat(5_000_000))]),
        ("env[0]", |s| s.task.container.env = vec![("A=B".into(), String::new())]),
        ("workdir", |s| s.task.container.workdir = Some("etc".into())),
        ("workdir", |s| s.task.container.workdir = Some("/a/../b".into())),
        ("user", |s| s.task.container.user = Some("a b".into())),
        ("hostname", |s| s.task.container.hostname = Some("-".into())),
        ("stop_signal", |s| s.task.container.stop_signal = Some("SIG TERM".into())),
        ("stop_signal", |s| s.task.container.stop_signal = Some("SIGFOO".into())),
        ("stop_signal", |s| s.task.container.stop_signal = Some("65".into())),
        ("stop_signal", |s| s.task.container.stop_signal = Some("RTMAX-31".into())),
        ("stop_grace_period", |s| s.task.container.stop_grace_period_ms = u64::MAX),
        ("mounts[0].target", |s| s.task.container.mounts = vec![tmpfs("/")]),
        ("mounts[1].target", |s| s.task.container.mounts = vec![tmpfs("/a"), tmpfs("/a")]),
        ("mounts[0].source", |s| {
            let kind = MountKind::Bind { source: "relative".into() };
            s.task.container.mounts = vec![Mount { kind, ..tmpfs("/a") }];
        }),
        ("mounts[0].source", |s| {
            let kind = MountKind::Volume { name: "../up".into() };
            s.task.container.mounts = vec![Mount { kind, ..tmpfs("/a") }];
        }),
    ];
    refused(bad);
}

#[test]
fn bad_rollouts_are_refused_by_field() {
    refused(&[
        ("update.canary", |s| s.update.canary = 3),
        ("update.parallelism", |s| s.update.parallelism = Amount::Percent(250)),
        ("update.parallelism", |s| s.update.parallelism = Amount::Percent(0)),
        ("update.delay", |s| s.update.delay_ms = DURATION_MAX_MS + 1),
        ("update.monitor", |s| s.update.monitor_ms = u64::MAX),
        ("update.progress_deadline", |s| s.update.progress_deadline_ms = Some(u64::MAX)),
        ("update.max_failure_ratio", |s| s.update.max_failure_ratio_ppm = 2 * PPM),
        ("rollback.max_failure_ratio", |s| s.rollback.max_failure_ratio_ppm = PPM + 1),
        ("rollback.parallelism", |s| s.rollback.parallelism = Amount::Percent(101)),
        ("rollback.failure_action", |s| s.rollback.failure_action = FailureAction::Rollback),
        ("rollback.canary", |s| s.rollback.canary = 1),
        ("rollback.auto_promote", |s| s.rollback.auto_promote = true),
        ("max_unavailable", |s| s.max_unavailable = Amount::Percent(0)),
        ("max_unavailable", |s| s.max_unavailable = Amount::Percent(101)),
        ("priority", |s| s.priority = 101),
        ("disconnect.after", |s| s.disconnect = Disconnect::StopAfter { after_ms: 999 }),
        ("disconnect.after", |s| s.disconnect = Disconnect::StopAfter { after_ms: u64::MAX }),
        ("drain_timeout", |s| s.task.drain_timeout_ms = DURATION_MAX_MS + 1),
        ("restart.window", |s| s.task.restart.window_ms = Some(0)),
        ("restart.window", |s| s.task.restart.window_ms = Some(u64::MAX)),
        ("restart.max_delay", |s| s.task.restart.max_delay_ms = Some(1)),
        ("restart.max_attempts", |s| {
            s.task.restart.window_ms = Some(60_000);
            s.task.restart.max_attempts = Some(51);
        }),
    ]);
}

#[test]
fn bad_probes_are_refused_by_field() {
    let http = |path: &str| Check::Http { port: 80, path: path.into() };
    let bad = [
        ("interval", Probe { interval_ms: 0, ..probe() }),
        ("timeout", Probe { timeout_ms: 0, ..probe() }),
        ("start_interval", Probe { start_interval_ms: 0, ..probe() }),
        ("start_period", Probe { start_period_ms: u64::MAX, ..probe() }),
        ("retries", Probe { retries: 0, ..probe() }),
        ("retries", Probe { retries: 1_001, ..probe() }),
        ("port", Probe::new(Check::Tcp { port: 0 })),
        ("port", Probe::new(Check::Http { port: 0, path: "/".into() })),
        ("path", Probe::new(http("healthz"))),
        ("path", Probe::new(http(""))),
        ("path", Probe::new(http("/a b"))),
        ("path", Probe::new(http(&format!("/{}", "x".repeat(5_000))))),
        ("exec", Probe::new(Check::Exec(vec![]))),
        ("exec", Probe::new(Check::Exec(vec![String::new()]))),
        ("exec", Probe::new(Check::Exec(vec!["a\0".into()]))),
        ("exec", Probe::new(Check::Exec(vec!["x".repeat(20_000)]))),
    ];
    for (field, probe) in bad {
        let mut spec = spec();
        spec.task.health.startup = Some(probe.clone());
        assert_eq!(service(&spec).expect_err(field).field, format!("health.startup.{field}"));
        spec.task.health.startup = None;
        spec.task.health.readiness = Some(probe.clone());
        assert_eq!(service(&spec).expect_err(field).field, format!("health.readiness.{field}"));
        spec.task.health.readiness = None;
        spec.task.health.liveness = Some(probe);
        assert_eq!(service(&spec).expect_err(field).field, format!("health.liveness.{field}"));
    }
}

#[test]
fn bad_placements_are_refused_by_field() {
    refused(&[
        ("constraints[0]", |s| {
            s.task.placement.constraints = vec![constraint(CONSTRAINT_BYTES_MAX + 1)];
        }),
        ("constraints", |s| s.task.placement.constraints = vec![constraint(20); LIST_MAX + 1]),
        ("spread_over[0]", |s| s.task.placement.spread_over = vec![Key::NodeRole]),
        ("spread_over", |s| s.task.placement.spread_over = vec![Key::NodeHostname; 9]),
        ("affinities[0].weight", |s| s.task.placement.affinities = vec![affinity(0)]),
        ("affinities[0].weight", |s| s.task.placement.affinities = vec![affinity(101)]),
        ("affinities", |s| s.task.placement.affinities = vec![affinity(1); 65]),
        ("affinities[0].service", |s| {
            let target = AffinityTarget::Service("a b".into());
            s.task.placement.affinities = vec![Affinity { target, weight: 1 }];
        }),
        ("affinities[0].node", |s| {
            let target = AffinityTarget::Node(constraint(CONSTRAINT_BYTES_MAX + 1));
            s.task.placement.affinities = vec![Affinity { target, weight: 1 }];
        }),
        ("generic", |s| s.task.generic = [("g p u".to_owned(), 1)].into()),
        ("generic", |s| s.task.generic = [(String::new(), 1)].into()),
        ("generic.gpu", |s| s.task.generic = [("gpu".to_owned(), 0)].into()),
        ("generic", |s| s.task.generic = (0..65).map(|n| (format!("g{n}"), 1)).collect()),
        ("host_ports[0].published", |s| {
            s.task.host_ports = vec![HostPort { published: 0, target: 80 }];
        }),
        ("host_ports[1].published", |s| {
            s.task.host_ports = vec![HostPort { published: 80, target: 80 }; 2];
        }),
        ("host_ports[0].published", |s| {
            s.ports = vec![PortSpec { published: 80, target: 80 }];
            s.task.host_ports = vec![HostPort { published: 80, target: 81 }];
        }),
    ]);
}

#[test]
fn bad_jobs_are_refused_by_field() {
    refused(&[
        ("replicas", |s| s.mode = job(0, 0)),
        ("replicas", |s| s.mode = job(REPLICAS_MAX + 1, 0)),
        ("max_concurrent", |s| s.mode = job(2, 3)),
        ("update", |s| {
            s.mode = job(2, 0);
            s.update.order = Order::StartFirst;
        }),
        ("update", |s| {
            s.mode = Mode::GlobalJob;
            s.update.canary = 1;
        }),
        ("rollback", |s| {
            s.mode = job(2, 0);
            s.rollback.delay_ms = 1;
        }),
        ("ports", |s| {
            s.mode = job(2, 0);
            s.ports = vec![PortSpec { published: 80, target: 80 }];
        }),
        ("ports", |s| {
            s.mode = Mode::GlobalJob;
            s.task.host_ports = vec![HostPort { published: 80, target: 80 }];
        }),
        ("job.ttl_after_finished", |s| s.job.ttl_after_finished_ms = Some(1)),
        ("job.max_run_duration", |s| s.job.max_run_duration_ms = Some(1_000)),
        ("job.max_run_duration", |s| {
            s.mode = job(1, 0);
            s.job.max_run_duration_ms = Some(0);
        }),
        ("job.ttl_after_finished", |s| {
            s.mode = job(1, 0);
            s.job.ttl_after_finished_ms = Some(u64::MAX);
        }),
        ("job.schedule", |s| {
            scheduled(s);
            s.mode = Mode::Replicated { replicas: 1 };
        }),
        ("name", |s| {
            scheduled(s);
            s.name = "a".repeat(53);
        }),
        ("job.schedule.cron", |s| scheduled(s).cron = " ".into()),
        ("job.schedule.cron", |s| scheduled(s).cron = "x".repeat(257)),
        ("job.schedule.cron", |s| scheduled(s).cron = "* *\n* * *".into()),
        ("job.schedule.time_zone", |s| scheduled(s).time_zone = "x".repeat(65)),
        ("job.schedule.starting_deadline", |s| scheduled(s).starting_deadline_ms = Some(0)),
        ("job.schedule.keep_succeeded", |s| scheduled(s).keep_succeeded = 101),
        ("job.schedule.keep_failed", |s| scheduled(s).keep_failed = u32::MAX),
    ]);
}

fn refused(bad: &[(&str, Edit)]) {
    for (field, edit) in bad {
        let mut spec = spec();
        edit(&mut spec);
        let refusal = service(&spec).expect_err(field);
        assert_eq!(refusal.field, *field);
        let text = refusal.to_string();
        assert!(text.len() < 300 && !text.contains(char::is_control), "{text}");
    }
}
