//! Cgroups of a lab: `clusterlab/<lab>/<node>/{agent,ctr}`.
//!
//! They serve to freeze a node, to find its processes and to kill what is left; limits of
//! containers are the runtime's business. On cgroup v1 only the freezer hierarchy is joined; on
//! v2 the one there is. The agent sits in a leaf because v2 allows processes only in leaves.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::process::{Identity, Process, unless_gone, wait_for};

const TOP: &str = "clusterlab";
const MOUNTS: &str = "/proc/self/mountinfo";
const FREEZE_WITHIN: Duration = Duration::from_secs(10);
const EMPTY_WITHIN: Duration = Duration::from_secs(10);

/// The cgroup mounts of this machine.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    /// Where processes are put, found and frozen.
    main: PathBuf,
    unified: bool,
    /// Every mount; the runtime may have made folders in any.
    all: Vec<PathBuf>,
}

impl Hierarchy {
    /// Finds the mounts; v1 wins where both are there, since then v2 has no controllers.
    pub fn detect() -> Result<Self> {
        let text =
            fs::read_to_string(MOUNTS).map_err(|source| Error::file("reading", MOUNTS, source))?;
        Self::parse(&text).ok_or(Error::NoCgroup)
    }

    fn parse(mountinfo: &str) -> Option<Self> {
        let (mut freezer, mut unified, mut all) = (None, None, Vec::new());
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(point) = left.split(' ').nth(4).map(PathBuf::from) else { continue };
            let mut right = right.split(' ');
            let (kind, options) = (right.next().unwrap_or(""), right.nth(1).unwrap_or(""));
            match kind {
                "cgroup" if options.split(',').any(|option| option == "freezer") => {
                    freezer = Some(point.clone())
                }
                "cgroup" => {}
                "cgroup2" => unified = Some(point.clone()),
                _ => continue,
            }
            if !all.contains(&point) {
                all.push(point);
            }
        }
        let is_unified = freezer.is_none();
        Some(Self { main: freezer.or(unified)?, unified: is_unified, all })
    }

    fn folder(&self, relative: &str) -> PathBuf {
        self.main.join(relative)
    }

    /// Creates the leaf `clusterlab/<lab>/<node>/<leaf>` and returns its folder.
    pub(crate) fn create(&self, lab: &str, node: &str, leaf: &str) -> Result<PathBuf> {
        let folder = self.folder(&node_path(lab, node)).join(leaf);
        fs::create_dir_all(&folder).map_err(|source| Error::file("creating", &folder, source))?;
        if self.unified {
            self.delegate(&node_path(lab, node));
        }
        Ok(folder)
    }

    /// Hands the controllers down so that containers below can have limits. Best effort: which
    /// controllers exist is the machine's affair, and the runtime reports what it misses.
    fn delegate(&self, path: &str) {
        let mut folder = self.main.clone();
        for part in std::iter::once("").chain(path.split('/')) {
            folder.push(part);
            for controller in ["+cpu", "+memory", "+pids", "+io"] {
                let _ = fs::write(folder.join("cgroup.subtree_control"), controller);
            }
        }
    }

    /// Stops or continues every process of the node at once, and waits until that is so.
    pub(crate) fn freeze(&self, lab: &str, node: &str, frozen: bool) -> Result<()> {
        let folder = self.folder(&node_path(lab, node));
        let (file, value) = match (self.unified, frozen) {
            (true, true) => ("cgroup.freeze", "1"),
            (true, false) => ("cgroup.freeze", "0"),
            (false, true) => ("freezer.state", "FROZEN"),
            (false, false) => ("freezer.state", "THAWED"),
        };
        let path = folder.join(file);
        let write =
            || fs::write(&path, value).map_err(|source| Error::file("writing", &path, source));
        write()?;
        let reached = wait_for(FREEZE_WITHIN, || {
            if self.is_frozen(lab, node) == frozen {
                return Some(Ok(()));
            }
            // v1 may stay FREEZING for ever when a process forks meanwhile; writing again helps.
            if self.unified { None } else { write().err().map(Err) }
        });
        reached.unwrap_or_else(|| {
            let what = format!("{} of {node}", if frozen { "freezing" } else { "thawing" });
            Err(Error::TimedOut { what, within: FREEZE_WITHIN, detail: path.display().to_string() })
        })
    }

    /// Whether the node as a whole is frozen; false where it does not exist.
    pub(crate) fn is_frozen(&self, lab: &str, node: &str) -> bool {
        let folder = self.folder(&node_path(lab, node));
        if self.unified {
            let events = fs::read_to_string(folder.join("cgroup.events")).unwrap_or_default();
            events.lines().any(|line| line == "frozen 1")
        } else {
            fs::read_to_string(folder.join("freezer.state"))
                .is_ok_and(|state| state.trim() == "FROZEN")
        }
    }

    /// Every process of the node, containers included.
    pub(crate) fn processes(&self, lab: &str, node: &str) -> Result<Vec<Process>> {
        let root = self.folder(&node_path(lab, node));
        let mut found = Vec::new();
        for folder in descend(&root).map_err(|source| Error::file("listing", &root, source))? {
            let relative =
                folder.strip_prefix(&root).unwrap_or(&folder).to_string_lossy().into_owned();
            let pids = pids(&folder).map_err(|source| Error::file("reading", &folder, source))?;
            found.extend(pids.into_iter().filter_map(|pid| Process::read(pid, &relative)));
        }
        Ok(found)
    }

    /// Kills everything below `clusterlab/<lab>[/<node>]` and removes it from every hierarchy.
    pub(crate) fn destroy(&self, lab: &str, node: Option<&str>) -> Result<()> {
        let relative = node.map_or_else(|| format!("{TOP}/{lab}"), |node| node_path(lab, node));
        let root = self.folder(&relative);
        let emptied = wait_for(EMPTY_WITHIN, || match kill_all(&root) {
            Ok(0) => Some(Ok(())),
            Ok(_) => None,
            Err(source) => Some(Err(Error::file("emptying", &root, source))),
        });
        emptied.unwrap_or_else(|| Err(self.timed_out("its processes to end", &root)))?;
        for mount in &self.all {
            let folder = mount.join(&relative);
            let removed = wait_for(EMPTY_WITHIN, || match remove_tree(&folder) {
                Ok(()) => Some(Ok(())),
                // The kernel may need a moment after the last process.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => None,
                Err(source) => Some(Err(Error::file("removing", &folder, source))),
            });
            removed.unwrap_or_else(|| Err(self.timed_out("its removal", &folder)))?;
            // Shared with other labs, and only removable when it is the last one's.
            let _ = fs::remove_dir(mount.join(TOP));
        }
        Ok(())
    }

    fn timed_out(&self, what: &str, folder: &Path) -> Error {
        let what = format!("waiting for cgroup {}: {what}", folder.display());
        Error::TimedOut { what, within: EMPTY_WITHIN, detail: "see its cgroup.procs".to_owned() }
    }

    /// Whether anything of the lab is left in any hierarchy.
    pub(crate) fn leftovers(&self, lab: &str) -> Vec<PathBuf> {
        let folders = self.all.iter().map(|mount| mount.join(TOP).join(lab));
        folders.filter(|folder| folder.exists()).collect()
    }
}

