//! What both roles need.

use crate::facts::{ClockRead, Facts, PortState};
use crate::{Level, Role};

use super::{Verdict, bad, ok};

const CAPABILITIES: &[(&str, u32)] = &[
    ("CAP_CHOWN", 0),
    ("CAP_DAC_OVERRIDE", 1),
    ("CAP_KILL", 5),
    ("CAP_SETGID", 6),
    ("CAP_SETUID", 7),
    ("CAP_NET_BIND_SERVICE", BIND),
    ("CAP_NET_ADMIN", 12),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_MKNOD", 27),
];
const BIND: u32 = 10;
/// Below, a daemon would soon stop.
const FREE_MIN: u64 = 512 << 20;
const FREE_LOW_MANAGER: u64 = 2 << 30;
const FREE_LOW_WORKER: u64 = 5 << 30;
/// What the units ask for.
const FILES_MIN: u64 = 65_536;
/// The managers' own bound.
const SKEW_MAX_MS: u64 = 30 * 60 * 1000;
const SKEW_LOW_MS: u64 = 2_000;

pub(super) fn kernel(facts: &Facts) -> Option<Verdict> {
    let mut numbers = facts.kernel.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        let fix = "look with `uname -r`; 5.10 or later is needed";
        return bad(Level::Warn, format!("`{}` is no version", facts.kernel), fix);
    };
    let fix =
        "install a kernel of 5.10 or later (Debian 11, Ubuntu 22.04 and newer have one), reboot";
    match (major, minor) {
        (6.., _) | (5, 13..) => ok(&facts.kernel),
        (5, 10..) => ok(format!("{} (5.13 or later is better tested)", facts.kernel)),
        _ if facts.role == Role::Manager => bad(Level::Warn, &facts.kernel, fix),
        _ => bad(Level::Fail, &facts.kernel, fix),
    }
}

pub(super) fn capabilities(facts: &Facts) -> Option<Verdict> {
    let needed = |bit: u32| match facts.role {
        Role::Worker => true,
        Role::Manager => bit == BIND && facts.port.number < 1024,
    };
    let missing: Vec<&str> = CAPABILITIES
        .iter()
        .filter(|(_, bit)| needed(*bit) && facts.capabilities >> bit & 1 == 0)
        .map(|(name, _)| *name)
        .collect();
    if missing.is_empty() {
        return ok("all that are needed");
    }
    let fix = "run this with sudo; in a container or VM that withholds them, start it with them (a \
               worker needs a machine of its own or a privileged container)";
    bad(Level::Fail, format!("missing: {}", missing.join(", ")), fix)
}

pub(super) fn name(facts: &Facts) -> Option<Verdict> {
    let name = &facts.name;
    if let Err(invalid) = cluster_model::validate::name("name", name) {
        let fix = "set another with `hostnamectl hostname NAME`, or give --name NAME";
        return bad(Level::Fail, format!("`{}`: {}", shown(name), invalid.problem), fix);
    }
    if name == "localhost" || name.starts_with("localhost.") {
        let fix = "name the machine with `hostnamectl hostname NAME`, or give --name NAME";
        return bad(Level::Warn, format!("`{name}`, which other machines may be called too"), fix);
    }
    ok(format!("`{name}`"))
}

