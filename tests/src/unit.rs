//! A machine whose systemd is a script: it starts the real daemon with the settings that `init` and
//! `join` wrote, and says of it what systemd would.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::cluster::Ran;
use crate::install;

/// Settings become flags, so that the daemon needs no environment of its own.
const SYSTEMCTL: &str = r##"#!/bin/sh
here=$(dirname "$0")
cd "$here" || exit 9
echo "$*" >> calls
stop() {
    [ -e pid ] || return 0
    kill "$(cat pid)" 2>/dev/null
    n=0; while [ ! -e exit ] && [ $n -lt 200 ]; do sleep 0.05; n=$((n+1)); done
    rm -f pid
}
case "$1" in
show)
    echo "LoadState=loaded"
    if [ ! -e pid ]; then echo "ActiveState=inactive"; echo "SubState=dead"
    elif [ -e exit ]; then echo "ActiveState=activating"; echo "SubState=auto-restart"
    elif grep -q 'manager ready\| ready node_id' log; then
        echo "ActiveState=active"; echo "SubState=running"; echo "MainPID=$(cat pid)"
    else echo "ActiveState=activating"; echo "SubState=start"; echo "MainPID=$(cat pid)"
    fi;;
start)
    [ -e pid ] && [ ! -e exit ] && exit 0
    rm -f exit; : > log
    set -- $(cat extra)
    while IFS='=' read -r name value; do
        case "$name" in
        "#"*) ;;
        CLUSTER_JOIN_TOKEN) CLUSTER_JOIN_TOKEN=$value; export CLUSTER_JOIN_TOKEN;;
        *)  option=--$(echo "$name" | sed 's/^CLUSTER_[A-Z]*_//' | tr 'A-Z_' 'a-z-')
            if [ "$value" = true ]; then set -- "$@" "$option"; else set -- "$@" "$option" "$value"; fi;;
        esac
    done < unit.env
    (setsid "$(cat program)" "$@" > log 2>&1 & echo $! > pid; wait $!; echo $? > exit) \
        < /dev/null > /dev/null 2>&1 &
    while [ ! -s pid ]; do sleep 0.01; done;;
disable) stop;;
esac
"##;
const JOURNALCTL: &str = "#!/bin/sh\ntail -n 20 \"$(dirname \"$0\")/log\"\n";

/// One machine, with one daemon.
pub struct Unit {
    root: TempDir,
    program: &'static str,
}

impl Unit {
    /// `extra` are flags of the daemon that its settings do not have.
    pub fn new(program: &'static str, extra: &str) -> Self {
        // Layers of containers cannot lie on every file system.
        let root = tempfile::tempdir_in("/var/tmp").expect("a folder");
        let unit = Self { root, program };
        for (name, text) in [("systemctl", SYSTEMCTL), ("journalctl", JOURNALCTL)] {
            fs::write(unit.path(name), text).expect("a script");
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(unit.path(name), mode).expect("an executable script");
        }
        let binary = install::bin_dir().join(program).display().to_string();
        for (name, text) in [("program", binary.as_str()), ("extra", extra)] {
            fs::write(unit.path(name), text).expect("a file");
        }
        unit
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// The settings that the unit has, if there are any.
    pub fn settings(&self) -> Option<String> {
        fs::read_to_string(self.path("unit.env")).ok()
    }

    /// What systemd was told.
    pub fn calls(&self) -> String {
        fs::read_to_string(self.path("calls")).unwrap_or_default()
    }

    /// The words of a command of the daemon's program on this machine.
    pub fn words(&self, args: &[&str]) -> Vec<String> {
        let path = std::env::var("PATH").unwrap_or_default();
        let program = install::bin_dir().join(self.program);
        let (verb, rest) = args.split_first().expect("a verb");
        let mut words = vec![
            "env".to_owned(),
            format!("PATH={}:{path}", self.root.path().display()),
            program.display().to_string(),
            (*verb).to_owned(),
        ];
        let files =
            [("--env-file", "unit.env"), ("--defaults-file", "defaults"), ("--data-dir", "data")];
        for (option, name) in files {
            words.extend([option.to_owned(), self.path(name).display().to_string()]);
        }
        words.extend(rest.iter().map(|word| (*word).to_owned()));
        words
    }

    /// Runs it here.
    pub fn run(&self, args: &[&str]) -> Ran {
        ran(&self.words(args))
    }

    /// Runs it here, after `script` has prepared mounts that only it sees.
    pub fn run_after(&self, script: &str, args: &[&str]) -> Ran {
        let script = format!("{script} && exec \"$@\"");
        let before = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", &script, "sh"];
        let mut words: Vec<String> = before.iter().map(|word| (*word).to_owned()).collect();
        words.extend(self.words(args));
        ran(&words)
    }

    /// Ends the daemon, as a power cut of its unit would.
    pub fn kill(&self) {
        let Ok(pid) = fs::read_to_string(self.path("pid")) else { return };
        let _ = Command::new("kill").args(["-9", pid.trim()]).status();
        let gone = Path::new("/proc").join(pid.trim());
        for _ in 0..200 {
            if !gone.exists() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let _ = fs::remove_file(self.path("pid"));
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        self.kill();
    }
}

fn ran(words: &[String]) -> Ran {
    let output =
        Command::new(&words[0]).args(&words[1..]).env_remove("CLUSTER_JOIN_TOKEN").output();
    Ran::from(output.expect("the command starts"))
}
