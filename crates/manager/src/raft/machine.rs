//! The replicated state as openraft drives it: applies committed commands to `cluster_model`,
//! publishes a view after every batch, builds and installs snapshots.
//!
//! The state is in memory; the log and the snapshots make it durable. A view is a clone that
//! shares everything with the state, so publishing costs next to nothing and readers never wait
//! for a writer.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cluster_daemon::Background;
use cluster_model::{Command, State};
use futures::{Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use tokio::sync::watch;

use super::codec::{self, CodecError};
use super::error::StorageError;
use super::recent::Recent;
use super::snapshot::{SnapshotFile, SnapshotStore};
use super::types::{LogId, Proposal, Response, Snapshot, SnapshotMeta, StoredMembership, Types};

/// Entries after which a view is published even if more follow at once.
const PUBLISH_EVERY: usize = 512;

/// A consistent state and the log position it stands at.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The state; cloning it again is cheap.
    pub state: State,
    /// Index of the last applied entry.
    pub applied_index: u64,
    /// Term of that entry.
    pub term: u64,
}

/// What the machine tells the rest of the manager.
#[derive(Clone)]
pub(crate) struct Published {
    pub(crate) view: watch::Sender<View>,
    pub(crate) feed: watch::Sender<u64>,
    /// Bytes of commands applied since a snapshot was begun: what a restart would have to repeat.
    pub(crate) unsaved: watch::Sender<u64>,
    /// Why applying had to stop.
    pub(crate) failure: watch::Sender<Option<String>>,
    /// What became of the last commands.
    pub(crate) recent: Arc<Recent>,
}

impl Published {
    pub(crate) fn new() -> Self {
        Self {
            view: watch::Sender::new(View::default()),
            feed: watch::Sender::new(0),
            unsaved: watch::Sender::new(0),
            failure: watch::Sender::new(None),
            recent: Arc::default(),
        }
    }
}

pub(crate) struct Machine {
    state: State,
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshots: SnapshotStore,
    published: Published,
    /// The newest set of commands that is understood.
    commands: u8,
    /// Where snapshots are written.
    background: Background,
}

impl Machine {
    /// Starts from the snapshot that counts, if there is one.
    pub(crate) fn open(
        snapshots: SnapshotStore,
        published: Published,
        commands: u8,
        background: Background,
    ) -> Result<Self, StorageError> {
        let mut machine = Self {
            state: State::default(),
            applied: None,
            membership: StoredMembership::default(),
            snapshots,
            published,
            commands,
            background,
        };
        if let Some((_, file)) = machine.snapshots.current() {
            let (meta, state) = machine.snapshots.read(&file)?;
            machine.replace(&meta, state);
        }
        Ok(machine)
    }

    fn replace(&mut self, meta: &SnapshotMeta, state: State) {
        self.state = state;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.published.recent.jump(self.applied.map_or(0, |id| id.index));
        self.publish();
    }

    fn publish(&self) {
        let Some(applied) = self.applied else { return };
        self.published.view.send_replace(View {
            state: self.state.clone(),
            applied_index: applied.index,
            term: applied.leader_id.term,
        });
        self.published.feed.send_replace(applied.index);
    }

    fn apply_command(&mut self, index: u64, proposal: &Proposal) -> Result<Response, StorageError> {
        let command = self.decode(index, proposal)?;
        // An invariant that breaks inside apply must stop this manager, not poison it.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            cluster_model::apply(&mut self.state, index, &command)
        }));
        match outcome {
            Ok(outcome) => {
                let response = Response(Some(outcome.reply));
                self.published.recent.add(index, &proposal.0, &response);
                Ok(response)
            }
            Err(_) => Err(StorageError::Stopped {
                reason: format!("applying the command at log index {index} panicked"),
            }),
        }
    }

    /// To skip a command that this program does not know would make another state than the others
    /// have.
    fn decode(&self, index: u64, proposal: &Proposal) -> Result<Command, StorageError> {
        codec::decode_command(&proposal.0, self.commands).map_err(|source| match source {
            CodecError::Newer(found) if found > self.commands => {
                StorageError::NewerCommand { index, found, known: self.commands }
            }
            source => StorageError::Payload { what: "the command", index, source },
        })
    }

    fn stop(&self, error: StorageError) -> io::Error {
        let reason = error.chain();
        tracing::error!(error = %reason, "cannot apply the log; this manager stops");
        self.published.failure.send_replace(Some(reason));
        error.into()
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        // Answers go out after the view that shows their effect.
        let mut answers: Vec<(ApplyResponder<Types>, Response)> = Vec::new();
        let mut unpublished = 0;
        let mut bytes = 0;
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let id = entry.log_id;
            let response = match &entry.payload {
                EntryPayload::Blank => Response(None),
                EntryPayload::Normal(proposal) => {
                    bytes += proposal.0.len() as u64;
                    self.apply_command(id.index, proposal).map_err(|error| self.stop(error))?
                }
                EntryPayload::Membership(members) => {
                    self.membership = StoredMembership::new(Some(id), members.clone());
                    Response(None)
                }
            };
            self.applied = Some(id);
            if let Some(responder) = responder {
                answers.push((responder, response));
            }
            unpublished += 1;
            if unpublished >= PUBLISH_EVERY {
                self.publish();
                answers.drain(..).for_each(|(responder, response)| responder.send(response));
                unpublished = 0;
            }
        }
        self.published.unsaved.send_modify(|unsaved| *unsaved += bytes);
        self.publish();
        answers.into_iter().for_each(|(responder, response)| responder.send(response));
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        self.published.unsaved.send_replace(0);
        Builder {
            state: self.state.clone(),
            meta: SnapshotMeta {
                last_log_id: self.applied,
                last_membership: self.membership.clone(),
            },
            snapshots: self.snapshots.clone(),
            background: self.background.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotFile,
    ) -> Result<(), io::Error> {
        let (store, covers) = (self.snapshots.clone(), meta.clone());
        let read = cluster_daemon::blocking(move || {
            let (_, state) = store.read(&snapshot)?;
            store.adopt(&covers, snapshot)?;
            Ok(state)
        });
        let state = read.await.map_err(io::Error::other)?.map_err(|error| self.stop(error))?;
        self.replace(meta, state);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let Some((meta, snapshot)) = self.snapshots.current() else { return Ok(None) };
        // It is asked for to be sent, and other managers have other keys.
        let snapshot = self.snapshots.plain(snapshot)?;
        Ok(Some(Snapshot { meta, snapshot }))
    }
}

/// Writes one state as a snapshot, beside the machine that goes on.
pub(crate) struct Builder {
    state: State,
    meta: SnapshotMeta,
    snapshots: SnapshotStore,
    background: Background,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let (state, meta, store) = (self.state.clone(), self.meta.clone(), self.snapshots.clone());
        let write = self.background.run(move || {
            let snapshot = store.write(&meta, &state)?;
            tracing::info!(
                index = meta.last_log_id.map(|id| id.index),
                bytes = snapshot.len,
                "wrote a snapshot"
            );
            Ok::<_, StorageError>(Snapshot { meta, snapshot })
        });
        Ok(write.await.map_err(io::Error::other)??)
    }
}
