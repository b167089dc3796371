//! One more process in a running container.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::contract::bench::{running, shell};
use crate::contract::isolation::CONFINEMENT;
use crate::contract::{Bench, case_list, eventually, within};
use crate::error::Error;
use crate::exec::{ExecExit, ExecSpec};
use crate::spec::{ContainerId, ContainerSpec};

case_list! {
    |caps| caps.exec && caps.real => [
        exec_gives_output_and_code, exec_reads_stdin, exec_is_as_confined_as_the_container,
        exec_has_its_own_user_and_environment, exec_needs_a_running_container, exec_of_nothing_says_so,
        a_dropped_exec_is_killed, a_whole_exec_ends_with_its_children, many_execs_at_once,
    ],
}

async fn started(bench: &dyn Bench, spec: ContainerSpec) -> ContainerId {
    bench.runtime().create(&spec).await.expect("create");
    bench.runtime().start(&spec.id).await.expect("start");
    spec.id
}

/// Runs it to its end: code, output, errors.
pub async fn output(
    bench: &dyn Bench,
    id: &ContainerId,
    exec: ExecSpec,
) -> (ExecExit, String, String) {
    let mut session = within("exec", bench.runtime().exec(id, exec)).await.expect("exec");
    let (mut out, mut err) = (String::new(), String::new());
    let read = async {
        tokio::join!(
            session.stdout.read_to_string(&mut out),
            session.stderr.read_to_string(&mut err)
        )
    };
    let (out_read, err_read) = within("the output's end", read).await;
    out_read.expect("stdout");
    err_read.expect("stderr");
    let exit = within("exit", session.exit).await.expect("exit");
    (exit, out, err)
}

fn script(text: &str) -> ExecSpec {
    ExecSpec::new(["sh", "-c", text])
}

async fn exec_gives_output_and_code(bench: Arc<dyn Bench>) {
    let id = started(&*bench, running(&*bench, "exec")).await;
    let (exit, out, err) = output(&*bench, &id, script("echo out; echo err >&2; exit 6")).await;
    assert_eq!(
        (exit, out.as_str(), err.as_str()),
        (ExecExit { code: Some(6), signal: None }, "out\n", "err\n")
    );
    let (exit, _, _) = output(&*bench, &id, script("kill -9 $$")).await;
    assert_eq!(exit, ExecExit { code: None, signal: Some(9) });
    let (_, out, _) = output(
        &*bench,
        &id,
        script("cat /proc/1/comm; head -c 300000 /dev/zero | wc -c; ls /proc/self/fd"),
    )
    .await;
    assert_eq!(out, "sh\n300000\n0\n1\n2\n3\n", "no descriptor of ours but the listing's own");
}

async fn exec_reads_stdin(bench: Arc<dyn Bench>) {
    let id = started(&*bench, running(&*bench, "stdin")).await;
    let spec = ExecSpec { stdin: true, ..ExecSpec::new(["cat"]) };
    let mut session = bench.runtime().exec(&id, spec).await.expect("exec");
    let mut stdin = session.stdin.take().expect("stdin was asked for");
    let sent = vec![b'z'; 200_000];
    let (written, read) = tokio::join!(
        async {
            stdin.write_all(&sent).await.expect("write");
            drop(stdin);
        },
        async {
            let mut back = Vec::new();
            session.stdout.read_to_end(&mut back).await.expect("read");
            back
        }
    );
    let () = written;
    assert_eq!(read, sent);
    assert_eq!(within("exit", session.exit).await.expect("exit").code, Some(0));
    let (_, out, _) = output(&*bench, &id, script("wc -c")).await;
    assert_eq!(out.trim(), "0", "without stdin it is empty");
}

async fn exec_is_as_confined_as_the_container(bench: Arc<dyn Bench>) {
    for user in [None, Some("web")] {
        let name = format!("confined-{}", user.unwrap_or("root"));
        let mut spec = shell(&*bench, &name, &format!("{CONFINEMENT}; sleep 600"));
        spec.user = user.map(str::to_owned);
        let id = started(&*bench, spec).await;
        let (_, out, err) = output(&*bench, &id, script(CONFINEMENT)).await;
        within("the same lines", async {
            while crate::contract::logs::text(&*bench, &id).await != out {}
        })
        .await;
        assert!(out.contains("Seccomp:2\n") && out.contains("NoNewPrivs:1\n"), "{out}{err}");
        let (exit, _, err) = output(&*bench, &id, script("unshare -n true")).await;
        assert_ne!(exit.code, Some(0), "{err}");
        let (_, out, _) = output(&*bench, &id, script("for n in pid mnt ipc uts net cgroup; do [ $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) ] || readlink /proc/self/ns/$n; done; cat /proc/self/cgroup")).await;
        assert!(out.lines().all(|line| line.ends_with(":/")), "in the container's cgroups: {out}");
    }
}

