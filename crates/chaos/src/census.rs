//! What runs, as the kernel tells: processes in the cgroups of containers, and their environment.

use std::collections::{BTreeMap, HashMap};
use std::fs;

use cluster_lab::{Lab, Process};

use crate::check::slots::{Live, Role};

/// Counts containers; remembers what it read of processes that still live.
#[derive(Debug, Default)]
pub struct Census {
    roles: HashMap<(i32, String), Option<Role>>,
}

impl Census {
    /// Every container of these nodes that has a living process.
    pub fn take(&mut self, lab: &Lab, nodes: &[String]) -> cluster_lab::Result<Vec<Live>> {
        let mut live = Vec::new();
        let mut known = HashMap::new();
        for node in nodes {
            let mut containers: BTreeMap<String, Option<Role>> = BTreeMap::new();
            for process in lab.processes(node)? {
                let Some(task) = task_of(&process) else { continue };
                let key = (process.pid, task.to_owned());
                let role = match self.roles.remove(&key) {
                    Some(Some(role)) => Some(role),
                    _ => role_of(process.pid),
                };
                let entry = containers.entry(task.to_owned()).or_default();
                if entry.is_none() {
                    entry.clone_from(&role);
                }
                known.insert(key, role);
            }
            let rows = containers.into_iter();
            live.extend(rows.map(|(task, role)| Live { node: node.clone(), task, role }));
        }
        self.roles = known;
        Ok(live)
    }
}

/// The container that a process belongs to. What has ended, but is not yet reaped, has no words.
fn task_of(process: &Process) -> Option<&str> {
    let below = process.cgroup.strip_prefix("ctr/")?;
    let task = below.split('/').next()?;
    (!process.argv.is_empty() && !task.is_empty()).then_some(task)
}

fn role_of(pid: i32) -> Option<Role> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    parse(&environment)
}

fn parse(environment: &[u8]) -> Option<Role> {
    let words =
        environment.split(|byte| *byte == 0).filter_map(|word| std::str::from_utf8(word).ok());
    let all: HashMap<&str, &str> = words.filter_map(|word| word.split_once('=')).collect();
    Some(Role {
        service_id: (*all.get("CLUSTER_SERVICE_ID")?).to_owned(),
        service: (*all.get("CLUSTER_SERVICE_NAME")?).to_owned(),
        slot: all.get("CLUSTER_TASK_SLOT")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(cgroup: &str, argv: &[&str]) -> Process {
        let argv = argv.iter().map(|word| (*word).to_owned()).collect();
        Process { pid: 1, name: "web".to_owned(), argv, cgroup: cgroup.to_owned() }
    }

    #[test]
    fn containers_are_found_by_their_cgroup() {
        assert_eq!(task_of(&process("ctr/abc", &["/web"])), Some("abc"));
        assert_eq!(task_of(&process("ctr/abc/deeper", &["/web"])), Some("abc"));
        assert_eq!(task_of(&process("agent", &["cluster-shim"])), None);
        assert_eq!(task_of(&process("ctr/abc", &[])), None, "a corpse");
    }

    #[test]
    fn the_environment_names_the_slot() {
        let text = b"PATH=/\0CLUSTER_SERVICE_ID=i\0CLUSTER_SERVICE_NAME=web\0CLUSTER_TASK_SLOT=2\0";
        let role = parse(text).expect("a role");
        assert_eq!((role.service.as_str(), role.slot), ("web", 2));
        assert_eq!(parse(b"PATH=/\0"), None);
    }
}
