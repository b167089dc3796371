//! Snapshots on a schedule: every manager writes its own, beside its data or where it is told to, and
//! keeps the last few. So they survive the loss of any other machine.
//!
//! *Guarantees:* a file appears under its name only when it is whole and durable; older ones go only
//! after that. *On failure* the reason is logged, shown by `manager ls`, and the next attempt comes
//! a minute later at the latest.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use cluster_archive::Header;
use cluster_daemon::{chain, fsx};

use crate::clock::wall_ms;
use crate::context::Context;
use crate::raft::View;

/// Folder in the data folder, unless another is given.
pub const FOLDER: &str = "snapshots-scheduled";
const SUFFIX: &str = ".snapshot";
const LOOK_PERIOD: Duration = Duration::from_millis(500);
/// Why none is written beside locked data.
const LOCKED: &str = "autolock is on, and a snapshot beside the data would give the unlock key away: \
                      start the managers with --snapshot-dir on another disk";
/// After a failure.
const RETRY_MAX_MS: u64 = 60_000;

/// Writes on schedule for as long as the manager runs. The files hold everything, the unlock key
/// included, in the clear: with autolock on none is written `beside` the locked data.
pub async fn run(context: Context, dir: PathBuf, beside: bool) -> anyhow::Result<()> {
    let (looked, folder) = (wall_ms(), dir.clone());
    let looking = move || {
        remove_unfinished(&folder);
        newest_ms(&folder, looked)
    };
    let mut last_ms = cluster_daemon::blocking(looking).await?;
    if last_ms > 0 {
        context.dispatch.wellbeing.snapshot_written(last_ms);
    }
    loop {
        tokio::time::sleep(LOOK_PERIOD).await;
        let view = context.raft.view();
        let Some(upkeep) = view.state.cluster().map(|cluster| cluster.upkeep) else { continue };
        let now_ms = wall_ms();
        // A clock that was set back must not stop the schedule.
        last_ms = last_ms.min(now_ms);
        if upkeep.snapshot_every_ms == 0
            || now_ms < last_ms.saturating_add(upkeep.snapshot_every_ms)
        {
            continue;
        }
        let (folder, keep) = (dir.clone(), upkeep.snapshot_keep as usize);
        let locked = view.state.security().is_some_and(|security| security.unlock_key.is_some());
        let written = cluster_daemon::blocking(move || {
            if locked && beside {
                anyhow::bail!("{LOCKED}");
            }
            write(&folder, &view, now_ms, keep)
        });
        let written = written.await?;
        match written {
            Ok(path) => {
                tracing::info!(path = %path.display(), "wrote a scheduled snapshot");
                context.dispatch.wellbeing.snapshot_written(now_ms);
                last_ms = now_ms;
            }
            Err(error) => {
                let why = chain(error.as_ref());
                tracing::error!(reason = why, "a scheduled snapshot could not be written");
                context.dispatch.wellbeing.snapshot_failed(why);
                let wait_ms = upkeep.snapshot_every_ms.min(RETRY_MAX_MS);
                last_ms = now_ms.saturating_sub(upkeep.snapshot_every_ms).saturating_add(wait_ms);
            }
        }
    }
}

fn name(at_ms: u64, index: u64) -> String {
    format!("{at_ms:015}-{index}{SUFFIX}")
}

/// The moment in a file's name.
fn moment(name: &str) -> Option<u64> {
    name.strip_suffix(SUFFIX)?.split('-').next()?.parse().ok()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| moment(name).is_some());
    names.sort();
    names
}

/// What a crash left: a whole state in the clear that no schedule would remove.
fn remove_unfinished(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let finished = entry.path().with_extension(SUFFIX.trim_start_matches('.'));
        let name = finished.file_name().and_then(|name| name.to_str()).and_then(moment);
        let is_ours = entry.path().extension().is_some_and(|end| end == "tmp") && name.is_some();
        if is_ours && let Err(error) = fs::remove_file(entry.path()) {
            tracing::warn!(path = %entry.path().display(), %error, "cannot remove an unfinished snapshot");
        }
    }
}

/// When the newest was written; 0: there is none.
fn newest_ms(dir: &Path, now_ms: u64) -> u64 {
    names(dir).iter().filter_map(|name| moment(name)).filter(|at| *at <= now_ms).max().unwrap_or(0)
}

/// Which of the sorted names go when so many are kept.
fn superfluous(names: &[String], keep: usize) -> &[String] {
    &names[..names.len().saturating_sub(keep.max(1))]
}

fn write(dir: &Path, view: &View, now_ms: u64, keep: usize) -> anyhow::Result<PathBuf> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("cannot make {}", dir.display()))?;
    let path = dir.join(name(now_ms, view.applied_index));
    let unfinished = path.with_extension("tmp");
    let written = write_file(&unfinished, view, now_ms).and_then(|()| {
        fs::rename(&unfinished, &path).with_context(|| format!("cannot name {}", path.display()))
    });
    if let Err(error) = written {
        // The failure to report is the first one.
        let _ = fs::remove_file(&unfinished);
        return Err(error);
    }
    fsx::sync_dir(dir)?;
    for old in superfluous(&names(dir), keep) {
        let old = dir.join(old);
        fs::remove_file(&old).with_context(|| format!("cannot remove {}", old.display()))?;
    }
    Ok(path)
}

fn write_file(path: &Path, view: &View, now_ms: u64) -> anyhow::Result<()> {
    let making = || format!("cannot write {}", path.display());
    let file: File = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(making)?;
    let at = (view.term, view.applied_index);
    let header = Header::of(&view.state, at, now_ms, env!("CARGO_PKG_VERSION"))?;
    let mut out = BufWriter::new(file);
    cluster_archive::write(&header, &view.state, &mut out).with_context(making)?;
    out.flush().with_context(making)?;
    out.get_ref().sync_all().with_context(making)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::View;

    fn view() -> View {
        let mut state = cluster_model::State::default();
        cluster_model::apply(&mut state, 1, &crate::raft::tests::fixture::bootstrap());
        View { state, applied_index: 5, term: 1 }
    }

    #[test]
    fn the_newest_are_kept_and_what_is_not_ours_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("deep/er");
        for at in 1..=5 {
            write(&dir, &view(), at * 1000, 3).unwrap();
            fs::write(dir.join("notes.txt"), "mine").unwrap();
        }
        let left = names(&dir);
        assert_eq!(
            left.iter().filter_map(|name| moment(name)).collect::<Vec<_>>(),
            [3000, 4000, 5000]
        );
        assert!(dir.join("notes.txt").exists());
        assert_eq!(newest_ms(&dir, 10_000), 5000);
        assert_eq!(newest_ms(&dir, 4500), 4000, "one from the future does not count");
        let (header, state) =
            cluster_archive::read(File::open(dir.join(&left[2])).unwrap()).unwrap();
        assert_eq!((header.index, state), (5, view().state));
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(dir.join(&left[2])).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_failure_names_the_file_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("taken"), "").unwrap();
        let error = write(&dir.path().join("taken/dir"), &view(), 1, 1).unwrap_err();
        assert!(format!("{error:#}").contains("taken/dir"), "{error:#}");
    }
}
