//! From an assignment to the container that runs it: image defaults, environment, mounts, the
//! files that name the container to itself.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cluster_image::Image;
use cluster_model::spec::{Mount as Wanted, MountKind, Resources};
use cluster_runtime::{ContainerId, ContainerSpec, ImageRoot, Limits, Mount, Signal};

use crate::assignments::Assignment;
use crate::durable::{self, at};
use crate::node::{Attached, Node};
use crate::probe::plan;

/// Labels that a later start of the worker reads.
pub const STOP_SIGNAL_LABEL: &str = "cluster.stop-signal";
pub const GRACE_LABEL: &str = "cluster.stop-grace-ms";
const HOSTNAME_MAX: usize = 63;
/// Least that the kernel can enforce.
const CPU_NANOS_MIN: u64 = 10_000_000;
/// Files that we write for a container.
const FILES: [&str; 3] = ["hostname", "hosts", "resolv.conf"];

/// Why no container can be made of an assignment.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("mount {target}: the bind source {} does not exist on this node", source_path.display())]
    NoSource { target: String, source_path: PathBuf },
    #[error("mount {target}: reading the bind source {}", source_path.display())]
    Source {
        target: String,
        source_path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "mount {target}: this node's worker does not allow binds from {}; it was started with \
         --allow-bind for other folders",
        source_path.display()
    )]
    NotAllowed { target: String, source_path: PathBuf },
    #[error("stop signal {text:?} is not a signal; try SIGTERM")]
    StopSignal { text: String },
    #[error("the task's id cannot name a container")]
    Id(#[source] cluster_runtime::spec::InvalidSpec),
    #[error(transparent)]
    File(#[from] durable::Error),
}

/// Builds the container's spec and writes its files. Blocking.
pub fn build(
    node: &Node,
    assignment: &Assignment,
    image: &Image,
    attached: &Attached,
) -> Result<ContainerSpec, Error> {
    let wanted = &assignment.spec.container;
    let id = ContainerId::new(assignment.task.to_string()).map_err(Error::Id)?;
    let hostname = wanted.hostname.clone().unwrap_or_else(|| default_hostname(assignment));
    let mut spec = ContainerSpec::new(id, image_root(image));
    spec.stop_signal = match &wanted.stop_signal {
        Some(text) => Some(text.parse().map_err(|_| Error::StopSignal { text: text.clone() })?),
        None => None,
    };
    spec.entrypoint = (!wanted.entrypoint.is_empty()).then(|| wanted.entrypoint.clone());
    spec.args = (!wanted.args.is_empty()).then(|| wanted.args.clone());
    spec.env = identity_env(node, assignment);
    spec.env.extend(resource_env(assignment));
    spec.env.extend(wanted.env.iter().cloned());
    spec.workdir = wanted.workdir.as_ref().map(PathBuf::from);
    spec.user.clone_from(&wanted.user);
    spec.limits = limits(assignment.spec.limits);
    spec.read_only_root = wanted.read_only;
    spec.netns.clone_from(&attached.netns);
    spec.labels = wanted.labels.clone();
    label(&mut spec, assignment, image);
    spec.mounts = own_files(node, assignment, &hostname, attached.ip)?;
    for mount in &wanted.mounts {
        spec.mounts.push(user_mount(node, mount)?);
    }
    spec.hostname = Some(hostname);
    Ok(spec)
}

fn image_root(image: &Image) -> ImageRoot {
    let config = &image.config;
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    ImageRoot {
        name: image.reference.to_string(),
        layers: image.layers.clone(),
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        env: config.env.clone(),
        workdir: some(&config.working_dir).map(PathBuf::from),
        user: some(&config.user),
        // A signal that does not exist is the image's mistake; SIGTERM is what Docker takes then.
        stop_signal: config.stop_signal.as_ref().and_then(|text| text.parse::<Signal>().ok()),
    }
}

fn identity_env(node: &Node, assignment: &Assignment) -> Vec<(String, String)> {
    [
        ("CLUSTER_SERVICE_NAME", assignment.service_name.clone()),
        ("CLUSTER_SERVICE_ID", assignment.service.to_string()),
        ("CLUSTER_TASK_ID", assignment.task.to_string()),
        ("CLUSTER_TASK_SLOT", assignment.slot.to_string()),
        ("CLUSTER_NODE_ID", node.id.clone()),
        ("CLUSTER_NODE_NAME", node.name.clone()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// What the task reserved of generic resources: the names it holds, or how many where they have
/// none.
fn resource_env(assignment: &Assignment) -> Vec<(String, String)> {
    let variable = |kind: &str| {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        format!("CLUSTER_RESOURCE_{}", kind.chars().map(plain).collect::<String>())
    };
    let named = |kind: &String| {
        let mut holds = assignment.generic.iter();
        holds.find(|(held, names)| held == kind && !names.is_empty()).map(|(_, names)| names)
    };
    let reserved = assignment.spec.generic.iter();
    reserved
        .map(|(kind, count)| {
            let value = named(kind).map_or_else(|| count.to_string(), |names| names.join(","));
            (variable(kind), value)
        })
        .collect()
}

fn label(spec: &mut ContainerSpec, assignment: &Assignment, image: &Image) {
    let ours = [
        ("cluster.service", assignment.service.to_string()),
        ("cluster.service-name", assignment.service_name.clone()),
        ("cluster.slot", assignment.slot.to_string()),
        ("cluster.revision", assignment.revision.to_string()),
        ("cluster.image", image.manifest_digest.to_string()),
        (STOP_SIGNAL_LABEL, spec.effective_stop_signal().to_string()),
        (plan::LABEL, plan::label(image.config.healthcheck.as_ref())),
        (GRACE_LABEL, assignment.spec.container.stop_grace_period_ms.to_string()),
    ];
    spec.labels.extend(ours.map(|(key, value)| (key.to_owned(), value)));
}

fn limits(wanted: Resources) -> Limits {
    Limits {
        cpu_nanos: (wanted.cpu_nanos > 0).then(|| wanted.cpu_nanos.max(CPU_NANOS_MIN)),
        memory_bytes: (wanted.memory_bytes > 0).then_some(wanted.memory_bytes),
        pids: None,
    }
}

/// `<service>-<slot>`, shortened in the service's part and in characters a host name may have.
fn default_hostname(assignment: &Assignment) -> String {
    let slot = format!("-{}", assignment.slot);
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let mut name: String = assignment.service_name.chars().map(plain).collect();
    name.truncate(HOSTNAME_MAX - slot.len());
    name + &slot
}

fn user_mount(node: &Node, wanted: &Wanted) -> Result<Mount, Error> {
    let target = PathBuf::from(&wanted.target);
    let ro = wanted.read_only;
    Ok(match &wanted.kind {
        MountKind::Bind { source } => {
            let source = bind_source(node, &wanted.target, Path::new(source))?;
            Mount::Bind { source, target, ro }
        }
        MountKind::Volume { name } => {
            Mount::Volume { host_path: node.data.volume(name), target, ro }
        }
        MountKind::Tmpfs { size_bytes } => {
            Mount::Tmpfs { target, size: (*size_bytes > 0).then_some(*size_bytes), mode: None }
        }
    })
}

/// The bind's source with links resolved, so that what is checked is what is mounted.
fn bind_source(node: &Node, target: &str, source: &Path) -> Result<PathBuf, Error> {
    let resolved = source.canonicalize().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::NoSource { target: target.into(), source_path: source.into() }
        }
        _ => Error::Source { target: target.into(), source_path: source.into(), source: error },
    })?;
    let allowed = &node.allowed_binds;
    if !allowed.is_empty() && !allowed.iter().any(|folder| resolved.starts_with(folder)) {
        return Err(Error::NotAllowed { target: target.into(), source_path: source.into() });
    }
    Ok(resolved)
}

/// Writes `/etc/hostname`, `/etc/hosts` and `/etc/resolv.conf`, and gives the mounts of those that
/// the user does not mount otherwise.
fn own_files(
    node: &Node,
    assignment: &Assignment,
    hostname: &str,
    ip: Ipv4Addr,
) -> Result<Vec<Mount>, Error> {
    let dir = node.data.task(assignment.task);
    fs::create_dir_all(&dir).map_err(at("creating", &dir))?;
    let contents = [format!("{hostname}\n"), hosts(hostname, ip), resolv_conf()];
    let container = &assignment.spec.container;
    let mut mounts = Vec::new();
    for (name, content) in FILES.into_iter().zip(contents) {
        let target = PathBuf::from("/etc").join(name);
        if container.mounts.iter().any(|mount| Path::new(&mount.target) == target) {
            continue;
        }
        let source = dir.join(name);
        fs::write(&source, content).map_err(at("writing", &source))?;
        // Whatever our umask: the container's users read them.
        fs::set_permissions(&source, fs::Permissions::from_mode(0o644))
            .map_err(at("making readable", &source))?;
        mounts.push(Mount::Bind { source, target, ro: container.read_only });
    }
    Ok(mounts)
}

fn hosts(hostname: &str, ip: Ipv4Addr) -> String {
    format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{ip}\t{hostname}\n")
}

/// The machine's, without name servers on its loopback, which containers cannot reach.
fn resolv_conf() -> String {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let reachable = |line: &&str| {
        let server = line.trim().strip_prefix("nameserver").map(str::trim);
        !server
            .and_then(|server| server.parse::<IpAddr>().ok())
            .is_some_and(|address| address.is_loopback())
    };
    text.lines().filter(reachable).map(|line| format!("{line}\n")).collect()
}