pub(super) fn state_folder(facts: &Facts) -> Option<Verdict> {
    let state = &facts.state;
    let path = state.path.display();
    let on = state.existing.display();
    if state.read_only {
        let fix = format!(
            "mount it writable (`mount -o remount,rw $(findmnt -no TARGET -T {on})`; see `dmesg` for \
             why it is not), or keep the state elsewhere with --data-dir"
        );
        return bad(Level::Fail, format!("the file system of {path} is read-only"), fix);
    }
    if let Err(error) = &state.writable {
        let fix = format!("give root the right to write in {on}, or choose another --data-dir");
        return bad(Level::Fail, format!("{path} cannot be written: {error}"), fix);
    }
    if facts.role == Role::Worker && state.no_exec {
        let fix =
            format!("`mount -o remount,exec $(findmnt -no TARGET -T {on})`, also in /etc/fstab");
        return bad(
            Level::Fail,
            format!("the file system of {path} is mounted noexec: no container could start"),
            fix,
        );
    }
    let free = state.free_bytes;
    let (low, grown) = match facts.role {
        Role::Manager => (FREE_LOW_MANAGER, "log and snapshots grow"),
        Role::Worker => (FREE_LOW_WORKER, "images and volumes grow"),
    };
    let fix = format!("free or add room at {on}: {grown}");
    let seen = format!("{path}: {} free", amount(free));
    match free {
        ..FREE_MIN => bad(Level::Fail, seen, fix),
        _ if free < low => bad(Level::Warn, seen, fix),
        _ => ok(seen),
    }
}

pub(super) fn port(facts: &Facts) -> Option<Verdict> {
    let (port, program) = (facts.port.number, facts.role.program());
    let option = match facts.role {
        Role::Manager => "--listen",
        Role::Worker => "--mesh-port",
    };
    match &facts.port.state {
        PortState::Free => ok(format!("{port} is free")),
        PortState::Taken(Some(process)) if process.command == program => {
            ok(format!("{port} is held by the {program} that runs here (pid {})", process.pid))
        }
        PortState::Taken(Some(process)) => bad(
            Level::Fail,
            format!("{port} is held by `{}` (pid {})", shown(&process.command), process.pid),
            format!("stop that program, or choose another port with {option}"),
        ),
        PortState::Taken(None) => bad(
            Level::Fail,
            format!("{port} is held by another program"),
            format!(
                "`ss -ltnp 'sport = :{port}'` as root names it; stop it, or choose another port \
                     with {option}"
            ),
        ),
        PortState::Refused(error) => bad(
            Level::Fail,
            format!("cannot listen at {port}: {error}"),
            format!("choose an address and port of this machine with {option}"),
        ),
    }
}

pub(super) fn files(facts: &Facts) -> Option<Verdict> {
    let low = |value: Option<u64>| value.is_some_and(|value| value < FILES_MIN);
    let files = &facts.files;
    let told = |value: Option<u64>| value.map_or("unknown".to_owned(), |value| value.to_string());
    let seen = format!("{} for a process, {} in all", told(files.nr_open), told(files.file_max));
    if low(files.nr_open) || low(files.file_max) {
        let fix = "`sysctl -w fs.nr_open=1048576 fs.file-max=9223372036854775807`, and the same in \
                   /etc/sysctl.d/60-cluster.conf";
        return bad(Level::Warn, seen, fix);
    }
    ok(seen)
}

pub(super) fn managers(facts: &Facts) -> Option<Verdict> {
    let asked = facts.managers.len();
    if asked == 0 {
        return None;
    }
    let unreached: Vec<String> = facts
        .managers
        .iter()
        .filter_map(|manager| {
            let error = manager.outcome.as_ref().err()?;
            Some(format!("{}: {error}", manager.address))
        })
        .collect();
    if unreached.is_empty() {
        return ok(format!("{asked} of {asked} reached"));
    }
    let seen = format!("{} of {asked} not reached: {}", unreached.len(), unreached.join("; "));
    let fix = "check the address (`clusterctl manager ls` shows it), that the manager runs, and that no \
               firewall on the way drops TCP to its port";
    bad(if unreached.len() == asked { Level::Fail } else { Level::Warn }, seen, fix)
}

