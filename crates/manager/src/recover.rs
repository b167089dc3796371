//! `cluster-manager recover`: a new beginning after most managers were lost for good.
//!
//! *Flow:* `source` reads what there is, from a survivor's folder or a snapshot; `report` says what
//! will be kept, lost and dropped; with --yes `folder` founds a manager with a new id whose group is
//! itself alone. At its first start that manager writes one entry (`Command::Recover`) which names
//! it as the only manager, and then serves.
//!
//! *Why old managers cannot disturb:* the new manager has an id and a certificate of its own, so what
//! is meant for the old one is refused; its terms and log indexes begin far above any that were
//! used, so workers refuse assignments of a group of old managers, and old managers that ask (they
//! do, `managers::standing`) are told that they are out and end.
//!
//! *On failure:* nothing of the old folder is changed before everything new is durable; the swap is
//! finished by the next `recover` or start. What was there stays beside, renamed.

mod folder;
mod report;
mod source;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use cluster_daemon::DataDirLock;
use cluster_model::{Command, Refusal};

use crate::cli::Recover;
use crate::context::Context;
use crate::raft::{Leadership, ProposeError};

pub use folder::{finish_swap, pending};

/// How long the new group of one may take to lead.
const LEAD_WITHIN: std::time::Duration = std::time::Duration::from_secs(20);

/// Runs the command; what it says goes to `say`.
pub fn run(cli: &Recover, say: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
    let dir = &cli.data_dir;
    if cli.from_data && !dir.is_dir() {
        bail!("{} (--data-dir) does not exist: there is nothing to recover from", dir.display());
    }
    let lock = DataDirLock::acquire(dir).with_context(|| {
        format!("cannot use {} (--data-dir); stop its manager first", dir.display())
    })?;
    if finish_swap(dir)? {
        say(&format!(
            "A recovery of {} that was interrupted is finished now. Start its manager as usual.",
            dir.display()
        ));
        return Ok(());
    }
    let source = match &cli.from_snapshot {
        Some(file) => source::from_snapshot(cli, file)?,
        None => source::from_data(cli)?,
    };
    say(&report::before(cli, &source));
    if !cli.yes {
        bail!("nothing was changed; add --yes to do it");
    }
    folder::found(dir, &source)?;
    finish_swap(dir)?;
    drop(lock);
    say(&report::after(cli, &source));
    Ok(())
}

/// At the first start after a recovery: once this manager leads its group of one, it becomes the
/// only manager in the state. Safe to repeat.
pub async fn complete(
    context: &Context,
    data_dir: &Path,
    recovery: folder::Pending,
) -> anyhow::Result<()> {
    let mut leadership = context.raft.leadership();
    let leads = |known: &Leadership| known.this_node_leads_and_caught_up;
    let leading = leadership.wait_for(leads);
    let waited = tokio::select! {
        waited = tokio::time::timeout(LEAD_WITHIN, leading) => waited.map(|_| ()),
        reason = context.raft.failed() => bail!("{reason}"),
    };
    waited.context("the recovered manager does not lead its group of one")?;
    let command = Command::Recover {
        version: recovery.version,
        id: context.node_id,
        manager: recovery.manager.clone(),
    };
    match context.raft.propose(command).await {
        Ok(applied) => {
            tracing::warn!(index = applied.index, "recovered: this is the only manager now")
        }
        // The crash came after the entry.
        Err(ProposeError::Refused(Refusal::VersionMoved { .. })) => {}
        Err(error) => return Err(error).context("cannot write the first entry after the recovery"),
    }
    let path = folder::pending_path(data_dir);
    std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
}

/// Where log and snapshots are.
fn raft_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("raft")
}
