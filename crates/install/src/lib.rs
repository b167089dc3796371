//! Making this machine a member: the file with the unit's settings, systemd, and the way from one to
//! the other and back.
//!
//! *Flow.* `init` and `join` of both daemons build a [`Plan`] and give it to [`enlist`]: settings are
//! written in one step, the unit is enabled and started, and waited for; what is needed once (the
//! token above all) is then taken out of the file again.
//! *Guarantees.* When it fails before this machine has an identity, nothing stays: no file, no
//! enabled unit. When it fails later, the unit stays and goes on by itself. Either way the same command
//! may be given again. Run again after success it changes nothing.
//!
//! What never lives here: clusters, certificates, checks of the machine. systemd is reached through
//! its programs, so that tests can stand in for it.

pub mod address;
mod enlist;
pub mod env_file;
mod folder;
mod systemd;
mod token;

pub use enlist::{Error, Outcome, Plan, Standing, enlist};
pub use folder::user_of;
pub use systemd::{Error as SystemdError, Systemd, UnitState};
pub use token::{Error as TokenError, Source as TokenSource};
