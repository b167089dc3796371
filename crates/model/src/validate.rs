//! Validation of specs: every refusal names the field, what is wrong and what would be right.
//!
//! Limits follow Swarm's where it has them (names, 4 MiB of memory, a thousandth of a core).

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::spec::{ContainerSpec, MountKind, PortSpec, Resources, ServiceSpec, TaskSpec};

/// Replicas one service may ask for.
pub const REPLICAS_MAX: u32 = 100_000;
/// Bytes of environment one service may carry.
pub const ENVIRONMENT_BYTES_MAX: usize = 256 * 1024;
/// Bytes of arguments and entrypoint together.
const ARGUMENT_BYTES_MAX: usize = 256 * 1024;
const MEMORY_MIN: u64 = 4 * 1024 * 1024;
const MEMORY_MAX: u64 = 1 << 50;
const CPU_MIN: u64 = 1_000_000;
const CPU_MAX: u64 = 100_000 * 1_000_000_000;
const LIST_MAX: usize = 256;
const TEXT_MAX: usize = 4096;
const DURATION_MAX_MS: u64 = 7 * 24 * 3600 * 1000;

/// A field that cannot be accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invalid {
    /// Path of the field in the spec.
    pub field: String,
    /// What is wrong and what to write instead.
    pub problem: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "field `{}`: {}", self.field, self.problem)
    }
}

fn invalid<T>(field: impl Into<String>, problem: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid { field: field.into(), problem: problem.into() })
}

/// Shows user text safely inside an error: one line, bounded.
fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(40).flat_map(char::escape_debug).collect();
    if text.chars().count() > 40 {
        short.push('…');
    }
    short
}

/// Checks all of a service spec that needs no other object.
pub fn service(spec: &ServiceSpec) -> Result<(), Invalid> {
    name("name", &spec.name)?;
    labels("labels", spec.labels.iter())?;
    let replicas = spec.replicas();
    if replicas > REPLICAS_MAX {
        return invalid("replicas", format!("{replicas} is more than {REPLICAS_MAX}"));
    }
    ports(&spec.ports)?;
    task(&spec.task)
}

/// Names of services and nodes: 1-63 letters, digits, inner `-`, `_` and `.`.
pub fn name(field: &str, text: &str) -> Result<(), Invalid> {
    let rule = "use 1-63 letters, digits and inner `-`, `_` or `.`";
    if text.is_empty() {
        return invalid(field, format!("is empty; {rule}"));
    }
    if text.len() > 63 {
        return invalid(field, format!("is {} characters long; {rule}", text.len()));
    }
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if !text.chars().all(good) || !ends(text.chars().next()) || !ends(text.chars().next_back()) {
        return invalid(field, format!("`{}` is not a name; {rule}", shown(text)));
    }
    Ok(())
}

/// Labels: bounded, keys without white space or control characters.
pub fn labels<'a>(
    field: &str,
    labels: impl ExactSizeIterator<Item = (&'a String, &'a String)>,
) -> Result<(), Invalid> {
    if labels.len() > LIST_MAX {
        return invalid(field, format!("{} labels are more than {LIST_MAX}", labels.len()));
    }
    for (key, value) in labels {
        if key.is_empty()
            || key.len() > 256
            || key.contains(|c: char| c.is_whitespace() || c.is_control())
        {
            let problem =
                format!("`{}` is not a label key; use 1-256 characters without spaces", shown(key));
            return invalid(field, problem);
        }
        text(&format!("{field}.{key}"), value)?;
    }
    Ok(())
}

fn text(field: &str, value: &str) -> Result<(), Invalid> {
    if value.len() > TEXT_MAX {
        return invalid(field, format!("is {} bytes long, more than {TEXT_MAX}", value.len()));
    }
    if value.contains('\0') {
        return invalid(field, "contains a NUL byte");
    }
    Ok(())
}

fn ports(ports: &[PortSpec]) -> Result<(), Invalid> {
    if ports.len() > LIST_MAX {
        return invalid("ports", format!("{} ports are more than {LIST_MAX}", ports.len()));
    }
    let mut seen = BTreeSet::new();
    for (place, port) in ports.iter().enumerate() {
        if port.target == 0 {
            return invalid(format!("ports[{place}].target"), "is 0; use a port of 1-65535");
        }
        if port.published != 0 && !seen.insert(port.published) {
            let problem = format!("{} is published twice by this service", port.published);
            return invalid(format!("ports[{place}].published"), problem);
        }
    }
    Ok(())
}

