//! Probes.

use super::{DURATION_MAX_MS, Invalid, LIST_MAX, TEXT_MAX, at_most, between, invalid, shown};
use crate::spec::{Check, Health, Probe};

/// Bytes of a command in all.
const COMMAND_BYTES_MAX: usize = 16 * 1024;
const PATH_BYTES_MAX: usize = TEXT_MAX / 4;
const RETRIES_MAX: u32 = 1_000;

pub(super) fn health(health: &Health) -> Result<(), Invalid> {
    let Health { ignore_image: _, startup, liveness, readiness } = health;
    for (which, wanted) in [("startup", startup), ("liveness", liveness), ("readiness", readiness)]
    {
        if let Some(wanted) = wanted {
            probe(&format!("health.{which}"), wanted)?;
        }
    }
    Ok(())
}

fn probe(field: &str, probe: &Probe) -> Result<(), Invalid> {
    let Probe { check, interval_ms, timeout_ms, retries, start_period_ms, start_interval_ms } =
        probe;
    match check {
        Check::Exec(command) => exec(field, command)?,
        Check::Http { port, path } => {
            one_port(field, *port)?;
            http_path(field, path)?;
        }
        Check::Tcp { port } => one_port(field, *port)?,
    }
    let most = DURATION_MAX_MS;
    between(&format!("{field}.interval"), *interval_ms, 1, most, "10s")?;
    between(&format!("{field}.timeout"), *timeout_ms, 1, most, "5s")?;
    between(&format!("{field}.start_interval"), *start_interval_ms, 1, most, "1s")?;
    at_most(&format!("{field}.start_period"), *start_period_ms, most)?;
    if !(1..=RETRIES_MAX).contains(retries) {
        let problem = format!("{retries} is not 1 to {RETRIES_MAX}; write for example 3");
        return invalid(format!("{field}.retries"), problem);
    }
    Ok(())
}

fn exec(field: &str, command: &[String]) -> Result<(), Invalid> {
    let field = || format!("{field}.exec");
    if command.first().is_none_or(String::is_empty) {
        return invalid(field(), "names no program; write for example wget -q -O - localhost:80");
    }
    let bytes: usize = command.iter().map(|word| word.len() + 1).sum();
    if command.len() > LIST_MAX || bytes > COMMAND_BYTES_MAX {
        let problem =
            format!("is {bytes} bytes long, more than {COMMAND_BYTES_MAX}; call a script instead");
        return invalid(field(), problem);
    }
    if command.iter().any(|word| word.contains('\0')) {
        return invalid(field(), "contains a NUL byte");
    }
    Ok(())
}

fn one_port(field: &str, port: u16) -> Result<(), Invalid> {
    if port == 0 {
        return invalid(format!("{field}.port"), "is 0; use a port of 1-65535 of the container");
    }
    Ok(())
}

fn http_path(field: &str, path: &str) -> Result<(), Invalid> {
    let field = format!("{field}.path");
    if !path.starts_with('/') {
        let problem =
            format!("`{}` does not begin with /; write for example /healthz", shown(path));
        return invalid(field, problem);
    }
    if path.len() > PATH_BYTES_MAX {
        let problem = format!("is {} bytes long, more than {PATH_BYTES_MAX}", path.len());
        return invalid(field, problem);
    }
    if path.contains(|c: char| c.is_whitespace() || c.is_control()) {
        let problem = format!("`{}` contains white space; write for example /healthz", shown(path));
        return invalid(field, problem);
    }
    Ok(())
}
