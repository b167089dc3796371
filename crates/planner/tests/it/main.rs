//! The planners against a small world: scripted scenarios and properties under random faults.

mod drain;
mod explain;
mod holdings;
mod liveness;
mod placement;
mod placing;
mod preemption;
mod properties;
mod replicated;
mod restart;
mod rollout;
mod schedule;
mod world;
