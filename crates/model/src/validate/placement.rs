//! Constraints, preferences, affinities.

use std::net::IpAddr;

use super::{Invalid, LIST_MAX, invalid, name, shown};
use crate::constraint::{Constraint, Key};
use crate::spec::{AffinityTarget, Placement};

/// Bytes of one constraint as text.
pub const CONSTRAINT_BYTES_MAX: usize = 1024;
const SPREAD_MAX: usize = 8;
const AFFINITIES_MAX: usize = 64;

pub(super) fn placement(placement: &Placement) -> Result<(), Invalid> {
    let Placement { constraints, spread_over, max_per_node: _, strategy: _, affinities } =
        placement;
    if constraints.len() > LIST_MAX {
        let problem = format!("{} constraints are more than {LIST_MAX}", constraints.len());
        return invalid("constraints", problem);
    }
    for (place, constraint) in constraints.iter().enumerate() {
        bounded(&format!("constraints[{place}]"), constraint)?;
    }
    if spread_over.len() > SPREAD_MAX {
        let problem = format!("{} preferences are more than {SPREAD_MAX}", spread_over.len());
        return invalid("spread_over", problem);
    }
    for (place, key) in spread_over.iter().enumerate() {
        if !matches!(key, Key::NodeLabel(_) | Key::EngineLabel(_) | Key::NodeHostname) {
            let problem = format!(
                "`{key}` cannot be spread over; use a label such as node.labels.rack, or \
                 node.hostname"
            );
            return invalid(format!("spread_over[{place}]"), problem);
        }
        if key.to_string().len() > CONSTRAINT_BYTES_MAX {
            let problem = format!("is longer than {CONSTRAINT_BYTES_MAX} bytes");
            return invalid(format!("spread_over[{place}]"), problem);
        }
    }
    if affinities.len() > AFFINITIES_MAX {
        let problem = format!("{} affinities are more than {AFFINITIES_MAX}", affinities.len());
        return invalid("affinities", problem);
    }
    for (place, affinity) in affinities.iter().enumerate() {
        if affinity.weight == 0 || !(-100..=100).contains(&affinity.weight) {
            let problem = format!("{} is not -100 to -1 or 1 to 100", affinity.weight);
            return invalid(format!("affinities[{place}].weight"), problem);
        }
        match &affinity.target {
            AffinityTarget::Service(service) => {
                name(&format!("affinities[{place}].service"), service)?;
            }
            AffinityTarget::Node(constraint) => {
                bounded(&format!("affinities[{place}].node"), constraint)?;
            }
        }
    }
    Ok(())
}

fn bounded(field: &str, constraint: &Constraint) -> Result<(), Invalid> {
    let text = constraint.to_string();
    if text.len() > CONSTRAINT_BYTES_MAX {
        let problem = format!(
            "is {} bytes long, more than {CONSTRAINT_BYTES_MAX}; write for example \
             node.labels.rack==a",
            text.len()
        );
        return invalid(field, problem);
    }
    if constraint.key == Key::NodeIp {
        for value in constraint.rule.values() {
            address(field, value)?;
        }
    }
    if text.contains(char::is_control) {
        return invalid(
            field,
            "contains a control character; write for example node.labels.rack==a",
        );
    }
    Ok(())
}

/// An address, or a block of them.
fn address(field: &str, value: &str) -> Result<(), Invalid> {
    let (base, bits) = match value.split_once('/') {
        Some((base, bits)) => (base, bits.parse::<u8>().ok()),
        None => (value, Some(0)),
    };
    let good = match (base.parse::<IpAddr>(), bits) {
        (Ok(IpAddr::V4(_)), Some(bits)) => bits <= 32,
        (Ok(IpAddr::V6(_)), Some(bits)) => bits <= 128,
        (Ok(_), None) | (Err(_), _) => false,
    };
    if good {
        return Ok(());
    }
    let problem = format!(
        "`{}` is neither an address nor a block; write for example node.ip==10.1.0.0/16",
        shown(value)
    );
    invalid(field, problem)
}
