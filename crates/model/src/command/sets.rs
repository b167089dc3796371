//! Which set of commands each command belongs to.
//!
//! A release that adds a command, a step of a plan, or a field to what a command carries, opens a
//! new set. An encoded command says its set in its first byte. Managers tell the leader the newest
//! set that they understand, and the leader takes a command into the log only when all of them
//! understand it; a manager that meets a newer one in its log stops rather than guess.

use super::{Change, Command};

/// The oldest set: what every manager understands.
pub const OLDEST_COMMANDS: u8 = 1;

/// The newest set that this program understands.
pub const COMMANDS: u8 = 1;

impl Command {
    /// The first set that has this command with all that it carries.
    pub fn set(&self) -> u8 {
        match self {
            Command::Bootstrap(_)
            | Command::CreateService { .. }
            | Command::UpdateService { .. }
            | Command::RemoveService { .. }
            | Command::RollBackService { .. }
            | Command::SteerRollout { .. }
            | Command::UpdateCluster { .. }
            | Command::RegisterNode { .. }
            | Command::NodeReady { .. }
            | Command::UpdateNode { .. }
            | Command::RemoveNode { .. }
            | Command::PutManager { .. }
            | Command::RemoveManager { .. }
            | Command::SetWorkerToken(_)
            | Command::SetManagerToken(_)
            | Command::RecordStatus { .. }
            | Command::UpdateUpkeep { .. }
            | Command::Recover { .. }
            | Command::Secure(_) => 1,
            Command::Plan { changes, .. } => {
                changes.iter().map(Change::set).max().unwrap_or(OLDEST_COMMANDS)
            }
        }
    }
}

impl Change {
    /// As [`Command::set`].
    fn set(&self) -> u8 {
        match self {
            Change::CreateTasks { .. }
            | Change::Assign { .. }
            | Change::SetDesired { .. }
            | Change::Explain { .. }
            | Change::Delete { .. }
            | Change::NodeDown { .. }
            | Change::Lose { .. }
            | Change::SetRollout { .. }
            | Change::RollBack { .. }
            | Change::FinishJob { .. }
            | Change::Launch { .. }
            | Change::SkipLaunch { .. }
            | Change::RemoveJob { .. } => 1,
        }
    }
}
