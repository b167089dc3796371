//! A change of the CA: when its phase is over, the next one begins.
//!
//! Nodes confirm by themselves; here is only decided that nobody is waited for any more. `apply`
//! checks it again.

use cluster_model::{Secure, State};

/// The step that is due, if any.
pub fn plan(state: &State, now_ms: u64) -> Option<Secure> {
    let rotation = state.rotation()?;
    if state.ca_waits_for().next().is_some() {
        return None;
    }
    let (started_at_ms, phase) = (rotation.started_at_ms, rotation.phase);
    Some(Secure::AdvanceCa { started_at_ms, phase, at_ms: now_ms })
}
