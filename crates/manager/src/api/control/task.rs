//! Tasks as users see them.

use cluster_model::{State, Task};
use cluster_pb::types::v1 as pb;
use cluster_planner::Held;
use cluster_wire::object;

/// Shows tasks of one view, with why those of silent nodes are not replaced.
pub struct Shown<'a> {
    state: &'a State,
    held: Held<'a>,
}

impl<'a> Shown<'a> {
    pub fn of(state: &'a State, now_ms: u64) -> Self {
        Self { state, held: Held::of(state, now_ms) }
    }

    pub fn task(&self, task: &Task) -> pb::Task {
        let mut shown = object::task(self.state, task);
        if let Some(why) = self.held.why(task) {
            shown.message = why;
        }
        shown
    }
}
