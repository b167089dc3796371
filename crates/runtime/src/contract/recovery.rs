//! The runtime object dies, shims die, folders are damaged: what the next one finds.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;

use serde_json::Value;

use crate::contract::bench::{Bench, id, running, shell};
use crate::contract::exec::output;
use crate::contract::logs::text;
use crate::contract::process::cgroups;
use crate::contract::{case_list, eventually, within};
use crate::embedded::lock_holder;
use crate::exec::ExecSpec;
use crate::observe::{ExitSource, Observed, State};
use crate::shim::files::Folder;
use crate::signal::Signal;
use crate::spec::{ContainerId, ContainerSpec};
use crate::sys;

case_list! {
    |caps| caps.survives_agent => [
        a_running_one_is_found_again, a_created_one_is_found_and_started, an_exit_while_away_is_replayed,
        a_lost_shim_is_replaced_at_once, a_lost_shim_is_replaced_after_a_restart, shim_and_container_lost_while_away,
        shim_and_container_lost_while_watched, an_unfinished_create_is_swept, damaged_folders_do_not_stop_recovery,
        damaged_state_of_a_living_one, foreign_cgroups_are_swept, a_reboot_is_told, a_reused_pid_is_left_alone,
        recover_twice_changes_nothing, logs_survive_a_lost_shim,
    ],
}

async fn started(bench: &dyn Bench, spec: &ContainerSpec) -> Observed {
    let runtime = bench.runtime();
    runtime.create(spec).await.expect("create");
    runtime.start(&spec.id).await.expect("start");
    runtime.inspect(&spec.id).await.expect("inspect").expect("there")
}

fn shim_pid(bench: &dyn Bench, id: &ContainerId) -> Option<u32> {
    lock_holder(&Folder::new(bench.folder(id))).expect("lock").filter(|pid| *pid != 0)
}

fn kill(pid: u32) {
    let pidfd = sys::pidfd_open(pid).expect("it lives");
    sys::pidfd_send_signal(pidfd.as_fd(), 9).expect("kill");
}

async fn kill_shim(bench: &dyn Bench, id: &ContainerId) {
    let pid = shim_pid(bench, id).expect("a shim");
    kill(pid);
    eventually("the shim is gone", || shim_pid(bench, id) != Some(pid)).await;
}

async fn gone(pid: u32) {
    // It may stay a zombie until its new parent collects it.
    eventually("the process ended", || match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')),
        Err(_) => true,
    })
    .await;
}

async fn a_running_one_is_found_again(bench: Arc<dyn Bench>) {
    let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    let spec = ContainerSpec { labels, ..running(&*bench, "again") };
    let before = started(&*bench, &spec).await;
    let runtime = bench.reopen();
    assert_eq!(runtime.recover().await.expect("recover"), std::slice::from_ref(&before));
    assert_eq!(
        runtime.create(&spec).await.expect("create is still idempotent").pid,
        before.pid.expect("pid")
    );
    let (exit, out, _) = output(&*bench, &spec.id, ExecSpec::new(["echo", "hi"])).await;
    assert_eq!((exit.code, out.as_str()), (Some(0), "hi\n"));
    within("its output", async { while text(&*bench, &spec.id).await != "up\n" {} }).await;
    let exit =
        within("stop", runtime.stop(&spec.id, Signal::TERM, super::PATIENCE)).await.expect("stop");
    assert_eq!((exit.code, exit.source), (Some(0), ExitSource::Observed));
}

async fn a_created_one_is_found_and_started(bench: Arc<dyn Bench>) {
    let spec = shell(&*bench, "half", "exit 8");
    bench.runtime().create(&spec).await.expect("create");
    let runtime = bench.reopen();
    let found = runtime.recover().await.expect("recover");
    assert_eq!(found.iter().map(|seen| seen.state).collect::<Vec<_>>(), [State::Created]);
    runtime.start(&spec.id).await.expect("start");
    assert_eq!(within("exit", runtime.wait(&spec.id)).await.expect("wait").code, Some(8));
}