pub(crate) fn node_path(lab: &str, node: &str) -> String {
    format!("{TOP}/{lab}/{node}")
}

/// The folder and all below it, parents first; empty where it does not exist.
fn descend(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        let Some(entries) = unless_gone(fs::read_dir(&folder))? else { continue };
        for entry in entries {
            let Some(entry) = unless_gone(entry)? else { continue };
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            }
        }
        folders.push(folder);
    }
    Ok(folders)
}

fn pids(folder: &Path) -> io::Result<Vec<i32>> {
    let text = unless_gone(fs::read_to_string(folder.join("cgroup.procs")))?.unwrap_or_default();
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

/// Sends SIGKILL to every process below; returns how many there were.
fn kill_all(root: &Path) -> io::Result<usize> {
    let mut count = 0;
    for folder in descend(root)? {
        for pid in pids(&folder)? {
            // Zombies stay listed until their parent reaps them; they hold nothing any more.
            if let Some(process) = Identity::of(pid) {
                process.kill().map_err(io::Error::other)?;
                count += 1;
            }
        }
        // A frozen v1 cgroup keeps even SIGKILL pending.
        let state = folder.join("freezer.state");
        if state.exists() {
            unless_gone(fs::write(state, "THAWED"))?;
        }
    }
    Ok(count)
}

fn remove_tree(root: &Path) -> io::Result<()> {
    for folder in descend(root)?.into_iter().rev() {
        unless_gone(fs::remove_dir(folder))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "30 27 0:25 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        31 30 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        36 30 0:31 / /sys/fs/cgroup/freezer rw,relatime shared:9 - cgroup cgroup rw,freezer\n\
        41 30 0:36 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
    const V2: &str =
        "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn the_freezer_is_used_on_v1_and_hybrid_machines() {
        let found = Hierarchy::parse(V1).unwrap();
        assert_eq!(found.main, Path::new("/sys/fs/cgroup/freezer"));
        assert!(!found.unified);
        assert_eq!(found.all.len(), 3);
    }

    #[test]
    fn the_unified_tree_is_used_where_it_is_alone() {
        let found = Hierarchy::parse(V2).unwrap();
        assert_eq!(found.main, Path::new("/sys/fs/cgroup"));
        assert!(found.unified);
        assert!(Hierarchy::parse("22 27 0:21 / /proc rw - proc proc rw\n").is_none());
    }
}
