//! What the command finds: arguments, environment, user, folder; and what failures leave.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use crate::contract::bench::{id, running, shell, words};
use crate::contract::logs::text;
use crate::contract::{Bench, case_list, eventually, within};
use crate::error::Error;
use crate::observe::{Exit, State};
use crate::signal::Signal;
use crate::spec::{ContainerSpec, Mount};

case_list! {
    |caps| caps.real => [
        commands_combine_as_docker_does, environment_folder_user_and_host_name, image_user_by_name,
        signals_reach_the_command, failed_creates_leave_nothing, nothing_is_left_after_remove,
        what_cannot_be_executed_says_so,
    ],
    |caps| caps.real && caps.create_start_split => [the_command_starts_only_at_start],
}

/// Runs it to its end and gives what it wrote.
pub async fn run(bench: &dyn Bench, spec: &ContainerSpec) -> (Exit, String) {
    let runtime = bench.runtime();
    runtime.create(spec).await.expect("create");
    runtime.start(&spec.id).await.expect("start");
    let exit = within("exit", runtime.wait(&spec.id)).await.expect("wait");
    (exit, text(bench, &spec.id).await)
}

async fn commands_combine_as_docker_does(bench: Arc<dyn Bench>) {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let mut image = bench.image();
    image.entrypoint = owned(&["echo", "entry"]);
    image.cmd = owned(&["cmd"]);
    let plain = ContainerSpec::new(id("plain"), image);
    let args = ContainerSpec { id: id("args"), args: Some(owned(&["a b", "c"])), ..plain.clone() };
    let entrypoint = ContainerSpec {
        id: id("entry"),
        entrypoint: Some(owned(&["echo", "mine"])),
        ..plain.clone()
    };
    assert_eq!(run(&*bench, &plain).await.1, "entry cmd\n");
    assert_eq!(run(&*bench, &args).await.1, "entry a b c\n");
    assert_eq!(run(&*bench, &entrypoint).await.1, "mine\n");
}

async fn environment_folder_user_and_host_name(bench: Arc<dyn Bench>) {
    let script = "echo $FROM_IMAGE $REPLACED $OWN; pwd; id; hostname; echo $HOME; umask";
    let spec = ContainerSpec {
        env: vec![("REPLACED".into(), "spec".into()), ("OWN".into(), "a=b c".into())],
        workdir: Some("/srv/made/here".into()),
        user: Some("1000:2000".into()),
        hostname: Some("my-host.example".into()),
        ..shell(&*bench, "env", script)
    };
    let (exit, output) = run(&*bench, &spec).await;
    assert_eq!(exit.code, Some(0), "{output}");
    assert_eq!(
        output,
        "yes spec a=b c\n/srv/made/here\nuid=1000 gid=2000\nmy-host.example\n/\n0022\n"
    );
}

async fn image_user_by_name(bench: Arc<dyn Bench>) {
    let mut spec = shell(&*bench, "web", "id; echo $HOME; echo to the log > /dev/stdout");
    spec.image.user = Some("web".to_owned());
    let (_, output) = run(&*bench, &spec).await;
    assert_eq!(output, "uid=33(web) gid=34(web) groups=44(logs)\n/home/web\nto the log\n");
}

async fn signals_reach_the_command(bench: Arc<dyn Bench>) {
    let runtime = bench.runtime();
    let script =
        "trap 'echo hup' HUP; trap 'exit 9' USR1; echo ready; while :; do sleep 0.02; done";
    let spec = shell(&*bench, "signals", script);
    runtime.create(&spec).await.expect("create");
    runtime.start(&spec.id).await.expect("start");
    for (signal, expected) in [(None, "ready\n"), (Some(Signal::HUP), "ready\nhup\n")] {
        if let Some(signal) = signal {
            runtime.signal(&spec.id, signal).await.expect("signal");
        }
        within(expected, async { while text(&*bench, &spec.id).await != expected {} }).await;
    }
    runtime.signal(&spec.id, Signal::USR1).await.expect("signal");
    assert_eq!(within("exit", runtime.wait(&spec.id)).await.expect("wait").code, Some(9));
}