async fn an_exit_while_away_is_replayed(bench: Arc<dyn Bench>) {
    let go = bench.scratch().join("go");
    fs::create_dir(&go).expect("mkdir");
    let mount = crate::Mount::Bind { source: go.clone(), target: "/go".into(), ro: true };
    let script = "while [ ! -e /go/on ]; do sleep 0.02; done; echo bye; exit 11";
    let spec = ContainerSpec { mounts: vec![mount], ..shell(&*bench, "away", script) };
    started(&*bench, &spec).await;
    bench.abandon();
    fs::write(go.join("on"), "").expect("write");
    eventually("the shim left", || shim_pid(&*bench, &spec.id).is_none()).await;
    for _ in 0..2 {
        let runtime = bench.reopen();
        let found = runtime.recover().await.expect("recover");
        let exit = found[0].state.exit().expect("ended");
        assert_eq!((exit.code, exit.source), (Some(11), ExitSource::Replayed));
        assert_eq!(within("wait", runtime.wait(&spec.id)).await.expect("wait"), exit);
        assert_eq!(text(&*bench, &spec.id).await, "bye\n");
        assert!(cgroups(&*bench, &spec).is_empty());
    }
    bench.runtime().remove(&spec.id, false).await.expect("remove");
    assert!(bench.reopen().recover().await.expect("recover").is_empty());
}

async fn a_lost_shim_is_replaced_at_once(bench: Arc<dyn Bench>) {
    let runtime = bench.runtime();
    let spec = running(&*bench, "lost");
    let before = started(&*bench, &spec).await;
    kill_shim(&*bench, &spec.id).await;
    eventually("another shim", || shim_pid(&*bench, &spec.id).is_some()).await;
    assert_eq!(runtime.inspect(&spec.id).await.expect("inspect"), Some(before));
    // Its socket answers shortly after its lock is taken.
    within("an exec through it", async {
        while runtime.exec(&spec.id, ExecSpec::new(["true"])).await.is_err() {}
    })
    .await;
    let (_, out, _) =
        output(&*bench, &spec.id, ExecSpec::new(["sh", "-c", "grep Seccomp: /proc/self/status"]))
            .await;
    assert!(out.contains('2'), "{out}");
    runtime.signal(&spec.id, Signal::KILL).await.expect("kill");
    let exit = within("exit", runtime.wait(&spec.id)).await.expect("wait");
    assert_eq!((exit.source, exit.code), (ExitSource::ShimLost, None), "no code is made up");
    runtime.remove(&spec.id, false).await.expect("remove");
    assert!(cgroups(&*bench, &spec).is_empty());
}

async fn a_lost_shim_is_replaced_after_a_restart(bench: Arc<dyn Bench>) {
    let specs = [running(&*bench, "lost-running"), running(&*bench, "lost-created")];
    started(&*bench, &specs[0]).await;
    bench.runtime().create(&specs[1]).await.expect("create");
    bench.abandon();
    for spec in &specs {
        kill_shim(&*bench, &spec.id).await;
    }
    let runtime = bench.reopen();
    let found = runtime.recover().await.expect("recover");
    assert_eq!(
        found.iter().map(|seen| seen.state).collect::<Vec<_>>(),
        [State::Created, State::Running]
    );
    runtime.start(&specs[1].id).await.expect("start");
    for spec in &specs {
        let exit = within("stop", runtime.stop(&spec.id, Signal::KILL, super::PATIENCE))
            .await
            .expect("stop");
        assert_eq!(exit.source, ExitSource::ShimLost);
        runtime.remove(&spec.id, false).await.expect("remove");
    }
}

async fn shim_and_container_lost_while_away(bench: Arc<dyn Bench>) {
    let spec = running(&*bench, "both");
    let pid = started(&*bench, &spec).await.pid.expect("pid");
    bench.abandon();
    kill_shim(&*bench, &spec.id).await;
    kill(pid);
    gone(pid).await;
    for _ in 0..2 {
        let found = bench.reopen().recover().await.expect("recover");
        let exit = found[0].state.exit().expect("ended");
        assert_eq!((exit.code, exit.source), (None, ExitSource::ShimLost), "no code is made up");
    }
    bench.runtime().remove(&spec.id, false).await.expect("remove");
    assert!(cgroups(&*bench, &spec).is_empty());
}

