//! What runs: image, command, environment, mounts, user.

use std::collections::BTreeSet;

use super::{
    DURATION_MAX_MS, ENVIRONMENT_BYTES_MAX, Invalid, LIST_MAX, invalid, labels, name, shown, text,
};
use crate::spec::{ContainerSpec, MountKind};

/// Bytes of arguments and entrypoint together.
const ARGUMENT_BYTES_MAX: usize = 256 * 1024;

/// Without SIG; as the runtime's.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

pub(super) fn container(spec: &ContainerSpec) -> Result<(), Invalid> {
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
        && !is_signal(signal)
    {
        return invalid(
            "stop_signal",
            format!(
                "`{}` is not a Linux signal; write for example SIGTERM, SIGRTMIN+3 or 15",
                shown(signal)
            ),
        );
    }
    if spec.stop_grace_period_ms > DURATION_MAX_MS {
        return invalid("stop_grace_period", "is longer than 7 days");
    }
    mounts(spec)
}

/// What the runtime knows: names with or without SIG, in any case, and the numbers 1 to 64.
fn is_signal(text: &str) -> bool {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse::<u8>().is_ok_and(|number| (1..=64).contains(&number));
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = name.strip_prefix("RTMIN+").or(name.strip_prefix("RTMAX-"));
    match offset {
        Some(offset) => {
            offset.bytes().all(|byte| byte.is_ascii_digit())
                && offset.parse::<u8>().is_ok_and(|offset| offset <= 30)
        }
        None => SIGNALS.contains(&name),
    }
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
