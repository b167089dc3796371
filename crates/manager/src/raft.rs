//! Consensus of the managers: the replicated log, its storage, its transport, and `RaftNode`, the
//! handle through which the rest of the manager proposes commands and reads the state.
//!
//! Reading order: `node` (the handle), `propose`, `read`, `members` and `seats` (what it does),
//! `recent` (what became of a command), `understood` (which commands all managers know),
//! `leadership` (who leads), `machine` (apply and views),
//! `network` and `service` (client and server of the protocol), `storage` and `log` (durability),
//! `snapshot`, `offline` (folders of managers that do not run), `disk` (files), `types` (openraft's
//! generics; nothing outside this folder names them).
//!
//! Never here: what commands mean, TLS, authorization, gRPC servers. Channels to peers come from an
//! injected `Connector`; the role of a caller is checked by middleware before `RaftService` sees
//! the call.

pub(crate) mod cipher;
pub(crate) mod codec;
mod config;
pub mod disk;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
#[cfg(test)]
mod golden;
mod leadership;
pub(crate) mod log;
mod machine;
mod members;
mod network;
mod node;
pub mod offline;
mod peers;
mod propose;
mod read;
mod recent;
mod seats;
mod service;
mod snapshot;
mod storage;
#[cfg(test)]
pub(crate) mod tests;
mod types;
mod understood;

pub use cipher::{DataKey, KEY, Keyring};
pub use codec::CodecError;
pub use config::{RaftConfig, Threads, Timing};
pub use error::StorageError;
pub use leadership::Leadership;
pub use log::LogSettings;
pub use machine::View;
pub use members::{Member, MembersError};
pub use node::{BootstrapError, RaftNode, StartError, Status};
pub use peers::{Connector, ConnectorError};
pub use propose::{Applied, COMMAND_LIMIT, ProposeError};
pub use read::ReadError;
pub use seats::Seat;
pub use service::RaftService;
