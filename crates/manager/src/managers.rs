//! The managers' own group as users and managers see it: who is in it and how each is doing,
//! changes of votes, spares that replace the dead, snapshots on a schedule, and noticing that one
//! is no longer a member.
//!
//! What is safe is decided by `cluster_planner::managers`; how votes change is `raft`'s.

pub mod change;
pub mod handover;
pub mod replace;
pub mod schedule;
pub mod standing;
pub mod survey;
pub mod wellbeing;