async fn failed_creates_leave_nothing(bench: Arc<dyn Bench>) {
    let runtime = bench.runtime();
    let good = shell(&*bench, "again", "exit 4");
    let mut no_layer = good.clone();
    no_layer.image.layers = vec![bench.scratch().join("missing-layer")];
    let missing =
        Mount::Bind { source: bench.scratch().join("missing-file"), target: "/x".into(), ro: true };
    let bad = [
        ("no-such-program", words(&*bench, "again", &["no-such-program"])),
        ("nobody-knows", ContainerSpec { user: Some("nobody-knows".into()), ..good.clone() }),
        ("missing-file", ContainerSpec { mounts: vec![missing], ..good.clone() }),
        ("missing-layer", no_layer),
    ];
    for (named, spec) in bad {
        match runtime.create(&spec).await.expect_err(named) {
            Error::Refused { reason, .. } => assert!(reason.contains(named), "{named}: {reason}"),
            other => panic!("{named}: {other}"),
        }
        assert_eq!(runtime.inspect(&spec.id).await.expect("inspect"), None);
        assert!(!bench.folder(&spec.id).exists(), "{named}");
        assert!(cgroups(&*bench, &good).is_empty(), "{named}");
    }
    assert_eq!(run(&*bench, &good).await.0.code, Some(4));
}

async fn nothing_is_left_after_remove(bench: Arc<dyn Bench>) {
    let runtime = bench.runtime();
    let spec = running(&*bench, "clean");
    let created = runtime.create(&spec).await.expect("create");
    runtime.start(&spec.id).await.expect("start");
    assert!(!cgroups(&*bench, &spec).is_empty());
    let mounts = || fs::read_to_string("/proc/self/mounts").expect("mounts");
    assert!(
        !mounts().contains(bench.folder(&spec.id).to_str().expect("utf-8")),
        "no mount is seen outside"
    );
    runtime.remove(&spec.id, true).await.expect("remove");
    assert!(!bench.folder(&spec.id).exists());
    assert!(cgroups(&*bench, &spec).is_empty());
    eventually("its process is gone", || {
        !std::path::Path::new(&format!("/proc/{}", created.pid)).exists()
    })
    .await;
}

async fn the_command_starts_only_at_start(bench: Arc<dyn Bench>) {
    let runtime = bench.runtime();
    let shared = bench.scratch().join("shared");
    let mount = Mount::Volume { host_path: shared.clone(), target: "/shared".into(), ro: false };
    let spec = ContainerSpec {
        mounts: vec![mount],
        ..shell(&*bench, "split", "echo x > /shared/started")
    };
    let created = runtime.create(&spec).await.expect("create");
    assert!(created.netns.exists(), "the network can be wired now");
    let seen = runtime.inspect(&spec.id).await.expect("inspect").expect("there");
    assert_eq!((seen.state, seen.pid), (State::Created, Some(created.pid)));
    assert!(!shared.join("started").exists());
    runtime.start(&spec.id).await.expect("start");
    within("exit", runtime.wait(&spec.id)).await.expect("wait");
    assert!(shared.join("started").exists());
}

async fn what_cannot_be_executed_says_so(bench: Arc<dyn Bench>) {
    let program = bench.scratch().join("program");
    let mount = |spec| ContainerSpec {
        mounts: vec![Mount::Bind { source: program.clone(), target: "/program".into(), ro: true }],
        ..spec
    };
    let spec = mount(words(&*bench, "program", &["/program"]));
    let modes =
        |mode| fs::set_permissions(&program, PermissionsExt::from_mode(mode)).expect("chmod");
    fs::write(&program, "#!/bin/sh\nexit 5\n").expect("write");
    modes(0o644);
    let refused = bench.runtime().create(&spec).await;
    if let Err(error) = refused {
        assert!(error.to_string().contains("program"), "{error}");
    } else {
        // Some backends find out only when they start.
        bench.runtime().start(&spec.id).await.expect_err("it is not executable");
        bench.runtime().remove(&spec.id, true).await.expect("remove");
    }
    modes(0o700);
    assert_eq!(run(&*bench, &spec).await.0.code, Some(5), "root may execute it");
    fs::write(&program, [0x7f, b'E', b'L', b'F', 9, 9, 9]).expect("write");
    let spec = mount(words(&*bench, "garbage", &["/program"]));
    bench.runtime().create(&spec).await.expect("create");
    if bench.runtime().start(&spec.id).await.is_ok() {
        let exit = within("exit", bench.runtime().wait(&spec.id)).await.expect("wait");
        assert_ne!(exit.code, Some(0));
        let output = text(&*bench, &spec.id).await;
        assert!(output.contains("exec"), "{output}");
    }
}

/// Folders of the container's cgroup that exist.
pub fn cgroups(bench: &dyn Bench, spec: &ContainerSpec) -> Vec<std::path::PathBuf> {
    let path = bench.cgroup(&spec.id);
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    let points = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let point = fields.nth(1)?;
        fields
            .next()
            .filter(|kind| kind.starts_with("cgroup"))
            .map(|_| std::path::Path::new(point).join(&path))
    });
    points.filter(|folder| folder.exists()).collect()
}
