//! Bringing an image here from a registry.

pub mod options;
