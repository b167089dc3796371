//! The planners against a small world: scripted scenarios and properties under random faults.

mod bounds;
mod canary;
mod cron;
mod disconnect;
mod drain;
mod failing;
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
mod start_first;
mod steering;
mod storm;
mod world;
