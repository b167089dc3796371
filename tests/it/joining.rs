//! `init`, `join` and `clusterctl cluster init` on real daemons; systemd is a stand-in. Every wrong
//! step ends in a clear message and a state from which the right command works.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use cluster_lab::Place;
use cluster_tests::unit::Unit;
use cluster_tests::{Cluster, Ran, install};

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}

/// A machine that becomes a manager on loopback.
struct Machine {
    unit: Unit,
    address: String,
    name: &'static str,
}

impl Machine {
    fn new(name: &'static str) -> Self {
        let unit = Unit::new("cluster-manager", "");
        Self { unit, address: format!("127.0.0.1:{}", free_port()), name }
    }

    fn args<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        let own = ["--advertise", &self.address, "--listen", &self.address, "--name", self.name];
        [args, &own].concat()
    }

    fn init(&self, args: &[&str]) -> Ran {
        self.unit.run(&self.args(&[&["init"], args].concat()))
    }

    fn join(&self, token: &str, managers: &[&str]) -> Ran {
        self.unit.run(&self.args(&[&["join", "--token", token], managers].concat()))
    }

    /// Founds a cluster; its join tokens for workers and managers.
    fn found(&self) -> (String, String) {
        let ran = self.init(&[]);
        assert_eq!(ran.code, 0, "{ran:?}");
        let token = |role: &str| {
            let line =
                ran.stdout.lines().find(|line| line.contains(&format!("{role} join --token ")));
            let line = line.unwrap_or_else(|| panic!("no command for a {role}: {ran:?}"));
            let words: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(words.last(), Some(&self.address.as_str()));
            words[3].to_owned()
        };
        (token("cluster-worker"), token("cluster-manager"))
    }

    /// Refused, saying all of this, and nothing is left: no settings, no enabled unit.
    fn refused(&self, ran: &Ran, says: &[&str]) {
        assert_eq!(ran.code, 1, "{ran:?}");
        for text in says {
            assert!(ran.stderr.contains(text), "it does not say `{text}`: {}", ran.stderr);
        }
        assert_eq!(self.unit.settings(), None);
    }
}

#[test]
fn a_machine_founds_a_cluster_and_another_joins() {
    let (first, second) = (Machine::new("m1"), Machine::new("m2"));
    let (worker_token, token) = first.found();
    let settings = first.unit.settings().expect("settings");
    assert!(settings.contains(&format!("CLUSTER_MANAGER_ADVERTISE={}", first.address)));
    assert!(!settings.contains("BOOTSTRAP"), "needed once: {settings}");

    // Again: nothing changes, and the commands are told again.
    let again = first.init(&[]);
    assert_eq!(again.code, 0, "{again:?}");
    assert!(again.stderr.contains("already") && again.stdout.contains(&token), "{again:?}");
    assert_eq!(first.unit.calls().matches("start ").count(), 1);
    let other = first.unit.run(&["init", "--advertise", "127.0.0.1:1"]);
    assert_eq!(other.code, 1, "{other:?}");
    assert!(other.stderr.contains("127.0.0.1:1") && other.stderr.contains("already"), "{other:?}");
    let other = first.init(&["--cluster-name", "other"]);
    assert!(other.code == 1 && other.stderr.contains("`cluster`"), "{other:?}");

    let wrong = second.join(&worker_token, &[&first.address]);
    second.refused(&wrong, &["--role manager"]);
    let joined = second.join(&token, &[&first.address]);
    assert_eq!(joined.code, 0, "{joined:?}");
    let settings = second.unit.settings().expect("settings");
    assert!(!settings.contains("TOKEN") && !settings.contains("JOIN"), "needed once: {settings}");
    let secret = token.rsplit('-').next().expect("a secret");
    assert!(!joined.stdout.contains(secret) && !joined.stderr.contains(secret), "{joined:?}");
    assert_eq!(second.join(&token, &[&first.address]).code, 0);

    // With no settings and no daemon, but the folder, the same command goes on.
    second.unit.kill();
    fs::remove_file(second.unit.path("unit.env")).expect("removed");
    let back = second.join(&token, &[&first.address]);
    assert_eq!(back.code, 0, "{back:?}");
    // And a machine of this cluster founds none.
    let founding = second.init(&[]);
    assert!(founding.code == 1 && founding.stderr.contains("which it joined"), "{founding:?}");

    // A token of another cluster does not move it.
    let third = Machine::new("m3");
    let (_, foreign) = third.found();
    let moved = second.join(&foreign, &[&third.address]);
    assert_eq!(moved.code, 1, "{moved:?}");
    assert!(moved.stderr.contains("of another cluster"), "{moved:?}");
}

