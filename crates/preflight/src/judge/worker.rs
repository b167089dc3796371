//! What a worker needs beside the network.

use crate::Level;
use crate::facts::{Cgroup, Facts, Unified};

use super::{Verdict, bad, ok};

const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
const PIDS_MIN: u64 = 32_768;
/// A few programs that watch files on a machine of some dozens of containers.
const INOTIFY_MIN: u64 = 512;
const UNIFY: &str = "boot with cgroup v2: add systemd.unified_cgroup_hierarchy=1 to \
                     GRUB_CMDLINE_LINUX in /etc/default/grub, `update-grub`, reboot";

pub(super) fn cgroup(facts: &Facts) -> Option<Verdict> {
    match &facts.worker.as_ref()?.cgroup {
        Cgroup::None => bad(
            Level::Fail,
            "no cgroup hierarchy is mounted",
            "`mount -t cgroup2 none /sys/fs/cgroup` (systemd does it at boot)",
        ),
        Cgroup::V1(controllers) => v1(controllers),
        Cgroup::V2(unified) => v2(unified),
    }
}

fn v1(controllers: &[(&'static str, Result<(), String>)]) -> Option<Verdict> {
    let broken: Vec<String> = controllers
        .iter()
        .filter_map(|(name, made)| Some(format!("{name}: {}", made.as_ref().err()?)))
        .collect();
    if broken.is_empty() {
        return bad(Level::Warn, "version 1: works, but systemd and kernels are leaving it", UNIFY);
    }
    let seen = format!("version 1, and no groups can be made: {}", broken.join("; "));
    bad(Level::Fail, seen, format!("{UNIFY}; in a container, mount its cgroups writable"))
}

fn v2(unified: &Unified) -> Option<Verdict> {
    let folder = unified.folder.display();
    let delegate = format!(
        "the worker needs a cgroup of its own with all controllers: start it from its unit, which has \
         Delegate=yes; in a container, mount {folder} writable with a private cgroup namespace"
    );
    if let Err(error) = &unified.creatable {
        return bad(Level::Fail, format!("no group can be made in {folder}: {error}"), delegate);
    }
    let absent = |set: &std::collections::BTreeSet<String>| -> Vec<&str> {
        CONTROLLERS.into_iter().filter(|name| !set.contains(*name)).collect()
    };
    let unavailable = absent(&unified.available);
    if !unavailable.is_empty() {
        let seen = format!("{folder} does not have: {}", unavailable.join(", "));
        let fix = format!(
            "{delegate}; if the machine's root lacks them too (`cat /sys/fs/cgroup/cgroup.controllers`), \
             remove cgroup_disable=… from the kernel's command line"
        );
        return bad(Level::Fail, seen, fix);
    }
    let withheld = absent(&unified.enabled);
    if !withheld.is_empty() && !unified.can_enable {
        let seen = format!("{folder} does not hand down: {}", withheld.join(", "));
        return bad(Level::Fail, seen, delegate);
    }
    match withheld.is_empty() {
        true => ok(format!("version 2; {} handed down", CONTROLLERS.join(", "))),
        false => ok(format!("version 2; {} can be handed down", CONTROLLERS.join(", "))),
    }
}

pub(super) fn overlay(facts: &Facts) -> Option<Verdict> {
    let path = facts.state.path.display();
    match &facts.worker.as_ref()?.overlay {
        Ok(()) => ok(format!("mounted and written in the file system of {path}")),
        Err(error) => bad(
            Level::Fail,
            format!("no overlay mount in the file system of {path}: {error}"),
            "keep the state on ext4, or XFS made with ftype=1 (not on NFS, tmpfs of old kernels, or \
             another overlay): mount such a disk there, or choose another --data-dir; the kernel must \
             have overlayfs (`modprobe overlay`)",
        ),
    }
}

pub(super) fn xattr(facts: &Facts) -> Option<Verdict> {
    match &facts.worker.as_ref()?.xattr {
        Ok(()) => ok("kept"),
        Err(error) => bad(
            Level::Fail,
            format!("extended attributes cannot be set: {error}"),
            "keep the state on a file system with extended attributes (ext4, XFS, btrfs), not mounted \
             with nouser_xattr; run this as root",
        ),
    }
}

pub(super) fn pids(facts: &Facts) -> Option<Verdict> {
    let most = facts.worker.as_ref()?.pids_max?;
    if most >= PIDS_MIN {
        return ok(format!("{most} processes and threads"));
    }
    bad(
        Level::Warn,
        format!("{most} processes and threads at most"),
        "`sysctl -w kernel.pid_max=4194304 kernel.threads-max=131072`, and the same in \
         /etc/sysctl.d/60-cluster.conf",
    )
}

pub(super) fn inotify(facts: &Facts) -> Option<Verdict> {
    let instances = facts.worker.as_ref()?.inotify_instances?;
    if instances >= INOTIFY_MIN {
        return ok(format!("{instances} instances for each user"));
    }
    bad(
        Level::Warn,
        format!("{instances} instances for each user"),
        "`sysctl -w fs.inotify.max_user_instances=8192 fs.inotify.max_user_watches=524288`, and the \
         same in /etc/sysctl.d/60-cluster.conf",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::sample::worker_spoiled;

    fn unified(spoil: fn(&mut Unified)) -> crate::Finding {
        worker_spoiled("cgroup", |w| match &mut w.cgroup {
            Cgroup::V2(unified) => spoil(unified),
            _ => unreachable!("the sample has version 2"),
        })
    }

    #[test]
    fn a_group_without_delegation() {
        let made = unified(|u| u.creatable = Err("Read-only file system".into()));
        assert_eq!(made.level, Level::Fail);
        assert!(made.fix.contains("Delegate=yes"));
        let lacking = unified(|u| {
            u.available.remove("memory");
        });
        assert_eq!(lacking.level, Level::Fail);
        assert!(lacking.seen.ends_with("does not have: memory"));
        let withheld = unified(|u| {
            u.enabled.clear();
            u.can_enable = false;
        });
        assert_eq!(withheld.level, Level::Fail);
        assert!(withheld.seen.contains("cpu, memory, pids"));
    }

    #[test]
    fn controllers_that_are_only_not_handed_down_yet_are_fine() {
        assert_eq!(unified(|u| u.enabled.clear()).level, Level::Ok);
    }

    #[test]
    fn version_one_works_and_is_told() {
        let found = |made: Result<(), String>| {
            worker_spoiled("cgroup", |w| w.cgroup = Cgroup::V1(vec![("memory", made)]))
        };
        assert_eq!(found(Ok(())).level, Level::Warn);
        let broken = found(Err("not mounted".into()));
        assert_eq!(broken.level, Level::Fail);
        assert!(broken.seen.contains("memory: not mounted"));
        assert_eq!(worker_spoiled("cgroup", |w| w.cgroup = Cgroup::None).level, Level::Fail);
    }

    #[test]
    fn a_file_system_that_cannot_hold_containers() {
        let overlay = worker_spoiled("overlay", |w| w.overlay = Err("Invalid argument".into()));
        assert_eq!(overlay.level, Level::Fail);
        assert!(overlay.fix.contains("ftype=1"));
        assert_eq!(worker_spoiled("xattr", |w| w.xattr = Err("no".into())).level, Level::Fail);
    }

    #[test]
    fn small_allowances_are_worth_a_word() {
        assert_eq!(worker_spoiled("pids-limit", |w| w.pids_max = Some(4096)).level, Level::Warn);
        let few = worker_spoiled("inotify", |w| w.inotify_instances = Some(128));
        assert_eq!(few.level, Level::Warn);
    }
}
