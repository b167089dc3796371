//! The table on disk: a checksum line, then JSON in which each spec stands once.
//!
//! Written before anybody acts on it and read at the next start, so that containers are looked
//! after before any manager can be reached. Blocking.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cluster_model::{Desired, ServiceId, TaskId, TaskSpec};
use serde::{Deserialize, Serialize};

use crate::assignments::{Assignment, Stamp, Table};
use crate::durable;

const VERSION: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    File(#[from] durable::Error),
    #[error("encoding the assignments")]
    Encode(#[source] serde_json::Error),
    #[error("the assignments file {} is damaged: {problem}", path.display())]
    Damaged { path: PathBuf, problem: String },
    #[error(
        "the assignments file {} has version {found}, and this program knows version {VERSION}: start \
         the newer cluster-worker that wrote it",
        path.display()
    )]
    UnknownVersion { path: PathBuf, found: u32 },
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    stamp: Stamp,
    specs: Vec<Arc<TaskSpec>>,
    tasks: Vec<StoredTask>,
}

#[derive(Serialize, Deserialize)]
struct StoredTask {
    task: TaskId,
    service: ServiceId,
    service_name: String,
    slot: u32,
    revision: u32,
    desired: Desired,
    withdrawn: u64,
    target_ports: Vec<u16>,
    #[serde(default)]
    generic: Vec<(String, Vec<String>)>,
    #[serde(default)]
    stop_after_ms: u64,
    /// Index into `specs`.
    spec: usize,
}

/// Writes the table down; durable when this returns.
pub fn save(path: &Path, table: &Table) -> Result<(), Error> {
    let mut specs: Vec<Arc<TaskSpec>> = Vec::new();
    let mut places: HashMap<*const TaskSpec, usize> = HashMap::new();
    let mut tasks = Vec::with_capacity(table.tasks.len());
    for assignment in table.tasks.values() {
        let spec = *places.entry(Arc::as_ptr(&assignment.spec)).or_insert_with(|| {
            specs.push(assignment.spec.clone());
            specs.len() - 1
        });
        tasks.push(StoredTask {
            task: assignment.task,
            service: assignment.service,
            service_name: assignment.service_name.clone(),
            slot: assignment.slot,
            revision: assignment.revision,
            desired: assignment.desired,
            withdrawn: assignment.withdrawn,
            target_ports: assignment.target_ports.clone(),
            generic: assignment.generic.clone(),
            stop_after_ms: assignment.stop_after_ms,
            spec,
        });
    }
    let stored = Stored { version: VERSION, stamp: table.stamp, specs, tasks };
    let body = serde_json::to_vec(&stored).map_err(Error::Encode)?;
    let mut bytes = format!("{:08x}\n", crc32fast::hash(&body)).into_bytes();
    bytes.extend_from_slice(&body);
    Ok(durable::replace(path, &bytes)?)
}

/// Reads what [`save`] wrote; an empty table if there is none.
pub fn load(path: &Path) -> Result<Table, Error> {
    let Some(bytes) = durable::read(path)? else { return Ok(Table::default()) };
    let damaged = |problem: &str| Error::Damaged { path: path.into(), problem: problem.into() };
    let (Some(checksum), Some(body)) = (bytes.get(..8), bytes.get(9..)) else {
        return Err(damaged("it is truncated"));
    };
    if format!("{:08x}", crc32fast::hash(body)).as_bytes() != checksum {
        return Err(damaged("its checksum does not fit"));
    }
    let found = durable::version(body).map_err(|error| damaged(&error.to_string()))?;
    if found != VERSION {
        return Err(Error::UnknownVersion { path: path.into(), found });
    }
    let stored: Stored =
        serde_json::from_slice(body).map_err(|error| damaged(&error.to_string()))?;
    let mut tasks = BTreeMap::new();
    for task in stored.tasks {
        let spec = stored.specs.get(task.spec).ok_or_else(|| damaged("a spec is missing"))?;
        let assignment = Assignment {
            task: task.task,
            service: task.service,
            service_name: task.service_name,
            slot: task.slot,
            revision: task.revision,
            desired: task.desired,
            withdrawn: task.withdrawn,
            target_ports: task.target_ports,
            generic: task.generic,
            stop_after_ms: task.stop_after_ms,
            spec: spec.clone(),
        };
        tasks.insert(task.task, Arc::new(assignment));
    }
    Ok(Table { stamp: stored.stamp, tasks })
}
