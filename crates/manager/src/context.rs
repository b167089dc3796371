//! What every handler and loop of a running manager shares.

use std::sync::Arc;

use cluster_daemon::{Background, chain};
use cluster_identity::{ChannelOptions, TlsClient, TlsIdentity};
use cluster_model::{Command, NodeId, Reply};
use cluster_mutants::{Mutant, is};
use cluster_wire::{Code, Failure};
use rand::Rng as _;
use tonic::transport::Channel;

use crate::clock::ClusterClock;
use crate::dispatch::Dispatch;
use crate::raft::{ProposeError, RaftNode, View};

/// Cheap to clone.
#[derive(Clone)]
pub struct Context {
    pub node_id: NodeId,
    pub raft: RaftNode,
    pub clock: ClusterClock,
    pub identity: TlsIdentity,
    pub dispatch: Arc<Dispatch>,
    /// Where plans are made.
    pub background: Background,
}

impl Context {
    /// Proposes a command and waits until this manager has applied it.
    pub async fn propose(&self, command: Command) -> Result<(u64, Reply), Failure> {
        let applied = self.raft.propose(command).await.map_err(failure_of)?;
        Ok((applied.index, applied.reply))
    }

    /// A view that includes every write acknowledged before the call, unless a stale one will do.
    pub async fn read(&self, stale: bool) -> Result<View, Failure> {
        if stale || is(Mutant::StaleRead) {
            return Ok(self.raft.view());
        }
        self.raft.read_index().await.map_err(|error| Failure::new(Code::NoLeader, chain(&error)))
    }

    /// A connection to another manager, made when first used.
    pub fn manager_channel(&self, address: &str) -> Result<Channel, Failure> {
        let client = TlsClient::manager(&self.identity);
        cluster_identity::connect_lazy(address, &client, &ChannelOptions::default())
            .map_err(|error| Failure::new(Code::Internal, chain(&error)))
    }
}

/// A random id.
pub fn mint() -> u64 {
    rand::rng().random()
}

fn failure_of(error: ProposeError) -> Failure {
    let code = match error {
        ProposeError::Refused(refusal) => return refusal.into(),
        ProposeError::Unknown { .. } => Code::UnknownOutcome,
        ProposeError::NotCommitted { .. } => Code::NoLeader,
        ProposeError::NotUnderstood { .. } => Code::NotUnderstood,
        ProposeError::TooLarge { .. } => Code::TooLarge,
        ProposeError::Encode(_) => Code::Internal,
    };
    Failure::new(code, chain(&error))
}
