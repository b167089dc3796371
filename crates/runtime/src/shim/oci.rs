//! The OCI runtime spec of a container: our template, never the image's word.
//!
//! Docker's default capabilities, masked and read-only paths, no new privileges, its system call
//! filter (for runc; libcontainer gets it as BPF), private namespaces. Written as JSON because both
//! backends read the same file.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cgroup::{CPU_PERIOD_US, Hierarchies, cpu_quota_us};
use crate::shim::Backend;
use crate::shim::protocol::ExecRequest;
use crate::shim::seccomp;
use crate::shim::user::Identity;
use crate::spec::{ContainerSpec, Limits, Mount};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const CAPABILITIES: [&str; 13] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// All that goes into the file.
pub struct Template<'a> {
    /// What the caller asked for.
    pub spec: &'a ContainerSpec,
    /// Who its first process is.
    pub identity: &'a Identity,
    /// Merged root filesystem.
    pub root: &'a Path,
    /// Absolute cgroup path.
    pub cgroup: &'a Path,
    /// Which backend reads it.
    pub backend: Backend,
    /// What this machine's cgroups can do.
    pub hierarchies: &'a Hierarchies,
}

impl Template<'_> {
    /// The content of `config.json`.
    pub fn config(&self) -> Value {
        let spec = self.spec;
        let mut linux = json!({
            "cgroupsPath": self.cgroup,
            "namespaces": self.namespaces(),
            "resources": self.resources(),
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            // Unprivileged servers may bind low ports of their own namespace, as in Docker.
            "sysctl": {"net.ipv4.ip_unprivileged_port_start": "0"},
        });
        if self.backend == Backend::Runc {
            linux["seccomp"] = seccomp::oci_profile();
        }
        json!({
            "ociVersion": "1.0.2",
            "process": self.process(spec.command(), environment(spec), working_folder(spec)),
            "root": {"path": self.root, "readonly": spec.read_only_root},
            "hostname": spec.hostname.as_deref().unwrap_or(spec.id.as_str()),
            "mounts": self.mounts(),
            "linux": linux,
        })
    }

    /// The content of a process file for an exec.
    pub fn exec_process(&self, exec: &ExecRequest) -> Value {
        let mut env = environment(self.spec);
        for (name, value) in &exec.env {
            set_variable(&mut env, name, value);
        }
        let cwd = exec.workdir.clone().unwrap_or_else(|| working_folder(self.spec));
        self.process(exec.args.clone(), env, cwd)
    }

    fn process(&self, args: Vec<String>, mut env: Vec<String>, cwd: PathBuf) -> Value {
        default_variable(&mut env, "PATH", DEFAULT_PATH);
        default_variable(
            &mut env,
            "HOSTNAME",
            self.spec.hostname.as_deref().unwrap_or(self.spec.id.as_str()),
        );
        default_variable(&mut env, "HOME", self.identity.home.as_deref().unwrap_or("/"));
        let bounding = self.capabilities();
        // Only root keeps them past the exec, as the kernel itself would have it.
        let held: &[&str] = if self.identity.uid == 0 { &bounding } else { &[] };
        json!({
            "terminal": false,
            "user": {
                "uid": self.identity.uid,
                "gid": self.identity.gid,
                "additionalGids": self.identity.extra_gids,
                "umask": 0o022,
            },
            "args": args,
            "env": env,
            "cwd": cwd,
            "capabilities": {
                "bounding": bounding, "effective": held, "permitted": held,
                "inheritable": [], "ambient": [],
            },
            "noNewPrivileges": true,
            "oomScoreAdj": 0,
        })
    }

    fn capabilities(&self) -> Vec<&'static str> {
        let mut names = CAPABILITIES.to_vec();
        // Without version 1 no device rules are enforced here, so no device may be made.
        if !self.hierarchies.is_unified() {
            names.push("CAP_MKNOD");
        }
        names
    }

    fn namespaces(&self) -> Value {
        let network = match &self.spec.netns {
            Some(path) => json!({"type": "network", "path": path}),
            None => json!({"type": "network"}),
        };
        json!([
            {"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "cgroup"}, network,
        ])
    }

    fn resources(&self) -> Value {
        let Limits { cpu_nanos, memory_bytes, pids } = self.spec.limits;
        let mut resources = json!({"devices": device_rules()});
        if let Some(nanos) = cpu_nanos {
            resources["cpu"] = json!({"quota": cpu_quota_us(nanos), "period": CPU_PERIOD_US});
        }
        if let Some(bytes) = memory_bytes {
            resources["memory"] = json!({"limit": bytes});
            if self.hierarchies.can_limit_swap() {
                resources["memory"]["swap"] = json!(bytes);
            }
        }
        if let Some(pids) = pids {
            resources["pids"] = json!({"limit": pids});
        }
        resources
    }

    fn mounts(&self) -> Vec<Value> {
        let mut mounts = vec![
            mounted("proc", "/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mounted(
                "tmpfs",
                "/dev",
                "tmpfs",
                &["nosuid", "strictatime", "mode=755", "size=65536k"],
            ),
            mounted(
                "devpts",
                "/dev/pts",
                "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            ),
            mounted("sysfs", "/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mounted(
                "cgroup",
                "/sys/fs/cgroup",
                "cgroup",
                &["nosuid", "noexec", "nodev", "relatime", "ro"],
            ),
            mounted("mqueue", "/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mounted(
                "shm",
                "/dev/shm",
                "tmpfs",
                &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
            ),
        ];
        // A mount of the caller replaces ours at the same place.
        mounts.retain(|ours| {
            self.spec
                .mounts
                .iter()
                .all(|mount| Some(mount.target()) != ours["destination"].as_str().map(Path::new))
        });
        mounts.extend(self.spec.mounts.iter().map(user_mount));
        mounts
    }
}

fn mounted(source: &str, target: &str, kind: &str, options: &[&str]) -> Value {
    json!({"source": source, "destination": target, "type": kind, "options": options})
}

fn user_mount(mount: &Mount) -> Value {
    match mount {
        Mount::Bind { source: host, target, ro }
        | Mount::Volume { host_path: host, target, ro } => json!({
            "source": host, "destination": target, "type": "bind",
            "options": ["rbind", "rprivate", if *ro { "ro" } else { "rw" }],
        }),
        Mount::Tmpfs { target, size, mode } => {
            let mut options = vec![
                "nosuid".to_owned(),
                "nodev".to_owned(),
                format!("mode={:o}", mode.unwrap_or(0o1777) & 0o7777),
            ];
            options.extend(size.map(|bytes| format!("size={bytes}")));
            json!({"source": "tmpfs", "destination": target, "type": "tmpfs", "options": options})
        }
    }
}

/// Nothing but the usual harmless devices; the backends create their nodes.
fn device_rules() -> Value {
    let mut rules = vec![json!({"allow": false, "access": "rwm"})];
    // null, zero, full, tty, random, urandom, console, ptmx; any pseudo terminal.
    let numbers = [
        (1, Some(3)),
        (1, Some(5)),
        (1, Some(7)),
        (5, Some(0)),
        (1, Some(8)),
        (1, Some(9)),
        (5, Some(1)),
        (5, Some(2)),
        (136, None),
    ];
    for (major, minor) in numbers {
        rules.push(
            json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm"}),
        );
    }
    Value::Array(rules)
}

/// Working folder of the container's processes.
pub fn working_folder(spec: &ContainerSpec) -> PathBuf {
    let folder = spec
        .workdir
        .clone()
        .or_else(|| spec.image.workdir.clone())
        .filter(|dir| !dir.as_os_str().is_empty());
    // An image may say `app` and mean `/app`.
    Path::new("/").join(folder.unwrap_or_default())
}

fn environment(spec: &ContainerSpec) -> Vec<String> {
    let mut env: Vec<String> = Vec::new();
    for entry in &spec.image.env {
        if let Some((name, value)) = entry.split_once('=').filter(|(name, _)| !name.is_empty()) {
            set_variable(&mut env, name, value);
        }
    }
    for (name, value) in &spec.env {
        set_variable(&mut env, name, value);
    }
    env
}

fn set_variable(env: &mut Vec<String>, name: &str, value: &str) {
    env.retain(|entry| !is_variable(entry, name));
    env.push(format!("{name}={value}"));
}

fn default_variable(env: &mut Vec<String>, name: &str, value: &str) {
    if !env.iter().any(|entry| is_variable(entry, name)) {
        env.push(format!("{name}={value}"));
    }
}

fn is_variable(entry: &str, name: &str) -> bool {
    entry.strip_prefix(name).is_some_and(|rest| rest.starts_with('='))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{ContainerId, ImageRoot};

    fn template(spec: &ContainerSpec, uid: u32) -> Value {
        Template {
            spec,
            identity: &Identity { uid, ..Identity::default() },
            root: Path::new("/r"),
            cgroup: Path::new("/c/x"),
            backend: Backend::Runc,
            hierarchies: &Hierarchies::default(),
        }
        .config()
    }

    fn spec() -> ContainerSpec {
        let image = ImageRoot {
            layers: vec!["/l".into()],
            cmd: vec!["sh".into()],
            env: vec!["A=1".into(), "B=2".into()],
            ..ImageRoot::default()
        };
        ContainerSpec::new(ContainerId::new("x").expect("id"), image)
    }

    #[test]
    fn only_root_holds_capabilities() {
        let root = template(&spec(), 0);
        assert_eq!(
            root["process"]["capabilities"]["effective"],
            root["process"]["capabilities"]["bounding"]
        );
        let user = template(&spec(), 7);
        assert_eq!(user["process"]["capabilities"]["effective"], json!([]));
        assert_ne!(user["process"]["capabilities"]["bounding"], json!([]));
        assert_eq!(user["process"]["noNewPrivileges"], json!(true));
    }

    #[test]
    fn later_variables_win_and_defaults_fill() {
        let spec = ContainerSpec {
            env: vec![("A".into(), "3".into()), ("PATH".into(), "/x".into())],
            ..spec()
        };
        let env = template(&spec, 0)["process"]["env"].clone();
        assert_eq!(env, json!(["B=2", "A=3", "PATH=/x", "HOSTNAME=x", "HOME=/"]));
    }

    #[test]
    fn a_mount_of_the_caller_replaces_ours() {
        let tmpfs = Mount::Tmpfs { target: "/dev/shm".into(), size: Some(1 << 20), mode: None };
        let spec = ContainerSpec { mounts: vec![tmpfs], ..spec() };
        let config = template(&spec, 0);
        let shm: Vec<_> = config["mounts"]
            .as_array()
            .expect("mounts")
            .iter()
            .filter(|m| m["destination"] == "/dev/shm")
            .collect();
        assert_eq!(shm.len(), 1);
        assert_eq!(shm[0]["options"], json!(["nosuid", "nodev", "mode=1777", "size=1048576"]));
    }
}
