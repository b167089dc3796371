//! The image store of a worker: references, pulls, archives, unpacked layers.
//!
//! Lives here: everything between an image's name and a list of directories
//! that overlayfs can mount, including what is fetched, checked and thrown
//! away on the way. Never here: mounts, containers, anything that runs an
//! image, and anything that knows our other crates.
//!
//! Every byte is checked against a digest before it gets its final name, and
//! final names appear only by rename, so a crash leaves either nothing or the
//! whole thing. Blocking work happens on tokio's blocking threads.

pub mod config;
pub mod digest;
pub mod error;
mod export;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod image;
mod import;
pub mod limits;
mod manifest;
pub mod platform;
pub mod pull;
pub mod reference;
pub mod store;
mod unpack;

pub use config::{Healthcheck, ImageConfig};
pub use digest::Digest;
pub use error::{Error, Result};
pub use image::{Freed, Image, Imported, Summary};
pub use limits::Limits;
pub use platform::Platform;
pub use pull::options::{Auth, Phase, Progress, PullPolicy, RegistryOptions};
pub use reference::Reference;
pub use store::ImageStore;
