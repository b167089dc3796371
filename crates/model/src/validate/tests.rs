//! Every limit refuses with the field's path, and the value at the limit passes.

use super::*;
use crate::spec::{Mode, Mount, RestartPolicy};

fn spec() -> ServiceSpec {
    ServiceSpec {
        name: "web".into(),
        labels: Default::default(),
        mode: Mode::Replicated { replicas: 2 },
        task: TaskSpec {
            container: ContainerSpec {
                image: "web:1".into(),
                entrypoint: vec![],
                args: vec![],
                env: vec![],
                workdir: None,
                user: None,
                hostname: None,
                mounts: vec![],
                read_only: false,
                stop_signal: None,
                stop_grace_period_ms: 10_000,
                labels: Default::default(),
            },
            limits: Resources::default(),
            reservations: Resources::default(),
            restart: RestartPolicy::default(),
            ..TaskSpec::default()
        },
        ports: vec![],
        ..ServiceSpec::default()
    }
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
    for (field, edit) in bad {
        let mut spec = spec();
        edit(&mut spec);
        let refusal = service(&spec).expect_err(field);
        assert_eq!(refusal.field, *field);
        let text = refusal.to_string();
        assert!(text.len() < 300 && !text.contains(char::is_control), "{text}");
    }
}
