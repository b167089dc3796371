//! The network of a worker against a real kernel. The bridge tests need root;
//! they make their own network and mount namespaces, which end with them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bridge;
mod mesh;
mod netns;
