//! The worker against a scripted manager over real mutual TLS, on a simulated machine.
#![allow(clippy::unwrap_used)] // A test that cannot go on has failed.

mod cli;
mod manager;
mod scenarios;
mod site;
