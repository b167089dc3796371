//! What each daemon uses, read from /proc and its data folder.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use cluster_lab::NodeStatus;

use crate::check::growth::Gauge;

/// Series by node.
#[derive(Debug, Default)]
pub struct Gauges {
    pub nodes: BTreeMap<String, Vec<Gauge>>,
}

impl Gauges {
    /// Reads one node; one without a daemon is left out.
    pub fn take(&mut self, at: Duration, node: &NodeStatus, data: &Path) {
        let Some(pid) = node.pid else { return };
        let (Some(rss_bytes), Some(fds)) = (rss(pid), fds(pid)) else { return };
        let disk_bytes = folder_bytes(data);
        let gauge = Gauge { at, pid, rss_bytes, fds, disk_bytes };
        self.nodes.entry(node.name.clone()).or_default().push(gauge);
    }
}

fn rss(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_ascii_whitespace().next()?.parse::<u64>().ok()? << 10)
}

fn fds(pid: i32) -> Option<u64> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64)
}

/// Bytes taken on the folder's own file system; mounts below, such as containers' roots, are not
/// looked into. What vanishes meanwhile counts nothing.
fn folder_bytes(root: &Path) -> u64 {
    let Ok(device) = fs::symlink_metadata(root).map(|meta| meta.dev()) else { return 0 };
    let mut open = vec![root.to_owned()];
    let mut bytes = 0;
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(meta) = fs::symlink_metadata(entry.path()) else { continue };
            if meta.dev() != device {
                continue;
            }
            bytes += meta.blocks() * 512;
            if meta.is_dir() {
                open.push(entry.path());
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_and_a_folder_are_measured() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(rss(own).unwrap() > 1 << 20);
        assert!(fds(own).unwrap() > 2);
        let folder = tempfile::tempdir().unwrap();
        let empty = folder_bytes(folder.path());
        fs::create_dir(folder.path().join("below")).unwrap();
        fs::write(folder.path().join("below/file"), vec![1; 1 << 20]).unwrap();
        assert!(folder_bytes(folder.path()) >= empty + (1 << 20));
    }
}
