//! Fixtures shared by this crate's tests.

use std::time::Duration;

use crate::{Ca, Identity, Role, Subject, now_unix};

pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

pub(crate) fn ca(cluster_id: &str) -> Ca {
    Ca::create(cluster_id, now_unix()).unwrap()
}

pub(crate) fn subject(ca: &Ca, role: Role, node_id: &str) -> Subject {
    Subject { role, node_id: node_id.into(), cluster_id: ca.cluster_id().into() }
}

pub(crate) fn member(ca: &Ca, role: Role, node_id: &str) -> Identity {
    ca.issue(&subject(ca, role, node_id), now_unix(), DAY).unwrap()
}

/// A member whose certificate was signed `ago` and lived for one day.
pub(crate) fn member_signed_ago(ca: &Ca, role: Role, node_id: &str, ago: Duration) -> Identity {
    ca.issue(&subject(ca, role, node_id), now_unix() - ago.as_secs(), DAY).unwrap()
}

/// A member whose certificate was signed on a machine with a clock that is ahead.
pub(crate) fn member_signed_ahead(ca: &Ca, role: Role, node_id: &str, ahead: Duration) -> Identity {
    ca.issue(&subject(ca, role, node_id), now_unix() + ahead.as_secs(), DAY).unwrap()
}

/// Everything an error says, its causes included.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
