//! What can be done to a node: the ways in which hosts and networks break, and their undoing.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::Lab;
use crate::error::Result;
use crate::exec::CLIENT;
use crate::switch::{Cut, Direction};

impl Lab {
    /// Power-off: the cable goes first, so that peers hear nothing, then agent, shims and
    /// containers die at once. Fine for a node that is off.
    pub fn kill(&self, node: &str) -> Result<()> {
        self.change(|hall, state| {
            let init = state.node(node)?.init;
            hall.switch_off(&state.name, node, init)?;
            state.node_mut(node)?.init = None;
            Ok(())
        })
    }

    /// Power-on, with the data the node had. Fine for a node that is on.
    pub fn start(&self, node: &str) -> Result<()> {
        self.change(|hall, state| {
            if state.node(node)?.running().is_some() {
                return Ok(());
            }
            let init = state.node(node)?.init;
            hall.switch_off(&state.name, node, init)?;
            let init = hall.switch_on(state, node)?;
            state.node_mut(node)?.init = Some(init);
            if state.shapes.iter().any(|shape| shape.node == node) {
                self.relay(state, node)?;
            }
            Ok(())
        })
    }

    /// Freezes every process of the node.
    pub fn pause(&self, node: &str) -> Result<()> {
        self.require_running(node)?;
        self.cgroups.freeze(&self.name, node, true)
    }

    /// Undoes [`Lab::pause`].
    pub fn resume(&self, node: &str) -> Result<()> {
        self.require_running(node)?;
        self.cgroups.freeze(&self.name, node, false)
    }

    /// A silent partition of the node from everyone.
    pub fn cut(&self, node: &str) -> Result<()> {
        self.add_cuts(vec![
            Cut::Node { node: node.to_owned(), direction: Direction::In },
            Cut::Node { node: node.to_owned(), direction: Direction::Out },
        ])
    }

    /// A partition in one direction only.
    pub fn cut_one_way(&self, node: &str, direction: Direction) -> Result<()> {
        self.add_cuts(vec![Cut::Node { node: node.to_owned(), direction }])
    }

    /// Drops what `from` sends to `to`; both may also be `client`.
    pub fn cut_link(&self, from: &str, to: &str) -> Result<()> {
        self.add_cuts(vec![Cut::Link { from: from.to_owned(), to: to.to_owned() }])
    }

    fn add_cuts(&self, cuts: Vec<Cut>) -> Result<()> {
        self.change(|hall, state| {
            for cut in cuts {
                let places = match &cut {
                    Cut::Node { node, .. } => vec![node],
                    Cut::Link { from, to } => vec![from, to],
                };
                for place in places {
                    if place != CLIENT {
                        state.node(place)?;
                    }
                }
                state.cuts.push(cut);
            }
            state.cuts.sort();
            state.cuts.dedup();
            hall.switch.set_cuts(&state.cuts)
        })
    }

    /// Removes every cut that concerns the node, and whatever slows its links down.
    pub fn heal(&self, node: &str) -> Result<()> {
        self.change(|hall, state| {
            state.node(node)?;
            state.cuts.retain(|cut| !cut.concerns(node));
            hall.switch.set_cuts(&state.cuts)?;
            self.forget_shapes(state, node)
        })
    }

    /// SIGSTOP to the agent alone: its containers and shims run on, its sockets stay open.
    pub fn pause_agent(&self, node: &str) -> Result<()> {
        self.require_running(node)?;
        self.hall(|hall| hall.signal_agent(&self.name, node, Signal::SIGSTOP))
    }

    /// Undoes [`Lab::pause_agent`].
    pub fn resume_agent(&self, node: &str) -> Result<()> {
        self.require_running(node)?;
        self.hall(|hall| hall.signal_agent(&self.name, node, Signal::SIGCONT))
    }

    /// SIGKILL to the agent alone; shims and containers live on.
    pub fn kill_agent(&self, node: &str) -> Result<()> {
        self.require_running(node)?;
        self.hall(|hall| hall.kill_agent(&self.name, node))
    }

    /// Starts the agent of a node and looks at it for so long; how it ended, if it did.
    pub fn try_agent(&self, node: &str, within: Duration) -> Result<Option<String>> {
        self.require_running(node)?;
        self.hall(|hall| hall.try_agent(node, within))
    }

    /// Starts the agent of a node that is on. Fine when it runs.
    pub fn start_agent(&self, node: &str) -> Result<()> {
        self.require_running(node)?;
        self.hall(|hall| hall.start_agent(&self.name, node))
    }
}
