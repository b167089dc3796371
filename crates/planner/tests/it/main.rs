//! The planners against a small world: scripted scenarios and properties under random faults.

mod bounds;
mod canary;
mod cron;
mod disconnect;
mod drain;
mod explain;
mod failing;
mod forecast;
mod global;
mod holdings;
mod jobs;
mod liveness;
mod modes;
mod placement;
mod placing;
mod preemption;
mod properties;
mod replicated;
mod restart;
mod rollout;
mod schedule;
mod start_first;
mod steering;
mod storm;
mod world;