#[test]
fn what_goes_wrong_while_joining_is_named_and_leaves_nothing() {
    let first = Machine::new("m1");
    let (_, token) = first.found();
    let second = Machine::new("m2");

    // Nobody listens there, and nobody answers there.
    let begun = Instant::now();
    let ran = second.join(&token, &["127.0.0.1:1"]);
    second.refused(&ran, &["managers", "127.0.0.1:1: Connection refused", "nothing was changed"]);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    let ran = second.join(&token, &["no-such-host.invalid:7100"]);
    second.refused(&ran, &["no-such-host.invalid:7100"]);

    // Somebody else listens there.
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let wrong = other.local_addr().expect("its address").to_string();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = other.accept() {
            let _ = stream.write_all(b"SSH-2.0-something\r\n");
        }
    });
    let ran = second.join(&token, &[&wrong]);
    second.refused(&ran, &[&wrong, "does not speak TLS"]);

    // The port is taken.
    let taken = TcpListener::bind(&second.address).expect("the port");
    let ran = second.join(&token, &[&first.address]);
    second.refused(&ran, &["port", "is held by", "--listen"]);
    // Let through, the daemon's own words are shown, and all is taken back.
    let ran = second.join(&token, &[&first.address, "--ignore-preflight", "port"]);
    second.refused(&ran, &["cannot listen on", "again"]);
    assert!(second.unit.calls().contains("disable"), "{}", second.unit.calls());
    drop(taken);

    // The state folder is read-only.
    let mount = format!(
        "mkdir -p {0} && mount -t tmpfs -o ro,size=900m tmpfs {0}",
        second.unit.data().display()
    );
    let ran =
        second.unit.run_after(&mount, &second.args(&["join", "--token", &token, &first.address]));
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("read-only") && ran.stderr.contains("remount,rw"), "{ran:?}");

    // The name is taken by another node.
    let same = Machine::new("m1");
    let ran = same.join(&token, &[&first.address]);
    same.refused(&ran, &["`m1` is already taken", "--name NAME"]);

    // The right command works from here.
    let ran = second.join(&token, &[&first.address]);
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn a_second_install_over_a_running_one_is_recognised() {
    let machine = Machine::new("m1");
    machine.found();
    // As a second unit on the same machine would see it: the folder is in use, the port is held.
    let stranger = Unit::new("cluster-manager", "");
    let data = machine.unit.data().display().to_string();
    let words = ["init", "--data-dir", &data];
    let mut line = stranger.words(&[&words[..1], &["--advertise", &machine.address]].concat());
    let place = line.iter().position(|word| word == "--data-dir").expect("the folder") + 1;
    line[place].clone_from(&data);
    let output = Command::new(&line[0]).args(&line[1..]).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("process") && said.contains("is not cluster-manager.service"), "{said}");
    assert_eq!(stranger.settings(), None);
}

#[test]
fn a_worker_joins_from_its_own_command() {
    let cluster = Cluster::bare("enlist", 1, 0, |_| {});
    let run_dir = "/run/cluster-test-enlist";
    let unit = Unit::new(
        "cluster-worker",
        &format!("--run-dir {run_dir} --cgroup-parent /clustertest-enlist"),
    );
    let manager = format!("{}:7100", cluster.address("manager-1"));
    let token = cluster.good(&["cluster", "token", "--role", "worker", "--quiet"]);
    let join = |args: &[&str]| -> Ran {
        let all = [&["join", "--token", token.trim(), "--label", "rack=a"], args].concat();
        cluster.lab().exec_output(Place::Client, &unit.words(&all)).expect("it starts").into()
    };
    let wrong = join(&[&manager, "--name", "a b"]);
    assert!(wrong.code == 1 && wrong.stderr.contains("--name"), "{wrong:?}");

    // An address that nobody has: named, and given up soon.
    let [a, b, c, _] = cluster.address("manager-1").octets();
    let nowhere = format!("{a}.{b}.{c}.250:7100");
    let begun = Instant::now();
    let ran = join(&[&nowhere, "--name", "joined"]);
    assert!(ran.code == 1 && ran.stderr.contains(&nowhere), "{ran:?}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());

    // No cgroups that can be written: told with the fix, and nothing is left.
    let words = unit.words(&["join", "--token", token.trim(), &manager, "--name", "joined"]);
    let script = "for m in $(findmnt -rno TARGET -t cgroup,cgroup2); do mount -o remount,bind,ro $m; \
                  done && exec \"$@\"";
    let before = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sh"];
    let words: Vec<String> = before.iter().map(|word| (*word).to_owned()).chain(words).collect();
    let ran: Ran = cluster.lab().exec_output(Place::Client, &words).expect("it starts").into();
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("FAIL      cgroup"), "{}", ran.stderr);
    assert_eq!(unit.settings(), None);

    let ran = join(&[&manager, "--name", "joined"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("`joined`"), "{ran:?}");
    let settings = unit.settings().expect("settings");
    assert!(settings.contains("CLUSTER_WORKER_LABEL=rack=a"), "{settings}");
    assert!(!settings.contains("TOKEN"), "{settings}");
    let nodes = cluster.good(&["node", "ls"]);
    assert!(nodes.contains("joined"), "{nodes}");
    let again = join(&[&manager, "--name", "joined"]);
    assert!(again.code == 0 && again.stderr.contains("already"), "{again:?}");

    // Its name is taken now, for another machine.
    let second = Unit::new("cluster-worker", &format!("--run-dir {run_dir}-2"));
    let words =
        ["join", "--token", token.trim(), &manager, "--name", "joined", "--mesh-port", "7201"];
    let ran: Ran =
        cluster.lab().exec_output(Place::Client, &second.words(&words)).expect("it starts").into();
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("joined") && ran.stderr.contains("--name NAME"), "{}", ran.stderr);
    assert_eq!(second.settings(), None);
    unit.kill();
    let _ = fs::remove_dir_all(run_dir);
}