async fn shim_and_container_lost_while_watched(bench: Arc<dyn Bench>) {
    let runtime = bench.runtime();
    let spec = running(&*bench, "watched");
    let pid = started(&*bench, &spec).await.pid.expect("pid");
    let shim = shim_pid(&*bench, &spec.id).expect("a shim");
    kill(shim);
    kill(pid);
    let exit = within("exit", runtime.wait(&spec.id)).await.expect("wait");
    assert_eq!(exit.code, None, "no code is made up");
    runtime.remove(&spec.id, false).await.expect("remove");
    assert!(cgroups(&*bench, &spec).is_empty());
}

async fn an_unfinished_create_is_swept(bench: Arc<dyn Bench>) {
    let spec = shell(&*bench, "unfinished", "exit 2");
    let folder = bench.folder(&spec.id);
    bench.abandon();
    // As left by an agent that died right after it wrote the spec.
    fs::create_dir_all(&folder).expect("mkdir");
    fs::write(folder.join("spec.json"), serde_json::to_vec(&spec).expect("json")).expect("write");
    let runtime = bench.reopen();
    assert!(runtime.recover().await.expect("recover").is_empty());
    assert!(!folder.exists());
    fs::create_dir_all(&folder).expect("mkdir");
    // Without a recovery in between, a create finds it too.
    runtime.create(&spec).await.expect("create");
    runtime.start(&spec.id).await.expect("start");
    assert_eq!(within("exit", runtime.wait(&spec.id)).await.expect("wait").code, Some(2));
}

async fn damaged_folders_do_not_stop_recovery(bench: Arc<dyn Bench>) {
    let good = running(&*bench, "good");
    let before = started(&*bench, &good).await;
    let unreadable = running(&*bench, "unreadable");
    let lost = started(&*bench, &unreadable).await.pid.expect("pid");
    bench.abandon();
    let state_dir = bench.folder(&good.id).parent().expect("parent").to_owned();
    for (name, content) in
        [("garbage", &b"\xff\x00{"[..]), ("torn", b"{\"id\":\"to"), ("unreadable", b"")]
    {
        fs::create_dir_all(state_dir.join(name)).expect("mkdir");
        fs::write(state_dir.join(name).join("spec.json"), content).expect("write");
    }
    for name in ["empty", ".trash-x", "not an id"] {
        fs::create_dir(state_dir.join(name)).expect("mkdir");
    }
    let runtime = bench.reopen();
    assert_eq!(runtime.recover().await.expect("recover"), [before]);
    let left: Vec<_> =
        fs::read_dir(&state_dir).expect("read").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["good"], "the rest is swept");
    gone(lost).await;
    assert!(cgroups(&*bench, &unreadable).is_empty());
}

async fn damaged_state_of_a_living_one(bench: Arc<dyn Bench>) {
    let spec = running(&*bench, "damaged");
    let before = started(&*bench, &spec).await;
    bench.abandon();
    fs::write(bench.folder(&spec.id).join("state.json"), b"{\"init\":").expect("write");
    let runtime = bench.reopen();
    assert_eq!(runtime.recover().await.expect("recover"), [before]);
    runtime.signal(&spec.id, Signal::KILL).await.expect("kill");
    let exit = within("exit", runtime.wait(&spec.id)).await.expect("wait");
    assert_eq!((exit.signal, exit.source), (Some(9), ExitSource::Observed));
    fs::write(bench.folder(&spec.id).join("exit.json"), b"").expect("write");
    let found = bench.reopen().recover().await.expect("recover");
    let exit = found[0].state.exit().expect("ended");
    assert_eq!((exit.code, exit.source), (None, ExitSource::ShimLost));
}

async fn foreign_cgroups_are_swept(bench: Arc<dyn Bench>) {
    let spec = running(&*bench, "keeper");
    started(&*bench, &spec).await;
    let mut sleeper = Command::new("sleep").arg("1000").spawn().expect("spawn");
    for folder in cgroups(&*bench, &spec) {
        let leftover = folder.with_file_name("leftover");
        fs::create_dir(&leftover).expect("mkdir");
        // Version 2 takes it too, as long as nothing is enabled below.
        let _ = fs::write(leftover.join("cgroup.procs"), sleeper.id().to_string());
    }
    let runtime = bench.reopen();
    assert_eq!(runtime.recover().await.expect("recover").len(), 1);
    let leftover = ContainerSpec { id: id("leftover"), ..spec.clone() };
    assert!(cgroups(&*bench, &leftover).is_empty());
    assert!(!cgroups(&*bench, &spec).is_empty());
    assert!(!sleeper.wait().expect("wait").success(), "what ran there was killed");
}

