//! After a start: what runs, what ended meanwhile, what is nobody's.
//!
//! Never kills a container. What it does kill has no readable spec, so no caller can ever name it.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::embedded::control::encode;
use crate::embedded::entry::{Entry, Phase, Process, Status};
use crate::embedded::lock::lock_holder;
use crate::embedded::watch::{Verdict, judge};
use crate::embedded::{Inner, blocking, io_error, launch, watch};
use crate::error::Result;
use crate::observe::{Event, ExitSource, State};
use crate::process::ProcessId;
use crate::shim::files::{Folder, Record, read_json};
use crate::shim::protocol::{Reply, Request};
use crate::spec::{ContainerId, ContainerSpec};

/// A living shim answers within this, or it is stuck and gets replaced.
const SHIM_PATIENCE: Duration = Duration::from_secs(10);

/// Attempts to give a container a new shim before it is reported as an error.
const MAX_ADOPTIONS: u32 = 3;

/// Looks at every container folder, then sweeps what belongs to none.
pub async fn all(inner: &Arc<Inner>) -> Result<()> {
    let state_dir = inner.config.state_dir.clone();
    let names = blocking("recover", move || folder_names(&state_dir)).await?;
    for name in names {
        match ContainerId::new(name.as_str()) {
            Ok(id) => {
                if let Err(error) = one(inner, &id).await {
                    // One bad folder must not keep the others from being found.
                    tracing::error!(%id, %error, "cannot recover a container");
                }
            }
            Err(_) => {
                let path = inner.config.state_dir.join(&name);
                blocking("recover", move || {
                    tracing::info!(path = %path.display(), "removing what belongs to no container");
                    fs::remove_dir_all(&path).map_err(io_error("remove", &path))
                })
                .await?;
            }
        }
    }
    let sweeper = inner.clone();
    blocking("recover", move || sweep(&sweeper)).await
}

/// Finds out about one folder and enters it into the table; known ones are left alone.
pub async fn one(inner: &Arc<Inner>, id: &ContainerId) -> Result<()> {
    if inner.get(id).is_some() {
        return Ok(());
    }
    let folder = inner.folder(id);
    let (reader, read_id) = (inner.clone(), id.clone());
    let Some(spec) = blocking("recover", move || read_spec(&reader, &read_id)).await? else {
        return Ok(());
    };
    let mut attempts = 0;
    let status = loop {
        let (looker, look_id, look_folder) = (inner.clone(), id.clone(), folder.clone());
        match blocking("recover", move || look(&looker, &look_id, &look_folder)).await? {
            Found::Status(status) => break status,
            Found::Nothing => return Ok(()),
            Found::Orphan => {
                tracing::info!(%id, "adopting a container without a shim");
                attempts += 1;
                match launch::adopt(inner, id, &folder).await {
                    // It may just have ended; the next look tells.
                    Err(error) if attempts < MAX_ADOPTIONS => {
                        tracing::debug!(%id, %error, "adoption failed")
                    }
                    other => other?,
                }
            }
        }
    };
    let entry = Arc::new(Entry::new(spec, folder, inner.socket(id)));
    entry.set(status.clone());
    inner.table().insert(id.clone(), entry.clone());
    match status.phase {
        Phase::Known(State::Exited(exit)) => inner.tell(Event::Exited(id.clone(), exit)),
        _ => watch::spawn(inner, &entry),
    }
    tracing::info!(%id, phase = ?status.phase, "recovered a container");
    Ok(())
}

enum Found {
    Status(Status),
    Orphan,
    Nothing,
}

/// The spec; a folder without a readable one is removed with all that runs from it.
fn read_spec(inner: &Inner, id: &ContainerId) -> Result<Option<ContainerSpec>> {
    let folder = inner.folder(id);
    match read_json::<ContainerSpec>(&folder.spec()) {
        Ok(Some(spec)) if spec.id == *id => return Ok(Some(spec)),
        Ok(_) => tracing::warn!(%id, "removing a container folder without a spec"),
        Err(error) => {
            tracing::warn!(%id, %error, "removing a container folder with a damaged spec")
        }
    }
    discard(inner, id, &folder)?;
    Ok(None)
}