pub(super) fn skew(facts: &Facts) -> Option<Verdict> {
    let fix = "set this machine's clock, or the manager's: `timedatectl set-ntp true`, or \
               `apt install chrony`";
    let mut worst: Option<(u64, String)> = None;
    let mut unknown = None;
    for clock in &facts.clocks {
        match &clock.read {
            ClockRead::Dates(problem) => return bad(Level::Fail, problem, fix),
            ClockRead::Unknown(problem) => unknown = Some(format!("{}: {problem}", clock.address)),
            ClockRead::Skew { ms, within_ms } => {
                let off = ms.unsigned_abs().saturating_sub(*within_ms);
                let way = if *ms > 0 { "behind" } else { "ahead of" };
                let seen = match off {
                    0 => format!("no difference seen to {}", clock.address),
                    _ => format!("{} {way} {}", span(ms.unsigned_abs()), clock.address),
                };
                if worst.as_ref().is_none_or(|(before, _)| off > *before) {
                    worst = Some((off, seen));
                }
            }
        }
    }
    match (worst, unknown) {
        (Some((off, seen)), _) => match off {
            SKEW_MAX_MS.. => bad(Level::Fail, seen, fix),
            SKEW_LOW_MS.. => bad(Level::Warn, seen, fix),
            _ => ok(seen),
        },
        // Whether a manager can be used is said by the check of the managers, and by the join.
        (None, Some(problem)) => ok(format!("not compared: {problem}")),
        (None, None) => None,
    }
}

pub(super) fn synchronized(facts: &Facts) -> Option<Verdict> {
    match facts.clock_is_kept? {
        true => ok("kept by NTP"),
        false => bad(
            Level::Warn,
            "not kept by NTP",
            "`timedatectl set-ntp true`; without systemd-timesyncd, `apt install chrony`",
        ),
    }
}

/// Foreign text: one line, bounded.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(60).flat_map(char::escape_debug).collect()
}

fn amount(bytes: u64) -> String {
    match bytes {
        0x4000_0000.. => format!("{}.{} GiB", bytes >> 30, ((bytes & 0x3fff_ffff) * 10) >> 30),
        _ => format!("{} MiB", bytes >> 20),
    }
}

