//! A running worker: from an identity and the machine's parts to a session that never ends.
//!
//! *Flow*: what was written down is loaded and supervised first, then a manager is looked for.
//! Dropping the scope ends everything here and leaves containers alone.

use std::path::PathBuf;
use std::sync::Arc;

use cluster_daemon::{OnError, Scope};
use cluster_identity::TlsIdentity;
use cluster_model::NodeDescription;
use cluster_wire::object::description_to_pb;

use crate::assignments::{Table, store};
use crate::data_dir::DataDir;
use crate::endpoints::Following;
use crate::member::Member;
use crate::node::{Node, Parts};
use crate::renewal;
use crate::session::{Agent, Managers};
use crate::task::{self, Tasks};
use crate::trust::Trust;

/// The task that fails with [`crate::session::Removed`], and with nothing else.
pub const SESSION: &str = "session";

/// Who runs where.
pub struct Setup {
    pub data: DataDir,
    pub tls: TlsIdentity,
    pub member: Member,
    /// Managers from the command line.
    pub join: Vec<String>,
    pub description: NodeDescription,
    pub allowed_binds: Vec<PathBuf>,
    pub parts: Parts,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("taking over this node's containers")]
    Adopt(#[from] task::Error),
    #[error("loading the assignments was interrupted")]
    Interrupted,
}

/// Starts the worker's tasks in `scope`; a failure that ends the worker fires [`Scope::failed`].
pub async fn start(setup: Setup, scope: &Scope) -> Result<Arc<Node>, Error> {
    let Setup { data, tls, member, join, description, allowed_binds, parts } = setup;
    let node_id = tls.identity().node_id.clone();
    let node =
        Node::new(node_id, member.name.clone(), member.boot, data.clone(), allowed_binds, parts);
    let node = Arc::new(node);

    let path = data.assignments();
    let table = cluster_daemon::blocking(move || load(&path));
    let table = table.await.map_err(|_| Error::Interrupted)?;
    let following = Arc::new(Following::default());
    scope.spawn("balancers", OnError::Shutdown, {
        let (following, balancers) = (following.clone(), node.parts.balancers.clone());
        let path = data.endpoints();
        async move { following.run(balancers, path).await }
    });
    let tasks = Tasks::adopt(node.clone(), scope.child("tasks"), &table).await?;

    let trust = Trust::new(tls.clone(), node.parts.balancers.clone());
    let managers = Arc::new(Managers::new(data.clone(), member, join));
    scope.spawn(
        "renewal",
        OnError::Shutdown,
        renewal::run(tls.clone(), data.root().to_owned(), managers.clone(), trust.wanted()),
    );
    let agent = Agent {
        last_word: tokio::time::Instant::now(),
        node: node.clone(),
        tls,
        trust,
        managers,
        description: description_to_pb(&description),
        table,
        tasks,
        following,
        scope: scope.child("sessions"),
    };
    scope.spawn(SESSION, OnError::Shutdown, async move {
        match agent.run().await {
            Ok(never) => match never {},
            Err(removed) => Err(removed),
        }
    });
    Ok(node)
}

/// What cannot be read is set aside: the managers send it again, and until they do no container is
/// touched.
fn load(path: &std::path::Path) -> Table {
    match store::load(path) {
        Ok(table) => table,
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the kept assignments are not usable; waiting for the managers to send them again"
            );
            let aside = path.with_extension("damaged");
            if let Err(error) = std::fs::rename(path, &aside) {
                tracing::warn!(%error, "the damaged file could not be set aside");
            }
            Table::default()
        }
    }
}