/// Stands in for ssh: the host's name is a folder here, whose programs come first.
const SSH: &str = r#"#!/bin/sh
here=$(dirname "$0")
while [ "$1" != -- ]; do shift; done
host=$2; shift 2
echo "$host: $*" >> "$here/ssh-calls"
[ -d "$here/$host" ] || { echo "ssh: connect to host $host: No route to host" >&2; exit 255; }
PATH="$here/$host:$PATH" exec sh -c "$*"
"#;

#[test]
fn one_command_sets_up_a_cluster_over_ssh_and_goes_on_after_a_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = |path: &Path, text: &str| {
        fs::write(path, text).expect("a script");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("executable");
    };
    script(&folder.path().join("ssh"), SSH);
    let machines = [Machine::new("m1"), Machine::new("m2")];
    // On its machine the daemon's program has these options by default.
    let host = |machine: &Machine| {
        let place = folder.path().join(format!("root@{}", machine.name));
        fs::create_dir_all(&place).expect("a host");
        let words = machine.unit.words(&machine.args(&["VERB"]));
        let options: Vec<&str> = words[4..].iter().map(String::as_str).collect();
        let line = format!(
            "#!/bin/sh\nverb=$1; shift\nexec {} {} \"$verb\" {} \"$@\"\n",
            words[..2].join(" "),
            words[2],
            options.join(" ")
        );
        script(&place.join("cluster-manager"), &line);
        let admin = machine.unit.data().join("admin.json");
        script(&place.join("cat"), &format!("#!/bin/sh\nexec /bin/cat {}\n", admin.display()));
    };
    host(&machines[0]);
    let run = || -> Ran {
        let ssh = folder.path().join("ssh").display().to_string();
        let hosts = ["--ssh", "root@m1", "root@m2"];
        let mut command = Command::new(install::bin_dir().join("clusterctl"));
        command.args(["cluster", "init"]).args(hosts).args(["--ssh-program", &ssh]);
        command.env("CLUSTERCTL_CONFIG", folder.path().join("config"));
        command.output().expect("clusterctl starts").into()
    };
    let ran = run();
    assert_eq!(ran.code, 3, "{ran:?}");
    for text in ["root@m2: ssh failed", "No route to host", "so far: root@m1", "same command again"]
    {
        assert!(ran.stderr.contains(text), "it does not say `{text}`: {}", ran.stderr);
    }
    host(&machines[1]);
    let ran = run();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("done: 2 managers"), "{ran:?}");
    let calls = fs::read_to_string(folder.path().join("ssh-calls")).expect("calls");
    assert!(!calls.contains("CLUSTER-1-"), "no token on a command line: {calls}");
    let mut command = Command::new(install::bin_dir().join("clusterctl"));
    command.args(["manager", "ls"]).env("CLUSTERCTL_CONFIG", folder.path().join("config"));
    let listed: Ran = command.output().expect("clusterctl starts").into();
    assert!(listed.stdout.contains("m1") && listed.stdout.contains("m2"), "{listed:?}");
}
