//! Frozen lines: what runtime and shim say to each other and leave on disk. A shim runs on from the
//! release that started it, so each side meets the other's older and newer lines.
//!
//! `UPDATE_GOLDEN=1 cargo test -p cluster-runtime golden` writes the file anew; lines of a release
//! stay.

use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Backend;
use super::files::Record;
use super::protocol::{ExecRequest, Reply, Request};
use crate::observe::{Exit, ExitSource, State};
use crate::process::ProcessId;
use crate::signal::Signal;
use crate::spec::{ContainerSpec, ImageRoot, Limits, LogRotation, Mount};

fn exit() -> Exit {
    let source = ExitSource::Replayed;
    Exit { code: Some(3), signal: None, oom: true, at_unix_ms: 1_800_000_000_000, source }
}

fn spec() -> ContainerSpec {
    let image = ImageRoot {
        name: "web:1".into(),
        layers: vec!["/images/a".into(), "/images/b".into()],
        entrypoint: vec!["/web".into()],
        cmd: vec!["--fast".into()],
        env: vec!["A=1".into()],
        workdir: Some("/srv".into()),
        user: Some("web".into()),
        stop_signal: Some(Signal::INT),
    };
    let mut spec = ContainerSpec::new("task-1".parse().expect("an id"), image);
    spec.entrypoint = Some(vec!["/other".into()]);
    spec.args = Some(vec!["--slow".into()]);
    spec.env = vec![("B".into(), "2".into())];
    spec.hostname = Some("web-1".into());
    spec.mounts = vec![
        Mount::Bind { source: "/host".into(), target: "/here".into(), ro: true },
        Mount::Volume { host_path: "/volumes/v".into(), target: "/v".into(), ro: false },
        Mount::Tmpfs { target: "/tmp".into(), size: Some(1 << 20), mode: None },
    ];
    spec.limits =
        Limits { cpu_nanos: Some(500_000_000), memory_bytes: Some(64 << 20), pids: Some(100) };
    spec.read_only_root = true;
    spec.labels = [("service".to_owned(), "web".to_owned())].into();
    spec.netns = Some("/run/netns/x".into());
    spec.stop_signal = Some(Signal::TERM);
    spec.log = LogRotation { max_bytes: 1 << 20, max_files: 2 };
    spec
}

fn record() -> Record {
    Record {
        init: ProcessId { pid: 41, starttime: 1234, boot_id: "boot".into() },
        shim_pid: 40,
        backend: Backend::Libcontainer,
        runtime_id: "task-1-1".into(),
        cgroup: "/cluster/task-1".into(),
        created_unix_ms: 1_800_000_000_000,
        started_unix_ms: Some(1_800_000_000_001),
    }
}

fn exec() -> ExecRequest {
    ExecRequest {
        args: vec!["ls".into(), "-l".into()],
        env: vec![("A".into(), "1".into())],
        workdir: Some("/srv".into()),
        user: Some("web".into()),
        whole: true,
    }
}

/// What is written now, and whether a frozen line still reads as something that is written so.
type Line = (&'static str, String, fn(&str) -> String);

fn line<T: Serialize + DeserializeOwned>(name: &'static str, value: &T) -> Line {
    let text = serde_json::to_string(value).expect("it encodes");
    (name, text, |frozen| {
        let read: T = serde_json::from_str(frozen).unwrap_or_else(|e| panic!("{frozen}: {e}"));
        serde_json::to_string(&read).expect("it encodes")
    })
}

fn lines() -> Vec<Line> {
    vec![
        line("spec.json", &spec()),
        line("state.json", &record()),
        line("exit.json", &exit()),
        line("request-start", &Request::Start),
        line("request-kill", &Request::Kill(Signal::TERM)),
        line("request-state", &Request::State),
        line("request-wait", &Request::Wait),
        line("request-exec", &Request::Exec(exec())),
        line("reply-done", &Reply::Done),
        line("reply-pid", &Reply::Pid { pid: 41, at_unix_ms: 5 }),
        line(
            "reply-state",
            &Reply::State {
                state: State::Exited(exit()),
                pid: 41,
                created_unix_ms: 5,
                started_unix_ms: None,
            },
        ),
        line("reply-exited", &Reply::Exited(exit())),
        line("reply-exec-exited", &Reply::ExecExited { code: None, signal: Some(9) }),
        line("reply-wrong-state", &Reply::WrongState(State::Running)),
        line("reply-failed", &Reply::Failed("no such program".into())),
    ]
}

#[test]
fn lines_of_the_shim_read_and_write_as_ever() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/shim.lines");
    let lines = lines();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let text: String = lines.iter().map(|(name, text, _)| format!("{name} {text}\n")).collect();
        std::fs::write(&path, text).expect("the golden file");
    }
    let text = std::fs::read_to_string(&path).expect("the golden file");
    let frozen: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once(' ')).collect();
    let names = |lines: &[(&str, &str)]| lines.iter().map(|l| l.0.to_owned()).collect::<Vec<_>>();
    let now: Vec<(&str, &str)> = lines.iter().map(|(name, text, _)| (*name, &**text)).collect();
    assert_eq!(names(&frozen), names(&now), "run again with UPDATE_GOLDEN=1 for new lines");
    for ((name, then), (_, now, reread)) in frozen.iter().zip(&lines) {
        assert_eq!(now, then, "{name} is written otherwise");
        assert_eq!(reread(then), *then, "{name} reads as something else");
    }
}

/// An older worker does not say all of it; a newer one says more.
#[test]
fn what_the_other_side_does_not_say_or_we_do_not_know_is_passed_over() {
    let older = r#"{"exec":{"args":["ls"],"env":[],"workdir":null,"user":null}}"#;
    let Ok(Request::Exec(request)) = serde_json::from_str(older) else { panic!("{older}") };
    assert!(!request.whole);
    let newer = r#"{"exec":{"args":["ls"],"env":[],"workdir":null,"user":null,"tty":true}}"#;
    assert!(matches!(serde_json::from_str(newer), Ok(Request::Exec(_))));
}
