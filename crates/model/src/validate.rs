//! Validation of specs: every refusal names the field, what is wrong and what would be right.
//!
//! Limits follow Swarm's where it has them (names, 4 MiB of memory, a thousandth of a core). What
//! needs another object is checked by `apply`; whether a calendar makes sense, by the API with the
//! planner's parser. `apply` runs all of this again, so it is a function of the spec alone, and
//! cheap.

mod container;
mod health;
mod job;
mod placement;
mod ports;
mod resources;
mod restart;
mod rollout;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use placement::CONSTRAINT_BYTES_MAX;

use crate::spec::{Disconnect, ServiceSpec, TaskSpec};

/// Replicas one service may ask for.
pub const REPLICAS_MAX: u32 = 100_000;
/// Bytes of environment one service may carry.
pub const ENVIRONMENT_BYTES_MAX: usize = 256 * 1024;
const LIST_MAX: usize = 256;
const TEXT_MAX: usize = 4096;
/// The longest of most durations: 7 days.
const DURATION_MAX_MS: u64 = 7 * DAY_MS;
const DAY_MS: u64 = 24 * 3600 * 1000;
const PRIORITY_MAX: u8 = 100;
/// A worker that stops its tasks sooner would do so at every hiccup of the network.
const STOP_AFTER_MIN_MS: u64 = 1_000;

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

/// A duration as people write it: the largest unit that divides it.
fn span(ms: u64) -> String {
    let units = [("d", DAY_MS), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    let fitting = units.iter().find(|(_, unit)| ms != 0 && ms.is_multiple_of(*unit));
    fitting.map_or_else(|| format!("{ms}ms"), |(name, unit)| format!("{}{name}", ms / unit))
}

fn at_most(field: &str, ms: u64, most: u64) -> Result<(), Invalid> {
    if ms > most {
        let problem = format!("{} is more than {}; write for example 30s", span(ms), span(most));
        return invalid(field, problem);
    }
    Ok(())
}

fn between(field: &str, ms: u64, least: u64, most: u64, example: &str) -> Result<(), Invalid> {
    if !(least..=most).contains(&ms) {
        let (shown, least, most) = (span(ms), span(least), span(most));
        let problem = format!("{shown} is outside {least} to {most}; write for example {example}");
        return invalid(field, problem);
    }
    Ok(())
}

/// Checks all of a service spec that needs no other object.
pub fn service(spec: &ServiceSpec) -> Result<(), Invalid> {
    name("name", &spec.name)?;
    labels("labels", spec.labels.iter())?;
    task(&spec.task)?;
    job::mode(spec)?;
    job::policy(spec)?;
    ports::service(spec)?;
    rollout::policies(spec)?;
    disconnect(spec.disconnect)?;
    if spec.priority > PRIORITY_MAX {
        let problem = format!("{} is not 0 to {PRIORITY_MAX}; the default is 50", spec.priority);
        return invalid("priority", problem);
    }
    rollout::amount("max_unavailable", spec.max_unavailable)
}

fn task(spec: &TaskSpec) -> Result<(), Invalid> {
    container::container(&spec.container)?;
    resources::resources(spec)?;
    restart::restart(&spec.restart)?;
    placement::placement(&spec.placement)?;
    health::health(&spec.health)?;
    at_most("drain_timeout", spec.drain_timeout_ms, DURATION_MAX_MS)
}

fn disconnect(policy: Disconnect) -> Result<(), Invalid> {
    match policy {
        Disconnect::Replace | Disconnect::Wait => Ok(()),
        Disconnect::StopAfter { after_ms } => {
            between("disconnect.after", after_ms, STOP_AFTER_MIN_MS, DURATION_MAX_MS, "30s")
        }
    }
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

#[cfg(test)]
mod tests;
