//! The managers' own group: its upkeep, and its new beginning after a recovery.

use super::Step;
use crate::cluster::{Manager, Upkeep};
use crate::command::{Refusal, Reply};
use crate::id::NodeId;

impl Step<'_> {
    /// Refuses unless the cluster object is the one that was read.
    pub(super) fn same_cluster(&self, version: u64) -> Result<(), Refusal> {
        let current = self.state.cluster().ok_or(Refusal::NotBootstrapped)?.version;
        if current == version {
            return Ok(());
        }
        Err(Refusal::VersionMoved { kind: "cluster".into(), read: version, current })
    }

    pub(super) fn update_upkeep(&mut self, version: u64, upkeep: Upkeep) -> Result<Reply, Refusal> {
        self.same_cluster(version)?;
        upkeep.check().map_err(Refusal::Invalid)?;
        self.edit_cluster(|cluster| cluster.upkeep = upkeep)
    }

    /// Workers may follow endpoints that are newer than the state that was taken over; with the
    /// index of this entry, which is beyond all they saw, the present ones are news to them.
    pub(super) fn recover(
        &mut self,
        version: u64,
        id: NodeId,
        manager: &Manager,
    ) -> Result<Reply, Refusal> {
        self.same_cluster(version)?;
        self.state.tables.endpoints_version = self.index;
        let managers = self.state.cluster().into_iter().flat_map(|cluster| cluster.managers.keys());
        let dropped: Vec<NodeId> = managers.copied().filter(|other| *other != id).collect();
        for other in dropped {
            self.revoke(other);
        }
        self.edit_cluster(|cluster| cluster.managers = [(id, manager.clone())].into())
    }
}
