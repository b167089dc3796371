//! The cgroups of one container, version 1, 2 or hybrid: reading usage, changing limits, removing.
//!
//! Creating them and putting processes in is the backend's work (libcontainer or runc); both take
//! the same absolute path, so that this module finds them in every mounted hierarchy.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::spec::Limits;

/// CFS period in microseconds, the kernel's default.
pub const CPU_PERIOD_US: u64 = 100_000;

/// Mounted hierarchies, found once.
#[derive(Clone, Debug, Default)]
pub struct Hierarchies {
    /// Version 1: controller name to mount point.
    v1: BTreeMap<String, PathBuf>,
    /// Version 2 mount point.
    v2: Option<PathBuf>,
}

/// A container's place in the hierarchies.
#[derive(Clone, Debug)]
pub struct Cgroup {
    hierarchies: Hierarchies,
    path: PathBuf,
}

/// Usage of a cgroup now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time so far.
    pub cpu_nanos: u64,
    /// Bytes charged.
    pub memory_bytes: u64,
    /// Limit, if set.
    pub memory_limit_bytes: Option<u64>,
    /// Tasks.
    pub pids: u64,
}

impl Hierarchies {
    /// Reads this process's mount table.
    pub fn detect() -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/proc/self/mountinfo")?))
    }

    fn parse(mountinfo: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((mount, source)) = line.split_once(" - ") else { continue };
            let Some(point) = mount.split(' ').nth(4) else { continue };
            let mut source = source.split(' ');
            match source.next() {
                Some("cgroup2") => {
                    found.v2.get_or_insert_with(|| PathBuf::from(point));
                }
                Some("cgroup") => {
                    for option in source
                        .nth(1)
                        .unwrap_or_default()
                        .split(',')
                        .filter(|o| !matches!(*o, "rw" | "ro"))
                    {
                        found.v1.entry(option.to_owned()).or_insert_with(|| PathBuf::from(point));
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// Controllers are in version 2 only.
    pub fn is_unified(&self) -> bool {
        self.v1.is_empty() && self.v2.is_some()
    }

    /// Whether a swap limit can be set (version 1 has it only with swap accounting on).
    pub fn can_limit_swap(&self) -> bool {
        self.is_unified()
            || self
                .v1
                .get("memory")
                .is_some_and(|root| root.join("memory.memsw.limit_in_bytes").exists())
    }

    /// The cgroup at an absolute path such as `/cluster/<id>`.
    pub fn at(&self, path: impl Into<PathBuf>) -> Cgroup {
        Cgroup { hierarchies: self.clone(), path: path.into() }
    }
}

impl Cgroup {
    fn in_mount(&self, mount: &Path) -> PathBuf {
        mount.join(self.path.strip_prefix("/").unwrap_or(&self.path))
    }

    /// Its folder in a version 1 hierarchy, if that controller is mounted so.
    fn v1(&self, controller: &str) -> Option<PathBuf> {
        self.hierarchies.v1.get(controller).map(|mount| self.in_mount(mount))
    }

    fn v2(&self) -> Option<PathBuf> {
        self.hierarchies.v2.as_deref().map(|mount| self.in_mount(mount))
    }

    /// Its folder in the one hierarchy that best tells who belongs to it, with that hierarchy's
    /// controller if it is one of version 1.
    pub fn members(&self) -> Option<(Option<&'static str>, PathBuf)> {
        // Those that need no settings before a process may enter a new child.
        let plain = ["pids", "freezer", "devices"].into_iter();
        let v1 = plain.filter_map(|name| Some((Some(name), self.v1(name)?)));
        v1.chain(self.v2().map(|folder| (None, folder))).find(|(_, folder)| folder.is_dir())
    }

    /// Every folder it may have.
    fn folders(&self) -> Vec<PathBuf> {
        let mut folders: Vec<PathBuf> = self
            .hierarchies
            .v1
            .values()
            .chain(&self.hierarchies.v2)
            .map(|mount| self.in_mount(mount))
            .collect();
        folders.sort();
        folders.dedup();
        folders
    }

    /// Names of the cgroups right below this one, in any hierarchy.
    pub fn children(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .folders()
            .iter()
            .filter_map(|folder| fs::read_dir(folder).ok())
            .flatten()
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// How often the kernel killed something in it for lack of memory.
    pub fn oom_kills(&self) -> u64 {
        let v1 =
            self.v1("memory").and_then(|dir| keyed(&dir.join("memory.oom_control"), "oom_kill"));
        let v2 = || self.v2().and_then(|dir| keyed(&dir.join("memory.events"), "oom_kill"));
        v1.or_else(v2).unwrap_or(0)
    }

    /// Processes in it.
    pub fn processes(&self) -> Vec<u32> {
        let mut pids: Vec<u32> = self
            .folders()
            .iter()
            .filter_map(|folder| fs::read_to_string(folder.join("cgroup.procs")).ok())
            .flat_map(|text| {
                text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<u32>>()
            })
            .collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Usage now; fields whose controller is absent are 0.
    pub fn usage(&self) -> Usage {
        let v2 = self.v2();
        let v2_file = |name: &str| v2.as_ref().map(|dir| dir.join(name));
        let read = |v1: Option<PathBuf>, v2: Option<PathBuf>| {
            v1.and_then(|path| number(&path)).or_else(|| v2.and_then(|path| number(&path)))
        };
        let v1_file = |controller: &str, name: &str| self.v1(controller).map(|dir| dir.join(name));
        let cpu_v2 = || {
            v2_file("cpu.stat")
                .and_then(|path| keyed(&path, "usage_usec"))
                .map(|us| us.saturating_mul(1000))
        };
        let cpu =
            v1_file("cpuacct", "cpuacct.usage").and_then(|path| number(&path)).or_else(cpu_v2);
        let limit = read(v1_file("memory", "memory.limit_in_bytes"), v2_file("memory.max"));
        Usage {
            cpu_nanos: cpu.unwrap_or(0),
            memory_bytes: read(
                v1_file("memory", "memory.usage_in_bytes"),
                v2_file("memory.current"),
            )
            .unwrap_or(0),
            // Version 1 says "no limit" with a huge number.
            memory_limit_bytes: limit.filter(|bytes| *bytes < 1 << 60),
            pids: read(v1_file("pids", "pids.current"), v2_file("pids.current")).unwrap_or(0),
        }
    }

    /// Sets the limits that are given.
    pub fn set(&self, limits: &Limits) -> io::Result<()> {
        if let Some(nanos) = limits.cpu_nanos {
            let quota = cpu_quota_us(nanos);
            match (self.v1("cpu"), self.v2()) {
                (Some(dir), _) => write(&dir.join("cpu.cfs_quota_us"), &quota.to_string())?,
                (None, Some(dir)) => {
                    write(&dir.join("cpu.max"), &format!("{quota} {CPU_PERIOD_US}"))?
                }
                (None, None) => return Err(missing("cpu")),
            }
        }
        if let Some(bytes) = limits.memory_bytes {
            match (self.v1("memory"), self.v2()) {
                (Some(dir), _) => self.set_memory_v1(&dir, bytes)?,
                (None, Some(dir)) => write(&dir.join("memory.max"), &bytes.to_string())?,
                (None, None) => return Err(missing("memory")),
            }
        }
        if let Some(pids) = limits.pids {
            let dir = self.v1("pids").or_else(|| self.v2()).ok_or_else(|| missing("pids"))?;
            write(&dir.join("pids.max"), &pids.to_string())?;
        }
        Ok(())
    }

    /// Memory plus swap may never be below memory, so the order depends on the direction.
    fn set_memory_v1(&self, dir: &Path, bytes: u64) -> io::Result<()> {
        let text = bytes.to_string();
        let (limit, with_swap) =
            (dir.join("memory.limit_in_bytes"), dir.join("memory.memsw.limit_in_bytes"));
        if !with_swap.exists() {
            return write(&limit, &text);
        }
        let grows = number(&with_swap).is_some_and(|now| bytes > now);
        let (first, second) = if grows { (&with_swap, &limit) } else { (&limit, &with_swap) };
        write(first, &text)?;
        write(second, &text)
    }

    /// Version 2 has a swap limit of its own, which neither backend sets when it should be none.
    pub fn forbid_swap_v2(&self) -> io::Result<()> {
        if !self.hierarchies.is_unified() {
            return Ok(());
        }
        match self.v2().map(|dir| dir.join("memory.swap.max")) {
            Some(file) if file.exists() => write(&file, "0"),
            _ => Ok(()),
        }
    }

    /// Removes it where nothing is below it.
    #[cfg(feature = "testing")]
    pub fn remove_empty(&self) {
        for folder in self.folders() {
            // Another user of it may be there in one hierarchy and gone from the next.
            let _ = fs::remove_dir(folder);
        }
    }

    /// Removes it from every hierarchy; processes on their way out get `patience` to leave.
    pub fn remove(&self, patience: Duration) -> io::Result<()> {
        let deadline = Instant::now() + patience;
        for folder in self.folders() {
            remove_folder(&folder, deadline)?;
        }
        Ok(())
    }
}

/// Microseconds per period for a limit in billionths of a CPU; the kernel's minimum is 1 ms.
pub fn cpu_quota_us(cpu_nanos: u64) -> u64 {
    (cpu_nanos.saturating_mul(CPU_PERIOD_US) / 1_000_000_000).max(1000)
}

fn remove_folder(folder: &Path, deadline: Instant) -> io::Result<()> {
    // A container may have made cgroups below its own.
    if let Ok(entries) = fs::read_dir(folder) {
        for entry in
            entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        {
            remove_folder(&entry.path(), deadline)?;
        }
    }
    loop {
        match fs::remove_dir(folder) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline =>
            {
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error),
        }
    }
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn keyed(path: &Path, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text).map_err(|error| {
        io::Error::new(error.kind(), format!("write {text} to {}: {error}", path.display()))
    })
}

fn missing(controller: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!("this machine has no {controller} cgroup controller"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "30 25 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
        31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
        32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn hierarchies_are_told_apart() {
        let hybrid = Hierarchies::parse(HYBRID);
        assert!(!hybrid.is_unified());
        let cgroup = hybrid.at("/cluster/a");
        assert_eq!(
            cgroup.v1("cpuacct"),
            Some(PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/cluster/a"))
        );
        assert_eq!(cgroup.v1("pids"), None);
        assert_eq!(cgroup.folders().len(), 3);
        assert!(Hierarchies::parse("1 2 0:3 / /sys/fs/cgroup rw - cgroup2 none rw\n").is_unified());
    }

    #[test]
    fn a_cpu_limit_never_falls_below_the_kernels_minimum() {
        assert_eq!(cpu_quota_us(500_000_000), 50_000);
        assert_eq!(cpu_quota_us(1), 1000);
        assert_eq!(cpu_quota_us(u64::MAX), u64::MAX / 1_000_000_000);
    }
}
