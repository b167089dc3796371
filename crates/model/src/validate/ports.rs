//! Ports of the whole cluster and of a task's own node.

use std::collections::BTreeSet;

use super::{Invalid, LIST_MAX, invalid};
use crate::spec::ServiceSpec;

pub(super) fn service(spec: &ServiceSpec) -> Result<(), Invalid> {
    let host_ports = &spec.task.host_ports;
    if spec.mode.is_job() && !(spec.ports.is_empty() && host_ports.is_empty()) {
        return invalid("ports", "are not for jobs, which end; publish ports of a service instead");
    }
    let count = spec.ports.len() + host_ports.len();
    if count > LIST_MAX {
        return invalid("ports", format!("{count} ports are more than {LIST_MAX}"));
    }
    let mut seen = BTreeSet::new();
    for (place, port) in spec.ports.iter().enumerate() {
        one(&format!("ports[{place}]"), port.published, port.target, &mut seen)?;
    }
    for (place, port) in host_ports.iter().enumerate() {
        let field = format!("host_ports[{place}]");
        if port.published == 0 {
            let problem = "is 0, but nobody chooses ports of the host mode; write for example \
                           mode=host,published=8080,target=80";
            return invalid(format!("{field}.published"), problem);
        }
        one(&field, port.published, port.target, &mut seen)?;
    }
    Ok(())
}

/// A port of the mesh is bound on every node, so the two kinds exclude each other.
fn one(field: &str, published: u16, target: u16, seen: &mut BTreeSet<u16>) -> Result<(), Invalid> {
    if target == 0 {
        return invalid(format!("{field}.target"), "is 0; use a port of 1-65535");
    }
    if published != 0 && !seen.insert(published) {
        let problem = format!("{published} is published twice by this service; use another port");
        return invalid(format!("{field}.published"), problem);
    }
    Ok(())
}