fn task(spec: &TaskSpec) -> Result<(), Invalid> {
    container(&spec.container)?;
    resources("limits", spec.limits)?;
    resources("reservations", spec.reservations)?;
    for (what, limit, reserve) in [
        ("memory", spec.limits.memory_bytes, spec.reservations.memory_bytes),
        ("cpu", spec.limits.cpu_nanos, spec.reservations.cpu_nanos),
    ] {
        if limit != 0 && reserve > limit {
            return invalid(
                format!("reservations.{what}"),
                format!("{reserve} is more than the limit of {limit}"),
            );
        }
    }
    if spec.restart.delay_ms.is_some_and(|delay| delay > DURATION_MAX_MS) {
        return invalid("restart.delay", "is longer than 7 days");
    }
    if spec.placement.constraints.len() > LIST_MAX {
        return invalid("constraints", format!("are more than {LIST_MAX}"));
    }
    for (place, constraint) in spec.placement.constraints.iter().enumerate() {
        for value in constraint.rule.values() {
            text(&format!("constraints[{place}]"), value)?;
        }
    }
    Ok(())
}

fn resources(field: &str, wanted: Resources) -> Result<(), Invalid> {
    let Resources { cpu_nanos, memory_bytes } = wanted;
    if memory_bytes != 0 && !(MEMORY_MIN..=MEMORY_MAX).contains(&memory_bytes) {
        let problem =
            format!("{memory_bytes} bytes is outside 4 MiB to 1 PiB; write for example 64M");
        return invalid(format!("{field}.memory"), problem);
    }
    if cpu_nanos != 0 && !(CPU_MIN..=CPU_MAX).contains(&cpu_nanos) {
        return invalid(
            format!("{field}.cpu"),
            "is outside 0.001 to 100000 cores; write for example 0.5",
        );
    }
    Ok(())
}

fn container(spec: &ContainerSpec) -> Result<(), Invalid> {
    if spec.image.is_empty() {
        return invalid("image", "is empty; name an image such as web:1");
    }
    if spec.image.len() > 512 || spec.image.contains(|c: char| c.is_whitespace() || c.is_control())
    {
        return invalid("image", format!("`{}` is not an image reference", shown(&spec.image)));
    }
    let arguments: usize = spec.entrypoint.iter().chain(&spec.args).map(|a| a.len() + 1).sum();
    if arguments > ARGUMENT_BYTES_MAX {
        return invalid("args", format!("are {arguments} bytes, more than {ARGUMENT_BYTES_MAX}"));
    }
    if spec.entrypoint.iter().chain(&spec.args).any(|a| a.contains('\0')) {
        return invalid("args", "contain a NUL byte");
    }
    environment(&spec.env)?;
    labels("container_labels", spec.labels.iter())?;
    if let Some(workdir) = &spec.workdir {
        absolute("workdir", workdir)?;
    }
    if let Some(user) = &spec.user
        && (user.is_empty()
            || user.len() > 128
            || user.contains(|c: char| c.is_whitespace() || c.is_control()))
    {
        return invalid("user", format!("`{}` is not USER[:GROUP]", shown(user)));
    }
    if let Some(hostname) = &spec.hostname {
        name("hostname", hostname)?;
    }
    if let Some(signal) = &spec.stop_signal
        && (signal.is_empty()
            || signal.len() > 16
            || !signal.chars().all(|c| c.is_ascii_alphanumeric() || c == '+' || c == '-'))
    {
        return invalid(
            "stop_signal",
            format!("`{}` is not a signal such as SIGTERM or 15", shown(signal)),
        );
    }
    if spec.stop_grace_period_ms > DURATION_MAX_MS {
        return invalid("stop_grace_period", "is longer than 7 days");
    }
    mounts(spec)
}

fn environment(env: &[(String, String)]) -> Result<(), Invalid> {
    let bytes: usize = env.iter().map(|(key, value)| key.len() + value.len() + 2).sum();
    if bytes > ENVIRONMENT_BYTES_MAX {
        let problem = format!(
            "is {bytes} bytes, more than {ENVIRONMENT_BYTES_MAX}; put large data in a file or volume"
        );
        return invalid("env", problem);
    }
    for (place, (key, value)) in env.iter().enumerate() {
        if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
            return invalid(format!("env[{place}]"), format!("`{}` is not KEY=VALUE", shown(key)));
        }
    }
    Ok(())
}

fn mounts(spec: &ContainerSpec) -> Result<(), Invalid> {
    if spec.mounts.len() > LIST_MAX {
        return invalid("mounts", format!("are more than {LIST_MAX}"));
    }
    let mut targets = BTreeSet::new();
    for (place, mount) in spec.mounts.iter().enumerate() {
        let field = format!("mounts[{place}]");
        absolute(&format!("{field}.target"), &mount.target)?;
        if mount.target == "/" {
            return invalid(format!("{field}.target"), "is the root; mount below it");
        }
        if !targets.insert(&mount.target) {
            return invalid(
                format!("{field}.target"),
                format!("`{}` is used twice", shown(&mount.target)),
            );
        }
        match &mount.kind {
            MountKind::Bind { source } => absolute(&format!("{field}.source"), source)?,
            MountKind::Volume { name: volume } => name(&format!("{field}.source"), volume)?,
            MountKind::Tmpfs { .. } => {}
        }
    }
    Ok(())
}

fn absolute(field: &str, path: &str) -> Result<(), Invalid> {
    text(field, path)?;
    if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return invalid(field, format!("`{}` is not an absolute path without `..`", shown(path)));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
