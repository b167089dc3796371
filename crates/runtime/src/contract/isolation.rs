//! What the container may not do, see or use.

use std::fs;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use crate::contract::bench::{running, shell};
use crate::contract::logs::text;
use crate::contract::process::{cgroups, run};
use crate::contract::{Bench, case_list, eventually, within};
use crate::spec::{ContainerSpec, Limits, Mount};

case_list! {
    |caps| caps.real => [
        system_calls_are_filtered, capabilities_are_dockers, a_plain_user_holds_no_capability,
        read_only_root_is_read_only, mounts_are_there, limits_are_in_the_cgroup, the_pids_limit_holds,
        own_namespaces, network_namespace_by_path,
    ],
    |caps| caps.real && caps.update => [limits_can_be_changed],
    |caps| caps.real && caps.oom => [out_of_memory_of_the_command, out_of_memory_of_a_child],
}

/// Lines of `/proc/self/status` that tell how confined a process is.
pub const CONFINEMENT: &str = "grep -E '^(Seccomp|NoNewPrivs|CapEff|CapBnd|CapInh|CapAmb|SigBlk):' /proc/self/status | tr -d '\\t '";

async fn system_calls_are_filtered(bench: Arc<dyn Bench>) {
    let script = format!(
        "{CONFINEMENT}; unshare -n true 2>&1; mount -t tmpfs none /tmp 2>&1; chroot / echo fine; sleep 0 & wait && echo forks"
    );
    let (_, output) = run(&*bench, &shell(&*bench, "seccomp", &script)).await;
    assert!(output.contains("Seccomp:2\n") && output.contains("NoNewPrivs:1\n"), "{output}");
    assert!(output.contains("unshare(") || output.contains("unshare:"), "{output}");
    assert_eq!(
        output.matches("Operation not permitted").count()
            + output.matches("permission denied").count(),
        2,
        "{output}"
    );
    assert!(output.contains("fine\nforks\n"), "{output}");
}

async fn capabilities_are_dockers(bench: Arc<dyn Bench>) {
    let (_, output) = run(&*bench, &shell(&*bench, "caps", CONFINEMENT)).await;
    // CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW SYS_CHROOT
    // MKNOD AUDIT_WRITE SETFCAP; without MKNOD where devices are not controlled.
    let expected = ["00000000a80425fb", "00000000a00425fb"];
    assert!(
        expected.iter().any(|caps| output.contains(&format!("CapEff:{caps}\nCapBnd:{caps}\n"))),
        "{output}"
    );
    assert!(
        output.contains("CapInh:0000000000000000\n")
            && output.contains("CapAmb:0000000000000000\n"),
        "{output}"
    );
    assert!(output.contains("SigBlk:0000000000000000\n"), "{output}");
}

async fn a_plain_user_holds_no_capability(bench: Arc<dyn Bench>) {
    let script = format!(
        "{CONFINEMENT}; chown root /tmp 2>&1; nc -l -p 80 -e true & sleep 0.1; kill $! && echo bound"
    );
    let spec = ContainerSpec { user: Some("web".into()), ..shell(&*bench, "plain", &script) };
    let (_, output) = run(&*bench, &spec).await;
    assert!(output.contains("CapEff:0000000000000000\n"), "{output}");
    assert!(output.contains("Operation not permitted"), "{output}");
    assert!(
        output.contains("bound\n"),
        "low ports are free to everyone in an own network: {output}"
    );
}

async fn read_only_root_is_read_only(bench: Arc<dyn Bench>) {
    let script = "echo x > /file && echo root written; echo x > /tmp/file && echo tmp written; echo x > /dev/shm/file && echo shm written";
    let tmp = Mount::Tmpfs { target: "/tmp".into(), size: None, mode: None };
    let spec =
        ContainerSpec { read_only_root: true, mounts: vec![tmp], ..shell(&*bench, "ro", script) };
    let (_, output) = run(&*bench, &spec).await;
    assert!(!output.contains("root written"), "{output}");
    assert!(output.contains("tmp written") && output.contains("shm written"), "{output}");
    let writable = shell(&*bench, "rw", "echo x > /file && echo written; echo y > /bin/new");
    assert_eq!(run(&*bench, &writable).await.1, "written\n");
    assert!(!writable.image.layers[0].join("file").exists(), "the layer stays as it was");
}

