//! The planners against a small world: scripted scenarios and properties under random faults.

mod bounds;
mod drain;
mod liveness;
mod properties;
mod replicated;
mod restart;
mod rollout;
mod schedule;
mod world;
