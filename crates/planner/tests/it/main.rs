//! The planners against a small world: scripted scenarios and properties under random faults.

mod bounds;
mod cron;
mod disconnect;
mod drain;
mod forecast;
mod global;
mod jobs;
mod liveness;
mod modes;
mod properties;
mod replicated;
mod restart;
mod rollout;
mod schedule;
mod storm;
mod world;
