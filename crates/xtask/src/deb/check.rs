//! Install, upgrade, remove and purge the packages in a fresh Debian 12 in a folder: no systemd runs
//! there, so what is proved is files, modes, users and settings, not units that start.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::cargo;
use crate::setup::{self, Tool};

const TOOLS: &[Tool] =
    &[Tool { program: "mmdebstrap", package: "mmdebstrap", purpose: "a fresh Debian in a folder" }];
/// What our packages depend on or are looked at with.
const PACKAGES: &str = "systemd,nftables,ca-certificates,iproute2,man-db,bash-completion";
const MARK: &str = "CLUSTER_WORKER_LABEL=room=one\n";

/// A Debian in a folder.
struct Machine(PathBuf);

impl Machine {
    fn make(folder: &Path) -> Result<Self> {
        let root = folder.join("root");
        let mut command = Command::new("mmdebstrap");
        command.args(["--quiet", "--variant=apt", "--mode=root", "--include", PACKAGES]);
        // Pages must be there to be looked at, and a minimal Debian leaves them out.
        command.args(["--dpkgopt=path-include=/usr/share/man/*", "bookworm"]).arg(&root);
        cargo::run(&mut command)?;
        Ok(Self(root))
    }

    /// Runs a line of shell there, without a network.
    fn run(&self, line: &str) -> Result<String> {
        let mut command = Command::new("unshare");
        let mut proc = OsString::from("--mount-proc=");
        proc.push(self.0.join("proc"));
        command.args(["--net", "--mount", "--pid", "--fork"]).arg(proc).arg("chroot").arg(&self.0);
        command.args(["sh", "-ec", line]).env_clear().env("LANG", "C.UTF-8");
        command
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("DEBIAN_FRONTEND", "noninteractive");
        let output = command.output().with_context(|| format!("running `{line}`"))?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        ensure!(output.status.success(), "`{line}` failed ({}):\n{text}", output.status);
        Ok(text)
    }

    fn dpkg(&self, action: &str, debs: &[PathBuf]) -> Result<()> {
        let mut line = format!("dpkg {action}");
        for deb in debs {
            let name = deb.file_name().context("a package without a name")?;
            fs::copy(deb, self.0.join("tmp").join(name))
                .with_context(|| format!("copying {}", deb.display()))?;
            line.push_str(&format!(" /tmp/{}", name.to_string_lossy()));
        }
        self.run(&line).map(drop)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.path(path);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }

    /// Mode and owner, as in `0755 root`.
    fn mode(&self, path: &str) -> Result<String> {
        let metadata =
            fs::metadata(self.path(path)).with_context(|| format!("{path} is missing"))?;
        let owner = self.run(&format!("stat -c %U {path}"))?;
        let owner = match metadata.uid() {
            0 => "root",
            _ => owner.trim(),
        };
        Ok(format!("{:04o} {owner}", metadata.permissions().mode() & 0o7777))
    }

    fn gone(&self, path: &str) -> Result<()> {
        ensure!(fs::symlink_metadata(self.path(path)).is_err(), "{path} is still there");
        Ok(())
    }
}

/// `debs`, and their upgrade to version `next`.
pub fn run(debs: &[PathBuf], upgrade: &[PathBuf], next: &str) -> Result<()> {
    setup::ensure(&[TOOLS])?;
    let folder = tempfile::tempdir().context("making a folder")?;
    let machine = Machine::make(folder.path())?;
    let before = machine.run("find /etc /usr /var/lib -not -path '/var/lib/dpkg/*' | sort")?;
    installed(&machine, debs)?;
    upgraded(&machine, upgrade, next)?;
    removed(&machine)?;
    purged(&machine, &before)?;
    println!("    installed, upgraded, removed and purged on a fresh Debian 12");
    Ok(())
}