fn span(ms: u64) -> String {
    match ms {
        ..10_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        10_000..600_000 => format!("{} s", ms / 1000),
        _ => format!("{} minutes", ms / 60_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Clock, Process, Reached};
    use crate::judge::sample::spoiled;

    #[test]
    fn kernels_by_their_version() {
        let level = |role, text: &str| spoiled(role, "kernel", |f| f.kernel = text.into()).level;
        assert_eq!(level(Role::Worker, "5.10.0-28-amd64"), Level::Ok);
        assert_eq!(level(Role::Worker, "5.4.0-170-generic"), Level::Fail);
        assert_eq!(level(Role::Worker, "4.19.0"), Level::Fail);
        assert_eq!(level(Role::Manager, "4.19.0"), Level::Warn);
        assert_eq!(level(Role::Worker, "custom"), Level::Warn);
    }

    #[test]
    fn missing_capabilities_are_named_where_they_are_needed() {
        let without_admin = |f: &mut Facts| f.capabilities = !(1 << 21);
        let found = spoiled(Role::Worker, "capabilities", without_admin);
        assert_eq!(found.level, Level::Fail);
        assert_eq!(found.seen, "missing: CAP_SYS_ADMIN");
        assert_eq!(spoiled(Role::Manager, "capabilities", without_admin).level, Level::Ok);
        let low_port = spoiled(Role::Manager, "capabilities", |f| {
            f.capabilities = 0;
            f.port.number = 443;
        });
        assert_eq!(low_port.seen, "missing: CAP_NET_BIND_SERVICE");
    }

    #[test]
    fn names_that_cannot_be_a_nodes() {
        let found = |name: &str| spoiled(Role::Worker, "hostname", |f| f.name = name.into());
        assert_eq!(found("a b\x1b").level, Level::Fail);
        assert!(!found("a b\x1b").seen.contains('\x1b'));
        assert_eq!(found("localhost").level, Level::Warn);
        assert!(found("").fix.contains("hostnamectl"));
    }

    #[test]
    fn a_folder_that_cannot_hold_the_state() {
        let found = |spoil: fn(&mut crate::facts::StateFolder)| {
            spoiled(Role::Worker, "state-folder", |f| spoil(&mut f.state))
        };
        let read_only = found(|s| s.read_only = true);
        assert_eq!(read_only.level, Level::Fail);
        assert!(read_only.seen.contains("read-only") && read_only.fix.contains("remount,rw"));
        assert_eq!(found(|s| s.writable = Err("no".into())).level, Level::Fail);
        assert!(found(|s| s.no_exec = true).seen.contains("noexec"));
        assert_eq!(found(|s| s.free_bytes = 100 << 20).level, Level::Fail);
        assert_eq!(found(|s| s.free_bytes = 3 << 30).level, Level::Warn);
        let manager = spoiled(Role::Manager, "state-folder", |f| f.state.free_bytes = 3 << 30);
        assert_eq!(manager.level, Level::Ok);
        assert!(manager.seen.contains("3.0 GiB"), "{}", manager.seen);
    }

    #[test]
    fn a_port_of_our_own_daemon_is_no_problem_and_anothers_is() {
        let found = |state| spoiled(Role::Worker, "port", |f| f.port.state = state);
        let held =
            |command: &str| PortState::Taken(Some(Process { pid: 7, command: command.to_owned() }));
        assert_eq!(found(held("cluster-worker")).level, Level::Ok);
        let other = found(held("nginx"));
        assert_eq!(other.level, Level::Fail);
        assert!(other.seen.contains("`nginx` (pid 7)") && other.fix.contains("--mesh-port"));
        assert_eq!(found(held("cluster-manager")).level, Level::Fail);
        assert!(found(PortState::Taken(None)).fix.contains("ss -ltnp"));
        assert_eq!(found(PortState::Refused("no such address".into())).level, Level::Fail);
    }

    #[test]
    fn few_files_are_worth_a_word() {
        let found = spoiled(Role::Manager, "file-limit", |f| f.files.nr_open = Some(1024));
        assert_eq!(found.level, Level::Warn);
        assert!(found.fix.contains("fs.nr_open"));
    }

    #[test]
    fn one_manager_that_answers_is_enough() {
        let down = |address: &str| Reached { address: address.into(), outcome: Err("gone".into()) };
        let some = spoiled(Role::Worker, "managers", |f| f.managers.push(down("10.0.0.2:7100")));
        assert_eq!(some.level, Level::Warn);
        assert!(some.seen.contains("10.0.0.2:7100: gone"));
        let all = spoiled(Role::Worker, "managers", |f| f.managers = vec![down("10.0.0.2:7100")]);
        assert_eq!(all.level, Level::Fail);
    }

    #[test]
    fn clocks_that_are_off() {
        let found = |read| {
            let clock = Clock { address: "m:1".into(), read };
            spoiled(Role::Worker, "clock-skew", |f| f.clocks = vec![clock])
        };
        let skew = |ms| ClockRead::Skew { ms, within_ms: 1000 };
        let hour = found(skew(3_600_000));
        assert_eq!((hour.level, hour.seen.as_str()), (Level::Fail, "60 minutes behind m:1"));
        assert_eq!(found(skew(-3_600_000)).seen, "60 minutes ahead of m:1");
        assert_eq!(found(skew(-20_000)).level, Level::Warn);
        assert_eq!(found(skew(900)).level, Level::Ok);
        assert_eq!(found(ClockRead::Dates("not valid yet".into())).level, Level::Fail);
        assert_eq!(found(ClockRead::Unknown("no answer".into())).level, Level::Ok);
    }

    #[test]
    fn a_clock_nobody_keeps() {
        let found = spoiled(Role::Worker, "clock-sync", |f| f.clock_is_kept = Some(false));
        assert_eq!(found.level, Level::Warn);
        let mut facts = crate::judge::sample::good(Role::Worker);
        facts.clock_is_kept = None;
        assert!(super::super::judge(&facts).iter().all(|finding| finding.name != "clock-sync"));
    }
}
