//! Unit tests of `apply`: what is refused, what follows from a write.

mod fixture;
mod managers;
mod nodes;
mod plans;
mod reports;
mod rollouts;
mod services;
