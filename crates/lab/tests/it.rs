//! The lab with stand-in daemons: are the machines machines? Needs root, `ip` and `nft`.
//!
//! The stand-ins are shell scripts around this crate's helper, so these tests need no other
//! package. That the real daemons run in a lab is shown by the black-box tests.
#![allow(clippy::unwrap_used)] // Helpers outside test functions fail by panicking too.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cluster_lab::{Direction, Lab, LabOptions, Link, NodeState};

const HELPER: &str = env!("CARGO_BIN_EXE_cluster-lab-helper");

/// A lab of one manager and two workers that is removed with the value, also on a panic.
struct Fixture {
    lab: Option<Lab>,
    name: String,
    folder: tempfile::TempDir,
}

impl Fixture {
    fn options(name: &str) -> (LabOptions, tempfile::TempDir) {
        assert!(nix::unistd::geteuid().is_root(), "these tests build namespaces: run them as root");
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).unwrap();
        script(
            &bin.join("cluster-manager"),
            "case \"$*\" in *--bootstrap*) mkdir -p \"$2\"; echo '{\"name\":\"x\"}' >\"$2/admin.json\";; esac\n\
             echo manager log line; exec HELPER serve 0.0.0.0:7100",
        );
        script(
            &bin.join("cluster-worker"),
            "case $1 in image) exit 0;; esac\n\
             mkdir -p \"$2\"; cat /proc/sys/kernel/random/boot_id >>\"$2/boots\"\n\
             sleep 1000 & exec HELPER serve 0.0.0.0:80",
        );
        script(
            &bin.join("clusterctl"),
            "case \"$1 $2\" in\n\
             lab\\ *) exec HELPER \"$@\";;\n\
             'cluster token') test -f \"$CLUSTERCTL_CONTEXT_FILE\" && echo TOKEN-$4;;\n\
             'cluster info') echo '{\"managers\":[{\"name\":\"manager-1\",\"voter\":true}]}';;\n\
             'node ls') echo '[{\"name\":\"worker-1\",\"state\":\"ready\"},{\"name\":\"worker-2\",\"state\":\"ready\"}]';;\n\
             esac",
        );
        let mut options = LabOptions::new(name, bin);
        options.base = folder.path().join("labs");
        (
            LabOptions {
                managers: 1,
                workers: 2,
                ready_within: Duration::from_secs(20),
                ..options
            },
            folder,
        )
    }

    fn up(name: &str) -> Self {
        let (options, folder) = Self::options(name);
        let lab = Lab::up(&options).unwrap_or_else(|error| panic!("{error}"));
        Self { lab: Some(lab), name: name.to_owned(), folder }
    }

    fn lab(&self) -> &Lab {
        self.lab.as_ref().unwrap()
    }

    fn base(&self) -> PathBuf {
        self.folder.path().join("labs")
    }

    /// Whether `address` answers the client with `name` within a second.
    fn answers(&self, from: &str, address: &str, name: &str) -> bool {
        let output = self.lab().exec_output(from, &[HELPER, "probe", address, "500"]).unwrap();
        output.status.success() && String::from_utf8_lossy(&output.stdout).trim() == name
    }

    fn eventually(&self, what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !condition() {
            assert!(Instant::now() < deadline, "not within 10 s: {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn state_of(&self, node: &str) -> NodeState {
        let status = self.lab().status().unwrap();
        status.into_iter().find(|row| row.name == node).unwrap().state
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if let Some(lab) = self.lab.take() {
            lab.down().unwrap();
        }
        let left = Lab::leftovers_in(&self.base(), &self.name).unwrap();
        if !std::thread::panicking() {
            assert_eq!(left, Vec::<String>::new());
        }
    }
}

fn script(path: &Path, body: &str) {
    fs::write(path, format!("#!/bin/sh\n{}\n", body.replace("HELPER", HELPER))).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn nodes_have_addresses_names_and_processes_of_their_own() {
    let fixture = Fixture::up("lt-own");
    fixture
        .eventually("worker-1 answers", || fixture.answers("client", "10.77.0.21:80", "worker-1"));
    fixture.eventually("worker-2 answers", || {
        fixture.answers("worker-1", "10.77.0.22:80", "worker-2")
    });
    let inside = |place: &str, line: &str| {
        let output = fixture.lab().exec_output(place, &["sh", "-c", line]).unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert_eq!(inside("worker-1", "hostname"), "worker-1");
    assert_eq!(inside("worker-1", "ls /sys/class/net | grep -c eth0"), "1");
    assert_eq!(
        inside("worker-1", "ls /sys/fs/cgroup | wc -l | grep -vx 0 >/dev/null; echo $?"),
        "0"
    );
    assert_eq!(inside("worker-1", "tr '\\0' ' ' </proc/1/cmdline | grep -c node-init"), "1");
    assert_eq!(inside("client", "getent hosts worker-2 | cut -d' ' -f1"), "10.77.0.22");
    for place in ["client", "worker-1", "manager-1"] {
        assert_eq!(inside(place, "ip route show default | wc -l"), "0", "{place} has a way out");
    }
    let connected =
        fixture.lab().inside("client", || std::net::TcpStream::connect("10.77.0.22:80"));
    assert!(connected.unwrap().is_ok(), "a thread of ours reaches nodes as the client");
    let code = fixture.lab().exec_output("worker-1", &["sh", "-c", "exit 7"]).unwrap();
    assert_eq!(code.status.code(), Some(7));
    fixture.lab().load_image(Path::new(HELPER)).unwrap();
}

#[test]
fn power_off_ends_everything_at_once_and_start_is_a_reboot() {
    let fixture = Fixture::up("lt-power");
    let lab = fixture.lab();
    fixture
        .eventually("worker-1 answers", || fixture.answers("client", "10.77.0.21:80", "worker-1"));
    let before = lab.processes("worker-1").unwrap();
    assert!(before.iter().any(|process| process.name == "sleep"), "{before:?}");
    lab.kill("worker-1").unwrap();
    assert_eq!(fixture.state_of("worker-1"), NodeState::Stopped);
    assert!(lab.processes("worker-1").unwrap().is_empty());
    assert!(!fixture.answers("client", "10.77.0.21:80", "worker-1"));
    assert!(lab.exec("worker-1", &["true"]).is_err());
    lab.kill("worker-1").unwrap();
    lab.start("worker-1").unwrap();
    fixture
        .eventually("worker-1 is back", || fixture.answers("client", "10.77.0.21:80", "worker-1"));
    let boots = fs::read_to_string(lab.data_path("worker-1").join("boots")).unwrap();
    let boots: Vec<_> = boots.lines().collect();
    assert_eq!(boots.len(), 2);
    assert_ne!(boots[0], boots[1], "a restart must look like a reboot");
}

#[test]
fn the_agent_alone_can_die_and_come_back() {
    let fixture = Fixture::up("lt-agent");
    let lab = fixture.lab();
    fixture
        .eventually("worker-1 answers", || fixture.answers("client", "10.77.0.21:80", "worker-1"));
    lab.kill_agent("worker-1").unwrap();
    assert_eq!(fixture.state_of("worker-1"), NodeState::AgentDown);
    assert_eq!(lab.agent_exit("worker-1").unwrap().as_deref(), Some("killed by SIGKILL"));
    let left = lab.processes("worker-1").unwrap();
    assert!(left.iter().any(|process| process.name == "sleep"), "children live on: {left:?}");
    lab.start_agent("worker-1").unwrap();
    fixture
        .eventually("worker-1 is back", || fixture.answers("client", "10.77.0.21:80", "worker-1"));
    assert_eq!(fixture.state_of("worker-1"), NodeState::Running);
    lab.start_agent("worker-1").unwrap();
}

#[test]
fn pause_cut_and_heal() {
    let fixture = Fixture::up("lt-faults");
    let lab = fixture.lab();
    let answers = |from| fixture.answers(from, "10.77.0.22:80", "worker-2");
    fixture.eventually("worker-2 answers", || answers("client"));

    lab.pause("worker-2").unwrap();
    assert_eq!(fixture.state_of("worker-2"), NodeState::Paused);
    assert!(!answers("client"));
    lab.resume("worker-2").unwrap();
    assert!(answers("client"));

    lab.cut("worker-2").unwrap();
    assert_eq!(fixture.state_of("worker-2"), NodeState::Cut);
    assert!(!answers("client"));
    assert!(fixture.answers("client", "10.77.0.21:80", "worker-1"));
    lab.heal("worker-2").unwrap();
    assert!(answers("client"));
    assert_eq!(fixture.state_of("worker-2"), NodeState::Running);

    lab.cut_one_way("worker-2", Direction::Out).unwrap();
    assert!(!answers("client"));
    lab.heal("worker-2").unwrap();

    lab.cut_link("client", "worker-2").unwrap();
    assert!(!answers("client"));
    assert!(answers("worker-1"));
    lab.heal("worker-2").unwrap();
    assert!(answers("client"));

    // A frozen node must die all the same.
    lab.pause("worker-2").unwrap();
    lab.kill("worker-2").unwrap();
    assert!(lab.processes("worker-2").unwrap().is_empty());
}

#[test]
fn an_exposed_port_and_the_managers_are_reachable_from_the_machine() {
    let fixture = Fixture::up("lt-expose");
    let lab = fixture.lab();
    let address = lab.expose("127.0.0.1:0".parse().unwrap(), 80).unwrap();
    let probe = |address: &str| {
        let output =
            std::process::Command::new(HELPER).args(["probe", address, "3000"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    fixture.eventually("both workers answer", || {
        let seen: Vec<_> = (0..4).map(|_| probe(&address.to_string())).collect();
        ["worker-1", "worker-2"].iter().all(|name| seen.iter().any(|answer| answer == name))
    });
    lab.kill("worker-1").unwrap();
    assert!((0..3).all(|_| probe(&address.to_string()) == "worker-2"));
    let context: serde_json::Value =
        serde_json::from_slice(&fs::read(lab.context_file()).unwrap()).unwrap();
    assert_eq!(probe(context["managers"][0].as_str().unwrap()), "manager-1");
}

#[test]
fn a_failed_start_names_the_reason_and_leaves_nothing() {
    let (mut options, folder) = Fixture::options("lt-fail");
    script(&options.bin_dir.join("cluster-worker"), "echo no disk; exit 3");
    let error = Lab::up(&options).unwrap_err().to_string();
    assert!(error.contains("exited with code 3") && error.contains("no disk"), "{error}");
    assert_eq!(Lab::leftovers_in(&options.base, "lt-fail").unwrap(), Vec::<String>::new());
    options.workers = 1000;
    assert!(Lab::up(&options).unwrap_err().to_string().contains("give 0 to 200"));
    drop(folder);
}

#[test]
fn a_second_up_is_refused_and_another_process_can_open_the_lab() {
    let fixture = Fixture::up("lt-open");
    let (options, _folder) = Fixture::options("lt-open");
    let again = LabOptions { base: fixture.base(), ..options };
    assert!(Lab::up(&again).unwrap_err().to_string().contains("already up"));
    let opened = Lab::open_in(&fixture.base(), "lt-open").unwrap();
    assert_eq!(opened.status().unwrap().len(), 3);
    assert_eq!(Lab::names_in(&fixture.base()), ["lt-open"]);
    let unknown = opened.kill("worker-9").unwrap_err().to_string();
    assert!(unknown.contains("worker-9") && unknown.contains("worker-1"), "{unknown}");
    assert!(Lab::open_in(&fixture.base(), "lt-none").is_err());
    Lab::remove_in(&fixture.base(), "lt-none").unwrap();
}

#[test]
fn a_link_can_be_slow_lossy_and_one_sided() {
    let fixture = Fixture::up("lt-shape");
    let lab = fixture.lab();
    fixture
        .eventually("worker-1 answers", || fixture.answers("client", "10.77.0.21:80", "worker-1"));
    let took = |address: &'static str| {
        let begin = Instant::now();
        assert!(fixture.answers("client", address, "worker-1"), "{address} does not answer");
        begin.elapsed()
    };
    // The way there and back, for the handshake and for the answer.
    lab.shape("worker-1", Link { delay_ms: 60, ..Link::default() }).unwrap();
    assert_eq!(fixture.state_of("worker-1"), NodeState::Degraded);
    let slow = took("10.77.0.21:80");
    assert!(slow >= Duration::from_millis(240), "{slow:?}");
    lab.heal("worker-1").unwrap();
    let quick = took("10.77.0.21:80");
    assert!(quick < Duration::from_millis(200), "{quick:?}");
    assert_eq!(fixture.state_of("worker-1"), NodeState::Running);

    // Nothing of what it sends to the client arrives; its neighbour hears it.
    let deaf = Link { loss_ppm: 1_000_000, ..Link::default() };
    lab.shape_one_way("worker-1", Direction::Out, Some("client"), deaf).unwrap();
    assert!(!fixture.answers("client", "10.77.0.21:80", "worker-1"));
    assert!(fixture.answers("worker-2", "10.77.0.21:80", "worker-1"));

    // It stays so over a power-off, and a cut goes through a relay too.
    lab.kill("worker-1").unwrap();
    lab.start("worker-1").unwrap();
    fixture.eventually("worker-2 hears it", || {
        fixture.answers("worker-2", "10.77.0.21:80", "worker-1")
    });
    assert!(!fixture.answers("client", "10.77.0.21:80", "worker-1"));
    lab.cut("worker-1").unwrap();
    assert!(!fixture.answers("worker-2", "10.77.0.21:80", "worker-1"));
    lab.heal("worker-1").unwrap();
    fixture.eventually("it answers", || fixture.answers("client", "10.77.0.21:80", "worker-1"));
}

#[test]
fn an_agent_can_be_frozen_alone_and_a_disk_filled() {
    let (mut options, folder) = Fixture::options("lt-disk");
    options.disk = Some(64 << 20);
    let lab = Lab::up(&options).unwrap_or_else(|error| panic!("{error}"));
    let fixture = Fixture { lab: Some(lab), name: "lt-disk".to_owned(), folder };
    let lab = fixture.lab();
    fixture
        .eventually("worker-1 answers", || fixture.answers("client", "10.77.0.21:80", "worker-1"));
    lab.pause_agent("worker-1").unwrap();
    assert!(!fixture.answers("client", "10.77.0.21:80", "worker-1"));
    lab.resume_agent("worker-1").unwrap();
    fixture.eventually("it goes on", || fixture.answers("client", "10.77.0.21:80", "worker-1"));

    let file = lab.data_path("worker-1").join("grows").display().to_string();
    let write = || {
        let line = format!("dd if=/dev/zero of={file} bs=64k count=4");
        lab.exec_output("worker-1", &["sh", "-c", &line]).unwrap().status.success()
    };
    assert!(write());
    fs::remove_file(&file).unwrap();
    lab.fill_disk("worker-1").unwrap();
    assert!(!write(), "a full disk takes more");
    lab.free_disk("worker-1").unwrap();
    assert!(write());
    // It outlives a power-off.
    lab.kill("worker-1").unwrap();
    lab.start("worker-1").unwrap();
    assert!(Path::new(&file).exists());
}