async fn mounts_are_there(bench: Arc<dyn Bench>) {
    let scratch = bench.scratch();
    fs::create_dir(scratch.join("dir")).expect("mkdir");
    fs::write(scratch.join("hosts"), "10.0.0.1 other\n").expect("write");
    let mounts = vec![
        Mount::Bind { source: scratch.join("dir"), target: "/deep/er/dir".into(), ro: false },
        Mount::Bind { source: scratch.join("hosts"), target: "/etc/hosts".into(), ro: true },
        Mount::Volume { host_path: scratch.join("vol/ume"), target: "/data".into(), ro: false },
        Mount::Tmpfs { target: "/mem".into(), size: Some(1 << 20), mode: Some(0o700) },
    ];
    let script = "cat /etc/hosts; { echo x > /etc/hosts; } 2>/dev/null && echo wrong; echo a > /deep/er/dir/a; echo b > /data/b; \
        df -k /mem | tail -n 1 | awk '{print $1, $2}'; stat -c %a /mem; dd if=/dev/zero of=/mem/big bs=1M count=2 2>/dev/null || echo full";
    let spec = ContainerSpec { mounts, ..shell(&*bench, "mounts", script) };
    let (_, output) = run(&*bench, &spec).await;
    assert!(output.starts_with("10.0.0.1 other\n") && !output.contains("wrong"), "{output}");
    assert!(output.ends_with("tmpfs 1024\n700\nfull\n"), "{output}");
    assert_eq!(fs::read(scratch.join("dir/a")).expect("bind"), b"a\n");
    assert_eq!(fs::read(scratch.join("vol/ume/b")).expect("volume"), b"b\n");
    assert_eq!(fs::read(scratch.join("hosts")).expect("hosts"), b"10.0.0.1 other\n");
}

/// Content of a cgroup file, by its name in version 1 or 2.
fn cgroup_value(bench: &dyn Bench, spec: &ContainerSpec, names: [&str; 2]) -> Option<String> {
    let files =
        cgroups(bench, spec).into_iter().flat_map(|folder| names.map(|name| folder.join(name)));
    files.filter_map(|file| fs::read_to_string(file).ok()).map(|text| text.trim().to_owned()).next()
}

fn memory(bench: &dyn Bench, spec: &ContainerSpec) -> Option<String> {
    cgroup_value(bench, spec, ["memory.limit_in_bytes", "memory.max"])
}

fn cpu(bench: &dyn Bench, spec: &ContainerSpec) -> Option<String> {
    cgroup_value(bench, spec, ["cpu.cfs_quota_us", "cpu.max"])
}

async fn limits_are_in_the_cgroup(bench: Arc<dyn Bench>) {
    let limits =
        Limits { cpu_nanos: Some(250_000_000), memory_bytes: Some(64 << 20), pids: Some(42) };
    let spec = ContainerSpec { limits, ..running(&*bench, "limits") };
    let runtime = bench.runtime();
    runtime.create(&spec).await.expect("create");
    assert_eq!(memory(&*bench, &spec).as_deref(), Some("67108864"));
    assert!(cpu(&*bench, &spec).is_some_and(|quota| quota.starts_with("25000")));
    assert_eq!(cgroup_value(&*bench, &spec, ["pids.max", "pids.max"]).as_deref(), Some("42"));
    runtime.start(&spec.id).await.expect("start");
    let stats = runtime.stats(Some(&spec.id)).await.expect("stats");
    assert_eq!(stats[0].memory_limit_bytes, Some(64 << 20));
}

