//! A stand-in for systemd: a script that notes what it is told and does what the test says a start
//! does.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use cluster_daemon::DataDirLock;
use tempfile::TempDir;

use super::*;

const SYSTEMCTL: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 9
echo "$*" >> calls
case "$1" in
show) echo "LoadState=$(cat load)"; echo "ActiveState=$(cat active)"; echo "SubState=$(cat sub)"
      echo "StatusText=busy"; echo "MainPID=0"; echo "InvocationID=i1"; echo "NRestarts=0";;
start) cp env seen-env; . ./on-start;;
disable) echo inactive > active;;
esac
"#;
const JOURNALCTL: &str = "#!/bin/sh\necho \"error: port 7101 is taken\"\n";

struct Machine {
    folder: TempDir,
    name: &'static str,
}

impl Machine {
    /// `on_start` is what a start does, in shell.
    fn new(on_start: &str) -> Self {
        let machine = Self { folder: tempfile::tempdir().unwrap(), name: "w1" };
        for (name, text) in [("systemctl", SYSTEMCTL), ("journalctl", JOURNALCTL)] {
            fs::write(machine.at(name), text).unwrap();
            fs::set_permissions(machine.at(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let files =
            [("load", "loaded"), ("active", "inactive"), ("sub", "dead"), ("on-start", on_start)];
        for (name, text) in files {
            fs::write(machine.at(name), text).unwrap();
        }
        machine
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn has(&self, name: &str) -> bool {
        self.at(name).exists()
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.at("calls")).unwrap_or_default()
    }

    fn settings(&self) -> Option<Settings> {
        env_file::read(&self.at("env")).unwrap().map(|text| env_file::parse(&text))
    }

    fn enlist(&self) -> Result<Outcome, Error> {
        self.enlist_within(Duration::from_secs(20))
    }

    fn enlist_within(&self, wait: Duration) -> Result<Outcome, Error> {
        let standing = || match (self.has("member"), self.has("identity")) {
            (true, _) => Standing::Member,
            (false, true) => Standing::Begun,
            _ => Standing::Stranger,
        };
        let plan = Plan {
            unit: "cluster-worker",
            command: "cluster-worker join",
            env_file: &self.at("env"),
            defaults: &self.at("defaults"),
            data_dir: &self.at("data"),
            kept: pairs(&[("CLUSTER_WORKER_NAME", self.name)]),
            asked: pairs(&[("CLUSTER_WORKER_NAME", self.name)]),
            transient: &["CLUSTER_WORKER_JOIN"],
            once: pairs(&[("CLUSTER_JOIN_TOKEN", "secret")]),
            standing: &standing,
            wait,
        };
        let systemd = Systemd::at(self.at("systemctl"), self.at("journalctl"));
        enlist(&plan, &systemd, &mut |_| {})
    }
}

fn pairs(settings: &[(&str, &str)]) -> Settings {
    settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

const READY: &str = "touch identity member; echo active > active; echo running > sub";

#[test]
fn a_machine_becomes_a_member_and_forgets_the_token() {
    let mut machine = Machine::new(READY);
    assert_eq!(machine.enlist().unwrap(), Outcome::Enlisted);
    let seen = fs::read_to_string(machine.at("seen-env")).unwrap();
    assert!(seen.contains("CLUSTER_JOIN_TOKEN=secret"), "the unit had it: {seen}");
    assert_eq!(machine.settings(), Some(pairs(&[("CLUSTER_WORKER_NAME", "w1")])));
    assert!(machine.calls().contains("enable cluster-worker.service"));

    let started = machine.calls().matches("start ").count();
    assert_eq!(machine.enlist().unwrap(), Outcome::Already);
    assert_eq!(machine.calls().matches("start ").count(), started, "nothing was started again");

    machine.name = "w2";
    let error = machine.enlist().unwrap_err().to_string();
    assert!(error.contains("CLUSTER_WORKER_NAME=w1 and not w2"), "{error}");
}

#[test]
fn a_start_that_fails_leaves_nothing_and_tells_the_last_words() {
    let machine = Machine::new("echo failed > active");
    let error = machine.enlist().unwrap_err();
    assert!(matches!(error, Error::Undone { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("port 7101 is taken"), "{text}");
    assert!(text.contains("`cluster-worker join` again"), "{text}");
    assert_eq!(machine.settings(), None);
    assert!(machine.calls().contains("disable --now cluster-worker.service"));
    // The right command works from here.
    fs::write(machine.at("on-start"), READY).unwrap();
    fs::write(machine.at("active"), "inactive").unwrap();
    assert_eq!(machine.enlist().unwrap(), Outcome::Enlisted);
}

#[test]
fn a_restarting_unit_counts_as_failed_at_once() {
    let machine = Machine::new("echo activating > active; echo auto-restart > sub");
    assert!(matches!(machine.enlist(), Err(Error::Undone { .. })));
}

#[test]
fn one_that_has_its_certificate_is_left_to_go_on() {
    let machine = Machine::new("touch identity; echo activating > active; echo start > sub");
    let error = machine.enlist_within(Duration::from_millis(500)).unwrap_err();
    assert!(matches!(error, Error::NotReady { .. }), "{error}");
    assert!(!machine.calls().contains("disable"));
    let kept = machine.settings().unwrap();
    assert!(kept.iter().any(|(name, _)| name == "CLUSTER_JOIN_TOKEN"), "it needs it still");
    // Given again, it finds a member and only tidies up.
    fs::write(machine.at("member"), "").unwrap();
    fs::write(machine.at("active"), "active").unwrap();
    assert_eq!(machine.enlist().unwrap(), Outcome::Already);
    assert_eq!(machine.settings(), Some(pairs(&[("CLUSTER_WORKER_NAME", "w1")])));
}

#[test]
fn what_an_interrupted_attempt_left_is_taken_over() {
    let machine = Machine::new(READY);
    let stale = pairs(&[("CLUSTER_JOIN_TOKEN", "stale"), ("CLUSTER_WORKER_NAME", "old")]);
    env_file::write(&machine.at("env"), "cluster-worker join", &stale).unwrap();
    assert_eq!(machine.enlist().unwrap(), Outcome::Enlisted);
    assert_eq!(machine.settings(), Some(pairs(&[("CLUSTER_WORKER_NAME", "w1")])));
}

#[test]
fn somebody_elses_file_comes_back() {
    let machine = Machine::new("echo failed > active");
    fs::write(machine.at("env"), "MINE=1\n").unwrap();
    assert!(machine.enlist().is_err());
    assert_eq!(machine.settings(), Some(pairs(&[("MINE", "1")])));
}

#[test]
fn refusals_change_nothing() {
    let machine = Machine::new(READY);
    fs::write(machine.at("load"), "not-found").unwrap();
    let error = machine.enlist().unwrap_err().to_string();
    assert!(error.contains("install the package cluster-worker"), "{error}");

    fs::write(machine.at("load"), "loaded").unwrap();
    fs::write(machine.at("defaults"), "CLUSTER_WORKER_NAME=other\n").unwrap();
    let error = machine.enlist().unwrap_err().to_string();
    assert!(error.contains("CLUSTER_WORKER_NAME=other"), "{error}");
    fs::remove_file(machine.at("defaults")).unwrap();

    let held = DataDirLock::acquire(&machine.at("data")).unwrap();
    let error = machine.enlist().unwrap_err().to_string();
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    drop(held);

    fs::write(machine.at("active"), "active").unwrap();
    let error = machine.enlist().unwrap_err().to_string();
    assert!(error.contains("systemctl stop cluster-worker"), "{error}");
    assert!(!machine.has("env") && !machine.has("seen-env"), "nothing was written or started");
}

#[test]
fn a_members_settings_come_back_when_another_attempt_fails() {
    let machine = Machine::new("echo failed > active");
    let kept = pairs(&[("CLUSTER_WORKER_NAME", "w1"), ("CLUSTER_WORKER_LABEL", "rack=a")]);
    env_file::write(&machine.at("env"), "cluster-worker join", &kept).unwrap();
    assert!(matches!(machine.enlist(), Err(Error::Undone { .. })));
    assert_eq!(machine.settings(), Some(kept));
}

#[test]
fn another_token_in_the_users_file_is_refused_and_shown_nowhere() {
    let machine = Machine::new(READY);
    fs::write(machine.at("defaults"), "CLUSTER_JOIN_TOKEN=older\n").unwrap();
    let error = machine.enlist().unwrap_err().to_string();
    assert!(error.contains("CLUSTER_JOIN_TOKEN") && error.contains(HIDDEN), "{error}");
    assert!(!error.contains("older") && !error.contains("secret"), "{error}");
    assert!(!machine.has("seen-env"), "nothing was started");
}

#[test]
fn a_data_folder_of_the_users_file_must_be_the_one_that_is_looked_at() {
    let machine = Machine::new(READY);
    fs::write(machine.at("defaults"), "CLUSTER_WORKER_DATA_DIR=/elsewhere\n").unwrap();
    let error = machine.enlist().unwrap_err().to_string();
    assert!(error.contains("CLUSTER_WORKER_DATA_DIR=/elsewhere"), "{error}");
}

#[test]
fn one_that_waits_for_its_next_start_is_started_anew_and_waited_for() {
    let machine = Machine::new(READY);
    fs::write(machine.at("identity"), "").unwrap();
    fs::write(machine.at("active"), "activating").unwrap();
    fs::write(machine.at("sub"), "auto-restart").unwrap();
    assert_eq!(machine.enlist().unwrap(), Outcome::Enlisted);
    let calls = machine.calls();
    assert!(calls.find("stop ") < calls.find("start ") && calls.contains("stop "), "{calls}");
}

#[test]
fn what_the_user_set_right_afterwards_counts() {
    let mut machine = Machine::new(READY);
    assert_eq!(machine.enlist().unwrap(), Outcome::Enlisted);
    machine.name = "w2";
    fs::write(machine.at("defaults"), "CLUSTER_WORKER_NAME=w2\n").unwrap();
    assert_eq!(machine.enlist().unwrap(), Outcome::Already);
}

#[test]
fn a_token_that_stays_is_told() {
    let machine = Machine::new("touch identity; echo failed > active");
    let error = machine.enlist().unwrap_err();
    assert!(matches!(&error, Error::NotReady { env_file: Some(_), .. }), "{error:?}");
    assert!(error.to_string().contains("take the join token out of"), "{error}");
    // A member's does not.
    let machine = Machine::new("touch identity member; echo failed > active");
    let error = machine.enlist().unwrap_err();
    assert!(matches!(&error, Error::NotReady { env_file: None, .. }), "{error:?}");
    assert_eq!(machine.settings(), Some(pairs(&[("CLUSTER_WORKER_NAME", "w1")])));
}

/// The certificate came while the unit was being stopped.
#[test]
fn a_certificate_of_the_last_moment_is_not_thrown_away() {
    let machine = Machine::new(
        "if [ -e identity ]; then echo active > active; else echo failed > active; fi",
    );
    let script = SYSTEMCTL.replace("disable) ", "disable) touch identity; ");
    fs::write(machine.at("systemctl"), script).unwrap();
    let error = machine.enlist().unwrap_err();
    assert!(matches!(&error, Error::NotReady { .. }), "{error:?}");
    let calls = machine.calls();
    assert_eq!(calls.matches("enable cluster").count(), 2, "{calls}");
    assert!(machine.settings().is_some());
}