async fn exec_has_its_own_user_and_environment(bench: Arc<dyn Bench>) {
    let mut spec = running(&*bench, "own");
    spec.user = Some("web".to_owned());
    spec.workdir = Some("/srv".into());
    spec.env = vec![("KEPT".into(), "1".into()), ("CHANGED".into(), "1".into())];
    let id = started(&*bench, spec).await;
    let asked = "id -u; pwd; echo $KEPT $CHANGED $FROM_IMAGE";
    let (_, out, _) = output(&*bench, &id, script(asked)).await;
    assert_eq!(out, "33\n/srv\n1 1 yes\n");
    let env = vec![("CHANGED".to_owned(), "2".to_owned())];
    let (_, out, _) = output(
        &*bench,
        &id,
        ExecSpec { env, user: Some("0".into()), workdir: Some("/tmp".into()), ..script(asked) },
    )
    .await;
    assert_eq!(out, "0\n/tmp\n1 2 yes\n");
}

async fn exec_needs_a_running_container(bench: Arc<dyn Bench>) {
    let runtime = bench.runtime();
    let spec = running(&*bench, "states");
    let refused = async || match runtime
        .exec(&spec.id, ExecSpec::new(["true"]))
        .await
        .err()
        .expect("refused")
    {
        Error::WrongState { state, .. } => state,
        other => panic!("{other}"),
    };
    runtime.create(&spec).await.expect("create");
    assert_eq!(refused().await, "not started");
    runtime.start(&spec.id).await.expect("start");
    runtime.signal(&spec.id, crate::Signal::KILL).await.expect("kill");
    within("exit", runtime.wait(&spec.id)).await.expect("wait");
    assert_eq!(refused().await, "exited");
}

async fn exec_of_nothing_says_so(bench: Arc<dyn Bench>) {
    let id = started(&*bench, running(&*bench, "nothing")).await;
    for (exec, named) in [
        (ExecSpec::new(["no-such-program"]), "no-such-program"),
        (ExecSpec { user: Some("stranger".into()), ..ExecSpec::new(["true"]) }, "stranger"),
        (ExecSpec::default(), "no command"),
    ] {
        let error = bench.runtime().exec(&id, exec).await.err().expect(named);
        assert_eq!(error.blames_command(), named == "no-such-program", "{error}");
        match error {
            Error::Refused { reason, .. } => assert!(reason.contains(named), "{named}: {reason}"),
            other => panic!("{named}: {other}"),
        }
    }
    assert_eq!(
        output(&*bench, &id, ExecSpec::new(["true"])).await.0.code,
        Some(0),
        "it still works"
    );
}

async fn a_dropped_exec_is_killed(bench: Arc<dyn Bench>) {
    let id = started(&*bench, running(&*bench, "dropped")).await;
    let session = bench.runtime().exec(&id, ExecSpec::new(["sleep", "4321"])).await.expect("exec");
    let runs = || {
        let processes = std::fs::read_dir("/proc").expect("proc").flatten();
        let wanted = b"sleep\x004321\x00";
        processes
            .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
            .any(|line| line == wanted)
    };
    eventually("it runs", runs).await;
    drop(session);
    eventually("it is gone", || !runs()).await;
}

/// Whatever it forks, also out of its session and away from its parent, and as another user.
async fn a_whole_exec_ends_with_its_children(bench: Arc<dyn Bench>) {
    let spec = running(&*bench, "whole");
    let id = started(&*bench, spec.clone()).await;
    let family = || {
        let processes = std::fs::read_dir("/proc").expect("proc").flatten();
        let lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        lines.filter(|line| line.starts_with(b"sleep\x0098")).count()
    };
    let forks = "sleep 9801 & setsid sleep 9802 & (setsid sleep 9803 &) ;";
    for user in ["0", "web"] {
        let whole = |end: &str| ExecSpec {
            whole: true,
            user: Some(user.to_owned()),
            ..script(&format!("{forks} {end}"))
        };
        let session = bench.runtime().exec(&id, whole("sleep 9804; true")).await.expect("exec");
        eventually("all run", || family() == 4).await;
        drop(session);
        eventually("all are gone", || family() == 0).await;
        let session = bench.runtime().exec(&id, whole("exit 3")).await.expect("exec");
        let exit = within("exit", session.exit).await.expect("exit");
        assert_eq!((exit.code, family()), (Some(3), 0), "nothing is left when the end is told");
    }
    // Only what was asked for: the container, and an exec of another kind.
    let session = bench.runtime().exec(&id, script("sleep 9805 & exit 0")).await.expect("exec");
    within("exit", session.exit).await.expect("exit");
    eventually("it runs on", || family() == 1).await;
    for folder in super::process::cgroups(&*bench, &spec) {
        let below = std::fs::read_dir(folder).expect("cgroup").flatten();
        assert!(below.into_iter().all(|entry| !entry.path().is_dir()), "no cgroup is left");
    }
}

async fn many_execs_at_once(bench: Arc<dyn Bench>) {
    let id = started(&*bench, running(&*bench, "storm")).await;
    let all = futures::future::join_all((0..20u8).map(|code| {
        let (bench, id) = (bench.clone(), id.clone());
        async move { output(&*bench, &id, script(&format!("echo {code}; exit {code}"))).await }
    }));
    for (code, (exit, out, _)) in (0..20u8).zip(within("twenty execs", all).await) {
        assert_eq!((exit.code, out), (Some(code), format!("{code}\n")));
    }
}
