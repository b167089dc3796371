//! CPU, memory and generic resources.

use std::collections::BTreeMap;

use super::{Invalid, invalid, shown};
use crate::spec::{Resources, TaskSpec};

const MEMORY_MIN: u64 = 4 * 1024 * 1024;
const MEMORY_MAX: u64 = 1 << 50;
const CPU_MIN: u64 = 1_000_000;
const CPU_MAX: u64 = 100_000 * 1_000_000_000;
const KINDS_MAX: usize = 64;
const KIND_LENGTH_MAX: usize = 63;

pub(super) fn resources(spec: &TaskSpec) -> Result<(), Invalid> {
    amounts("limits", spec.limits)?;
    amounts("reservations", spec.reservations)?;
    for (what, limit, reserve) in [
        ("memory", spec.limits.memory_bytes, spec.reservations.memory_bytes),
        ("cpu", spec.limits.cpu_nanos, spec.reservations.cpu_nanos),
    ] {
        if limit != 0 && reserve > limit {
            return invalid(
                format!("reservations.{what}"),
                format!("{reserve} is more than the limit of {limit}; reserve at most the limit"),
            );
        }
    }
    generic(&spec.generic)
}

fn amounts(field: &str, wanted: Resources) -> Result<(), Invalid> {
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

fn generic(wanted: &BTreeMap<String, u64>) -> Result<(), Invalid> {
    if wanted.len() > KINDS_MAX {
        return invalid("generic", format!("{} kinds are more than {KINDS_MAX}", wanted.len()));
    }
    for (kind, count) in wanted {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if kind.is_empty() || kind.len() > KIND_LENGTH_MAX || !kind.chars().all(good) {
            let problem = format!(
                "`{}` is not a kind; use 1-{KIND_LENGTH_MAX} letters, digits, `-` and `_`, such \
                 as gpu=1",
                shown(kind)
            );
            return invalid("generic", problem);
        }
        if *count == 0 {
            return invalid(format!("generic.{kind}"), "is 0; ask for at least 1, or for none");
        }
    }
    Ok(())
}
