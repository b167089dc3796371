//! The worker against a scripted manager over real mutual TLS, on a simulated machine, and
//! where it matters on a real one.
#![allow(clippy::unwrap_used)] // A test that cannot go on has failed.

mod cli;
mod containers;
mod machine;
mod manager;
mod scenarios;
mod site;
mod wellbeing;
