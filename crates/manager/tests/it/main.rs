//! A manager as its clients see it: real processes, real certificates, the gRPC API, and workers
//! that are played by the tests.

#![allow(clippy::unwrap_used)] // A test that cannot go on has failed.

mod harness;

mod api;
mod certificates;
mod leases;
mod locks;
mod logs;
mod sessions;
mod strangers;
