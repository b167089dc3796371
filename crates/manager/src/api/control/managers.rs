//! Settings of the cluster, and what managers answer of themselves.

use cluster_daemon::chain;
use cluster_model::{Command, Upkeep};
use cluster_pb::control::v1 as pb;
use cluster_wire::{Code, Failure, spec};

use super::{ControlService, cluster_of};
use crate::dispatch::table::lock;
use crate::raft::View;

/// Kept when only the period was said.
const KEEP_DEFAULT: u32 = 10;

impl ControlService {
    /// Marks the manager that answers.
    pub(super) fn answering(&self, mut managers: Vec<pb::ManagerStatus>) -> Vec<pb::ManagerStatus> {
        let own = self.context.node_id.to_string();
        for manager in &mut managers {
            manager.answering = manager.id == own;
        }
        managers
    }

    pub(super) async fn change_cluster(
        &self,
        request: pb::UpdateClusterRequest,
    ) -> Result<pb::UpdateClusterResponse, Failure> {
        let strategy = match request.strategy.as_str() {
            "" => None,
            text => Some(spec::strategy_from_str(text).map_err(Failure::from)?),
        };
        let view = self.context.read(false).await?;
        let present = cluster_of(&view.state)?.upkeep;
        let every_ms = request.snapshot_every_ms.unwrap_or(present.snapshot_every_ms);
        let keep = match request.snapshot_keep {
            Some(keep) => keep,
            None if present.snapshot_keep == 0 && every_ms > 0 => KEEP_DEFAULT,
            None => present.snapshot_keep,
        };
        let upkeep = Upkeep {
            replace_dead_after_ms: request
                .replace_dead_managers_after_ms
                .unwrap_or(present.replace_dead_after_ms),
            snapshot_every_ms: every_ms,
            snapshot_keep: keep,
        };
        // Before anything is changed: one wrong setting changes none.
        upkeep.check().map_err(Failure::from)?;
        let mut version = request.version;
        if let Some(strategy) = strategy {
            (version, _) =
                self.context.propose(Command::UpdateCluster { version, strategy }).await?;
            tracing::info!(strategy = request.strategy, "cluster updated");
        }
        if upkeep != present {
            self.context.propose(Command::UpdateUpkeep { version, upkeep }).await?;
            tracing::info!(?upkeep, "cluster updated");
        }
        Ok(pb::UpdateClusterResponse {})
    }

    /// The state's hash, computed once for each index and one at a time.
    pub(super) async fn state_hash(&self, view: &View) -> Result<String, Failure> {
        let known = || {
            let hashed = lock(&self.hashed);
            hashed
                .as_ref()
                .filter(|(at, _)| *at == view.applied_index)
                .map(|(_, hash)| hash.clone())
        };
        if let Some(hash) = known() {
            return Ok(hash);
        }
        let internal = |text: String| Failure::new(Code::Internal, text);
        let permit = self.saves.clone().acquire_owned().await;
        let _permit = permit.map_err(|error| internal(error.to_string()))?;
        let state = view.state.clone();
        let hashing = cluster_daemon::blocking(move || cluster_archive::state_hash(&state));
        let hash = hashing
            .await
            .map_err(|error| internal(error.to_string()))?
            .map_err(|error| internal(chain(&error)))?;
        *lock(&self.hashed) = Some((view.applied_index, hash.clone()));
        Ok(hash)
    }
}