fn installed(machine: &Machine, debs: &[PathBuf]) -> Result<()> {
    machine.dpkg("--install", debs)?;
    for (path, expected) in [
        ("/usr/bin/cluster-manager", "0755 root"),
        ("/usr/bin/cluster-worker", "0755 root"),
        ("/usr/bin/cluster-shim", "0755 root"),
        ("/usr/bin/clusterctl", "0755 root"),
        ("/etc/default/cluster-manager", "0644 root"),
        ("/etc/default/cluster-worker", "0644 root"),
        ("/etc/cluster", "0755 root"),
        ("/var/lib/cluster-manager", "0700 cluster-manager"),
        ("/var/lib/cluster-worker", "0711 root"),
        ("/usr/share/man/man8/cluster-manager-recover.8.gz", "0644 root"),
        ("/usr/share/bash-completion/completions/clusterctl", "0644 root"),
    ] {
        let found = machine.mode(path)?;
        ensure!(found == expected, "{path} is {found}, not {expected}");
    }
    for program in ["cluster-manager", "cluster-worker", "clusterctl"] {
        let said = machine.run(&format!("{program} --version"))?;
        ensure!(said.starts_with(program), "{program} --version says {said}");
        machine
            .run(&format!("man --warnings=w -l /usr/share/man/man?/{program}.?.gz > /dev/null"))?;
    }
    // Programs agree with the files that they are started with.
    let completed = machine.run(
        "bash -c '. /usr/share/bash-completion/completions/clusterctl; \
         COMP_WORDS=(clusterctl ser); COMP_CWORD=1; _clusterctl clusterctl ser clusterctl; \
         echo \"${COMPREPLY[*]}\"'",
    )?;
    ensure!(completed.trim() == "service", "bash completes `ser` to {completed:?}");
    let enabled = machine.run("systemctl is-enabled cluster-manager cluster-worker || true")?;
    ensure!(enabled.lines().all(|line| line == "disabled"), "installing enabled a unit: {enabled}");
    Ok(())
}

fn upgraded(machine: &Machine, upgrade: &[PathBuf], next: &str) -> Result<()> {
    machine.write("/etc/default/cluster-worker", MARK)?;
    machine.write("/etc/cluster/manager.env", "CLUSTER_MANAGER_BOOTSTRAP=true\n")?;
    machine.write("/etc/cluster/worker.env", "CLUSTER_WORKER_JOIN=10.0.0.1:7100\n")?;
    machine.write("/var/lib/cluster-manager/log", "kept")?;
    machine.write("/var/lib/cluster-worker/image", "kept")?;
    machine.run("systemctl enable cluster-manager cluster-worker")?;
    machine.dpkg("--install", upgrade)?;
    let version = machine.run("dpkg-query -W -f '${Version}' cluster-worker")?;
    ensure!(version == next, "the upgrade left version {version}, not {next}");
    kept(machine, "an upgrade")?;
    ensure!(machine.mode("/var/lib/cluster-manager")? == "0700 cluster-manager");
    Ok(())
}

fn kept(machine: &Machine, step: &str) -> Result<()> {
    let settings = fs::read_to_string(machine.path("/etc/default/cluster-worker"))?;
    ensure!(settings == MARK, "{step} changed the settings: {settings}");
    for path in [
        "/etc/cluster/manager.env",
        "/etc/cluster/worker.env",
        "/var/lib/cluster-manager/log",
        "/var/lib/cluster-worker/image",
    ] {
        ensure!(machine.path(path).exists(), "{step} removed {path}");
    }
    Ok(())
}

fn removed(machine: &Machine) -> Result<()> {
    machine.dpkg("--remove cluster-manager cluster-worker clusterctl", &[])?;
    kept(machine, "removing")?;
    machine.gone("/usr/bin/cluster-shim")?;
    machine.gone("/usr/lib/systemd/system/cluster-worker.service")?;
    machine.run("getent passwd cluster-manager").context("removing took the user")?;
    Ok(())
}

fn purged(machine: &Machine, before: &str) -> Result<()> {
    // One after the other: the first must leave the other's settings.
    machine.dpkg("--purge cluster-manager", &[])?;
    ensure!(
        machine.path("/etc/cluster/worker.env").exists(),
        "the manager's purge took the worker's"
    );
    machine.gone("/etc/cluster/manager.env")?;
    machine.dpkg("--purge cluster-worker clusterctl", &[])?;
    for path in ["/etc/cluster", "/var/lib/cluster-manager", "/var/lib/cluster-worker"] {
        machine.gone(path)?;
    }
    ensure!(machine.run("getent passwd cluster-manager").is_err(), "the user is still there");
    ensure!(machine.run("getent group cluster-manager").is_err(), "the group is still there");
    let after = machine.run("find /etc /usr /var/lib -not -path '/var/lib/dpkg/*' | sort")?;
    let left: Vec<&str> = after.lines().filter(|line| !known(line, before)).collect();
    if !left.is_empty() {
        bail!("a purge leaves\n  {}", left.join("\n  "));
    }
    Ok(())
}

/// There before, or the machine's own bookkeeping.
fn known(path: &str, before: &str) -> bool {
    const OWN: [&str; 6] = [
        "/etc/passwd-",
        "/etc/group-",
        "/etc/shadow-",
        "/etc/gshadow-",
        "/etc/.pwd.lock",
        "/etc/systemd/system/multi-user.target.wants",
    ];
    OWN.contains(&path) || before.lines().any(|line| line == path)
}
