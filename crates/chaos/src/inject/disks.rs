//! The end of a full disk.

use std::time::Duration;

use cluster_lab::{NodeState, Role};

use super::Injector;
use crate::error::Result;

/// Where a daemon that stopped says why.
const TAIL: usize = 40;
const STAYS: Duration = Duration::from_secs(2);

impl Injector<'_> {
    /// Frees the disk; a manager may have stopped, if it said why.
    pub(super) fn free(&mut self, node: &str) -> Result<String> {
        let status = self.lab.status()?.into_iter().find(|row| row.name == node);
        let stopped = status.is_some_and(|row| row.state == NodeState::AgentDown);
        self.lab.free_disk(node)?;
        if !stopped {
            return Ok("its disk has room again; its daemon went on all the time".to_owned());
        }
        let tail = self.log_tail(node, TAIL).to_lowercase();
        if !tail.contains("no space") {
            self.object("silent-stop", format!("{node} stopped on a full disk without saying so"));
        }
        if self.role(node) == Role::Worker {
            self.object("stopped", format!("{node}: a worker ends where its disk is full"));
        }
        if let Some(how) = self.lab.try_agent(node, STAYS)? {
            let detail = format!("{node} does not start although its disk has room: {how}");
            self.object("stopped", detail);
        }
        Ok("its disk has room again; its daemon had stopped, said why, and is started".to_owned())
    }
}