fn discard(inner: &Inner, id: &ContainerId, folder: &Folder) -> Result<()> {
    // Its processes first, so that a living shim sees them end and leaves.
    if let Some(pid) =
        lock_holder(folder).map_err(io_error("look at the lock of", folder.path()))?
    {
        launch::kill_shim(folder, pid).map_err(io_error("end the shim of", folder.path()))?;
    }
    launch::wipe_now(inner, id, folder)
}

fn look(inner: &Inner, id: &ContainerId, folder: &Folder) -> Result<Found> {
    let deadline = Instant::now() + SHIM_PATIENCE;
    loop {
        let record: Option<Record> = read_json(&folder.state()).unwrap_or(None);
        let process = record.as_ref().map(|record| Process::new(record.init.clone()));
        let shim = lock_holder(folder).map_err(io_error("look at the lock of", folder.path()))?;
        if shim.is_none() && !folder.state().exists() && !folder.exit().exists() {
            tracing::info!(%id, "removing a container whose creation never finished");
            launch::wipe_now(inner, id, folder)?;
            return Ok(Found::Nothing);
        }
        let status = |phase| Status {
            phase,
            process: process.clone(),
            created_unix_ms: record
                .as_ref()
                .map(|record| record.created_unix_ms)
                .unwrap_or_default(),
            started_unix_ms: record.as_ref().and_then(|record| record.started_unix_ms),
        };
        match judge(inner, id, folder, process.as_deref())? {
            Verdict::Ended(mut exit) => {
                if exit.source == ExitSource::Observed {
                    exit.source = ExitSource::Replayed;
                }
                return Ok(Found::Status(status(Phase::Known(State::Exited(exit)))));
            }
            Verdict::Orphaned => return Ok(Found::Orphan),
            Verdict::Kept => {}
        }
        // A shim has it. While it still creates, its answer comes after that.
        match ask_state(&inner.socket(id), deadline) {
            Ok(Reply::State { state, pid, created_unix_ms, started_unix_ms }) => {
                // A damaged record is no loss while its author lives: the process is its child.
                let process = match process.filter(|process| process.id.pid == pid) {
                    Some(process) => process,
                    None => match ProcessId::of(pid) {
                        Ok(id) => Process::new(id),
                        Err(_) => continue,
                    },
                };
                let phase = Phase::Known(state);
                return Ok(Found::Status(Status {
                    phase,
                    process: Some(process),
                    created_unix_ms,
                    started_unix_ms,
                }));
            }
            _ if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            _ => {
                if let Some(pid) = shim {
                    tracing::warn!(%id, pid, "a shim does not answer, replacing it");
                    launch::kill_shim(folder, pid)
                        .map_err(io_error("end the shim of", folder.path()))?;
                }
            }
        }
    }
}

fn ask_state(socket: &Path, deadline: Instant) -> io::Result<Reply> {
    use std::io::{BufRead, BufReader, Write};
    let mut stream = UnixStream::connect(socket)?;
    let patience = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(&encode(&Request::State)?)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    serde_json::from_str(&line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Cgroups below our parent and sockets in our run folder that no container has.
fn sweep(inner: &Inner) -> Result<()> {
    let known: Vec<ContainerId> = inner.table().keys().cloned().collect();
    for name in inner.hierarchies.at(&inner.config.cgroup_parent).children() {
        match ContainerId::new(name.as_str()) {
            Ok(id) if !known.contains(&id) && inner.get(&id).is_none() => {
                tracing::info!(%id, "removing a cgroup that no container has");
                launch::clear_cgroup(inner, &id)?;
            }
            _ => {}
        }
    }
    let sockets: Vec<_> = known.iter().map(|id| inner.socket(id)).collect();
    let run_dir = &inner.config.run_dir;
    for file in fs::read_dir(run_dir).map_err(io_error("read", run_dir))?.flatten() {
        let path = file.path();
        // A container created meanwhile has its socket answered.
        if path.extension().is_some_and(|end| end == "s")
            && !sockets.contains(&path)
            && UnixStream::connect(&path).is_err()
        {
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}

fn folder_names(state_dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(state_dir).map_err(io_error("read", state_dir))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}
