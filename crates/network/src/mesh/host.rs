//! Ports of this machine that lead to one task here: not balanced, not known to other workers.
//!
//! Their connections count like all others of the task ([`Mesh::drained`](super::Mesh::drained)),
//! and are cut like all others when its container goes.

use std::sync::Arc;

use tokio::net::TcpStream;

use super::core::Core;
use super::counters::add;
use super::dial::{self, Leg};
use super::relay;
use super::socket::{guard_client, reset_on_close};

/// A port of this machine and where it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostPort {
    pub published: u16,
    /// The port the container itself listens on.
    pub target: u16,
}

/// Carries one client to the container of `task_id`.
pub(super) async fn serve(core: &Arc<Core>, task_id: &str, target: u16, client: TcpStream) {
    let _ = guard_client(&client);
    let Some((ip, open)) = core.begin_host(task_id) else {
        add(&core.counters.failed, 1);
        return reset_on_close(&client);
    };
    let dialed = tokio::select! {
        () = open.cut.cancelled() => return reset_on_close(&client),
        dialed = dial::container(core, ip, target) => dialed,
    };
    match dialed {
        Ok(container) => {
            add(&core.counters.connected, 1);
            relay::client(core, client, Leg::Container(container), &open.cut).await;
        }
        Err(error) => {
            tracing::debug!(task_id, target, %error, "the container does not accept connections");
            add(&core.counters.failed, 1);
            reset_on_close(&client);
        }
    }
}
