//! The worker against a scripted manager over real mutual TLS, on a simulated machine.

mod manager;
mod scenarios;
mod site;
