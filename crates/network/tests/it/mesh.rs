//! Several meshes in one process, each on its own loopback address.

mod failures;
mod host;
mod traffic;
mod world;
