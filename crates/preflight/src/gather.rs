//! Looking at the machine, and trying things where nobody sees it. What is changed here is gone when
//! this returns, also when it fails.

mod cgroup;
mod managers;
mod network;
mod port;
mod storage;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::facts::{Facts, Files, WorkerFacts};
use crate::{Options, Role};

/// Bound on programs that are asked.
const PROGRAM_MAX: Duration = Duration::from_secs(5);

/// All facts about this machine for the role.
pub async fn gather(options: &Options) -> Facts {
    let (managers, clocks) = managers::ask(options).await;
    let state = storage::state_folder(&options.data_dir);
    let worker = match options.role {
        Role::Manager => None,
        Role::Worker => Some(worker(options, &state.existing).await),
    };
    let name = options.name.clone().or_else(|| text("/proc/sys/kernel/hostname"));
    Facts {
        role: options.role,
        kernel: text("/proc/sys/kernel/osrelease").unwrap_or_default(),
        capabilities: capabilities().unwrap_or(0),
        name: name.unwrap_or_default(),
        state,
        port: port::look(options.listen, options.port),
        files: Files {
            nr_open: number("/proc/sys/fs/nr_open"),
            file_max: number("/proc/sys/fs/file-max"),
        },
        managers,
        clocks,
        clock_is_kept: clock_is_kept().await,
        worker,
    }
}

async fn worker(options: &Options, existing: &Path) -> WorkerFacts {
    let network = network::look(options).await;
    let (overlay, xattr) = storage::try_layers(existing);
    let smaller = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
    WorkerFacts {
        trial: network.trial,
        nft_version: network.nft_version,
        chains: network.chains,
        bridge: options.bridge.clone(),
        legacy_tables: network.legacy_tables,
        bridge_is_filtered: network.bridge_is_filtered,
        forwarding: network.forwarding,
        reverse_path: network.reverse_path,
        subnet: options.subnet,
        routes: network.routes,
        cgroup: cgroup::look(&options.cgroup_parent),
        overlay,
        xattr,
        local_ports: network.local_ports,
        reserved_ports: text("/proc/sys/net/ipv4/ip_local_reserved_ports").unwrap_or_default(),
        pids_max: smaller(
            number("/proc/sys/kernel/pid_max"),
            number("/proc/sys/kernel/threads-max"),
        ),
        inotify_instances: number("/proc/sys/fs/inotify/max_user_instances"),
    }
}

/// What a small file of the kernel says, without the line's end.
fn text(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn number(path: &str) -> Option<u64> {
    text(path)?.parse().ok()
}

fn capabilities() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// What systemd knows of it; other machines are not judged.
async fn clock_is_kept() -> Option<bool> {
    let asked = tokio::process::Command::new("timedatectl")
        .args(["show", "--property=NTPSynchronized", "--value"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PROGRAM_MAX, asked).await.ok()?.ok()?;
    match String::from_utf8_lossy(&output.stdout).trim() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_machine_is_looked_at_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            data_dir: folder.path().join("not/there"),
            managers: vec!["127.0.0.1:1".into(), "no address".into()],
            ..Options::new(Role::Worker)
        };
        let facts = gather(&options).await;
        assert!(facts.kernel.contains('.'), "{facts:?}");
        assert_eq!(facts.state.existing, folder.path());
        assert_eq!(facts.state.writable, Ok(()));
        assert!(facts.managers.iter().all(|manager| manager.outcome.is_err()), "{facts:?}");
        assert!(facts.worker.is_some());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "a scratch folder is left");
    }
}