/// Changes the record of a container whose shim is gone.
fn rewrite(bench: &dyn Bench, id: &ContainerId, change: impl FnOnce(&mut Value)) {
    let path = bench.folder(id).join("state.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&path).expect("read")).expect("json");
    change(&mut record["init"]);
    fs::write(&path, record.to_string()).expect("write");
}

async fn kill_both(bench: &dyn Bench, spec: &ContainerSpec) {
    let pid = started(bench, spec).await.pid.expect("pid");
    bench.abandon();
    kill_shim(bench, &spec.id).await;
    kill(pid);
    gone(pid).await;
}

async fn a_reboot_is_told(bench: Arc<dyn Bench>) {
    let spec = running(&*bench, "reboot");
    kill_both(&*bench, &spec).await;
    rewrite(&*bench, &spec.id, |init| init["boot_id"] = "another boot".into());
    let found = bench.reopen().recover().await.expect("recover");
    let exit = found[0].state.exit().expect("ended");
    assert_eq!((exit.code, exit.signal, exit.source), (None, None, ExitSource::Reboot));
}

async fn a_reused_pid_is_left_alone(bench: Arc<dyn Bench>) {
    struct Stranger(Child);
    impl Drop for Stranger {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let mut stranger = Stranger(Command::new("sleep").arg("1000").spawn().expect("spawn"));
    let spec = running(&*bench, "reused");
    kill_both(&*bench, &spec).await;
    let pid = stranger.0.id();
    rewrite(&*bench, &spec.id, |init| init["pid"] = pid.into());
    let runtime = bench.reopen();
    let found = runtime.recover().await.expect("recover");
    assert_eq!(found[0].state.exit().expect("ended").source, ExitSource::ShimLost);
    runtime.signal(&spec.id, Signal::KILL).await.expect("nobody to signal");
    runtime.remove(&spec.id, true).await.expect("remove");
    assert!(stranger.0.try_wait().expect("wait").is_none(), "the stranger lives");
}

async fn recover_twice_changes_nothing(bench: Arc<dyn Bench>) {
    let runtime = bench.runtime();
    let spec = running(&*bench, "steady");
    let before = started(&*bench, &spec).await;
    for _ in 0..2 {
        assert_eq!(runtime.recover().await.expect("recover"), std::slice::from_ref(&before));
    }
}

async fn logs_survive_a_lost_shim(bench: Arc<dyn Bench>) {
    // Two shells so that the command's own writes go on while nobody reads.
    let script = "i=0; while [ ! -e /stop ]; do echo $i; i=$((i+1)); sleep 0.01; done; echo end";
    let spec = shell(&*bench, "chatty", script);
    let runtime = bench.runtime();
    started(&*bench, &spec).await;
    for _ in 0..2 {
        let lines = text(&*bench, &spec.id).await.lines().count();
        kill_shim(&*bench, &spec.id).await;
        within("more lines", async {
            while text(&*bench, &spec.id).await.lines().count() < lines + 20 {}
        })
        .await;
    }
    within("an exec", async {
        while runtime.exec(&spec.id, ExecSpec::new(["true"])).await.is_err() {}
    })
    .await;
    let (exit, _, _) = output(&*bench, &spec.id, ExecSpec::new(["touch", "/stop"])).await;
    assert_eq!(exit.code, Some(0));
    within("exit", runtime.wait(&spec.id)).await.expect("wait");
    let all = text(&*bench, &spec.id).await;
    let numbers: Vec<_> = all.lines().filter_map(|line| line.parse::<u32>().ok()).collect();
    let last = *numbers.last().expect("numbers");
    assert_eq!(numbers, (0..=last).collect::<Vec<_>>(), "no line is lost or doubled");
    assert!(all.ends_with("end\n"));
    assert!(Path::new(&bench.folder(&spec.id)).exists());
}
