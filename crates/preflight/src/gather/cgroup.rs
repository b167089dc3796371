//! The cgroup hierarchies, and whether groups can be made below the worker's parent.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use crate::facts::{Cgroup, Unified};

/// Version 1: what the runtime uses.
const V1_NEEDED: [&str; 5] = ["cpu", "memory", "pids", "freezer", "devices"];

pub(super) fn look(parent: &Path) -> Cgroup {
    match fs::read_to_string("/proc/self/mountinfo") {
        Ok(mounts) => mounted(&mounts, parent),
        Err(_) => Cgroup::None,
    }
}

fn mounted(mountinfo: &str, parent: &Path) -> Cgroup {
    let (mut v1, mut v2) = (Vec::new(), None);
    for line in mountinfo.lines() {
        let Some((mount, source)) = line.split_once(" - ") else { continue };
        let Some(point) = mount.split(' ').nth(4) else { continue };
        let mut source = source.split(' ');
        match source.next() {
            Some("cgroup2") => v2 = v2.or_else(|| Some(PathBuf::from(point))),
            Some("cgroup") => v1.push((source.nth(1).unwrap_or_default(), PathBuf::from(point))),
            _ => {}
        }
    }
    let mounted_v1 =
        |name: &str| v1.iter().find(|(options, _)| options.split(',').any(|option| option == name));
    // Where both are there, version 1 has the controllers.
    if V1_NEEDED.iter().any(|name| mounted_v1(name).is_some()) {
        let made = |name: &&'static str| {
            let made = match mounted_v1(name) {
                Some((_, point)) => make_below(&nearest(point, parent)),
                None => Err("not mounted".to_owned()),
            };
            (*name, made)
        };
        return Cgroup::V1(V1_NEEDED.iter().map(made).collect());
    }
    match v2 {
        Some(point) => Cgroup::V2(unified(nearest(&point, parent))),
        None => Cgroup::None,
    }
}

/// The folder of the parent in this hierarchy, or the nearest above it that exists.
fn nearest(mount: &Path, parent: &Path) -> PathBuf {
    let wanted = mount.join(parent.strip_prefix("/").unwrap_or(parent));
    let found = wanted.ancestors().take_while(|folder| folder.starts_with(mount));
    found.into_iter().find(|folder| folder.is_dir()).unwrap_or(mount).to_owned()
}

fn unified(folder: PathBuf) -> Unified {
    let words = |name: &str| -> BTreeSet<String> {
        let text = fs::read_to_string(folder.join(name)).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    };
    // The machine's root alone may hold processes and hand down controllers; it has no such file.
    let is_root = !folder.join("cgroup.type").exists();
    let is_empty =
        fs::read_to_string(folder.join("cgroup.procs")).is_ok_and(|text| text.is_empty());
    let writable = access(&folder.join("cgroup.subtree_control"), AccessFlags::W_OK).is_ok();
    Unified {
        available: words("cgroup.controllers"),
        enabled: words("cgroup.subtree_control"),
        creatable: make_below(&folder),
        can_enable: writable && (is_root || is_empty),
        folder,
    }
}

fn make_below(folder: &Path) -> Result<(), String> {
    let scratch = folder.join(format!("cluster-preflight-{}", std::process::id()));
    let made = fs::create_dir(&scratch).and_then(|()| fs::remove_dir(&scratch));
    made.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_one_is_preferred_where_both_are_mounted() {
        let folder = tempfile::tempdir().unwrap();
        let point = folder.path().display();
        let v2 = format!("30 1 0:26 / {point} rw - cgroup2 none rw\n");
        let v1 = format!("31 1 0:27 / {point} rw - cgroup none rw,memory\n");
        let named = format!("32 1 0:28 / {point} rw - cgroup none rw,name=systemd\n");
        assert_eq!(mounted("", Path::new("/cluster")), Cgroup::None);
        let found = mounted(&format!("{v2}{v1}"), Path::new("/cluster"));
        let Cgroup::V1(controllers) = found else { panic!("{found:?}") };
        assert!(controllers.contains(&("memory", Ok(()))));
        assert!(controllers.contains(&("pids", Err("not mounted".to_owned()))));
        // systemd's own hierarchy has no controllers.
        let found = mounted(&format!("{named}{v2}"), Path::new("/cluster"));
        assert!(matches!(found, Cgroup::V2(_)), "{found:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_parent_counts_where_it_exists() {
        let folder = tempfile::tempdir().unwrap();
        let (mount, parent) = (folder.path(), folder.path().join("cluster"));
        fs::create_dir(&parent).unwrap();
        fs::write(parent.join("cgroup.type"), "domain\n").unwrap();
        fs::write(parent.join("cgroup.procs"), "").unwrap();
        fs::write(parent.join("cgroup.controllers"), "cpu memory\n").unwrap();
        fs::write(parent.join("cgroup.subtree_control"), "\n").unwrap();
        assert_eq!(nearest(mount, Path::new("/cluster/deep/er")), parent);
        let found = unified(parent.clone());
        assert_eq!(found.available, ["cpu", "memory"].map(str::to_owned).into());
        assert!(found.enabled.is_empty() && found.can_enable);
        fs::write(parent.join("cgroup.procs"), "1\n").unwrap();
        assert!(!unified(parent).can_enable, "a process sits there");
    }
}