async fn limits_can_be_changed(bench: Arc<dyn Bench>) {
    let first = Limits { memory_bytes: Some(64 << 20), ..Limits::default() };
    let spec = ContainerSpec { limits: first, ..running(&*bench, "update") };
    let runtime = bench.runtime();
    runtime.create(&spec).await.expect("create");
    runtime.start(&spec.id).await.expect("start");
    for bytes in [128u64 << 20, 32 << 20] {
        let limits = Limits { memory_bytes: Some(bytes), cpu_nanos: Some(500_000_000), pids: None };
        runtime.update(&spec.id, &limits).await.expect("update");
        assert_eq!(memory(&*bench, &spec), Some(bytes.to_string()));
    }
    assert!(cpu(&*bench, &spec).is_some_and(|quota| quota.starts_with("50000")));
    runtime
        .update(&spec.id, &Limits { pids: Some(0), ..Limits::default() })
        .await
        .expect_err("no process at all");
    assert!(runtime.create(&spec).await.is_ok(), "it is still the same container");
}

async fn the_pids_limit_holds(bench: Arc<dyn Bench>) {
    let script = "for i in 1 2 3 4 5 6 7 8; do sleep 60 & done; wait";
    let spec = ContainerSpec {
        limits: Limits { pids: Some(4), ..Limits::default() },
        ..shell(&*bench, "pids", script)
    };
    let runtime = bench.runtime();
    runtime.create(&spec).await.expect("create");
    runtime.start(&spec.id).await.expect("start");
    within("the refusal", async { while !text(&*bench, &spec.id).await.contains("can't fork") {} })
        .await;
    let pids =
        runtime.stats(Some(&spec.id)).await.expect("stats").first().map_or(0, |stats| stats.pids);
    assert!(pids <= 4, "{pids}");
}

/// Fills memory in the shell itself.
const EAT: &str = "x=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; while :; do x=$x$x; done";

fn small(bench: &dyn Bench, id: &str, script: &str) -> ContainerSpec {
    ContainerSpec {
        limits: Limits { memory_bytes: Some(16 << 20), ..Limits::default() },
        ..shell(bench, id, script)
    }
}

async fn out_of_memory_of_the_command(bench: Arc<dyn Bench>) {
    let (exit, output) = run(&*bench, &small(&*bench, "oom", EAT)).await;
    assert_eq!(
        (exit.code, exit.signal, exit.oom, exit.oom_killed()),
        (None, Some(9), true, true),
        "{output}"
    );
}

async fn out_of_memory_of_a_child(bench: Arc<dyn Bench>) {
    let script = format!("sh -c '{EAT}'; echo child $?; exit 0");
    let (exit, output) = run(&*bench, &small(&*bench, "oom-child", &script)).await;
    assert_eq!((exit.code, exit.oom, exit.oom_killed()), (Some(0), true, false), "{output}");
    assert!(output.contains("child 137\n"), "{output}");
}

async fn own_namespaces(bench: Arc<dyn Bench>) {
    let script = "for n in pid mnt ipc uts net cgroup; do readlink /proc/self/ns/$n; done; echo $$; ls /sys/class/net";
    let (_, output) = run(&*bench, &shell(&*bench, "ns", script)).await;
    for name in ["pid", "mnt", "ipc", "uts", "net", "cgroup"] {
        let ours = fs::read_link(format!("/proc/self/ns/{name}")).expect("namespace");
        assert!(
            output.contains(&format!("{name}:["))
                && !output.contains(ours.to_str().expect("utf-8")),
            "{name}: {output}"
        );
    }
    assert!(output.ends_with("\n1\nlo\n"), "{output}");
}

async fn network_namespace_by_path(bench: Arc<dyn Bench>) {
    // Held open by a descriptor only, so that nothing can be left behind.
    let (file, name) = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace");
        let file = fs::File::open("/proc/thread-self/ns/net").expect("open it");
        (file, fs::read_link("/proc/thread-self/ns/net").expect("its name"))
    })
    .join()
    .expect("thread");
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let spec = ContainerSpec {
        netns: Some(path.clone().into()),
        ..shell(&*bench, "netns", "readlink /proc/self/ns/net")
    };
    let created = bench.runtime().create(&spec).await.expect("create");
    assert_eq!(created.netns.to_str(), Some(path.as_str()));
    let (exit, output) = run(&*bench, &spec).await;
    assert_eq!((exit.code, output.trim()), (Some(0), name.to_str().expect("utf-8")));
    eventually("the namespace is still there", || fs::metadata(&path).is_ok()).await;
}
