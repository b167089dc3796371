//! The image store from the outside: archives, registries, directories.
//!
//! Needs root, as the store does (owners, device nodes for deletions). No test
//! talks to anything but loopback.

// The lint's exception for tests covers test functions, not what they call.
#![allow(clippy::unwrap_used)] // A test that cannot go on has failed.

mod archives;
mod fixture;
mod liar;
mod pulls;
mod registry;
mod store;
mod unpacking;
