//! Black-box scenarios on real processes and real containers.

mod bad_input;
mod certificates;
mod failures;
mod folders;
mod health;
mod images;
mod joining;
mod managers;
mod modes;
mod partitions;
mod placement;
mod recovery;
mod rollouts;
mod services;
mod strangers;
mod traffic;
mod upgrades;
