//! The planners against a small world: scripted scenarios and properties under random faults.

mod bounds;
mod canary;
mod drain;
mod failing;
mod liveness;
mod properties;
mod replicated;
mod restart;
mod rollout;
mod schedule;
mod start_first;
mod steering;
mod world;
