//! A leader that is told to stop lets another one lead first, so that no write has to wait for an
//! election.

use crate::context::Context;

/// Hands over if this manager leads and somebody can take over; says which it was.
pub async fn before_stopping(context: &Context) {
    if !context.raft.leadership().borrow().this_node_leads_and_caught_up {
        return;
    }
    match context.raft.hand_over().await {
        Some(leader) => tracing::info!(%leader, "handed leadership over"),
        None => tracing::info!("nobody is there to hand leadership over to"),
    }
}
