//! How far a task came, kept beside its container, so that a restarted worker neither runs an
//! attempt twice nor tells its end differently. Blocking.
//!
//! Written without a sync: what a power cut takes away, the runtime knows from the boot id.

use std::path::Path;

use cluster_model::StatusReport;
use serde::{Deserialize, Serialize};

use crate::durable;

const FILE: &str = "record.json";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// A container was made for it.
    pub created: bool,
    /// Once it was up: whether its probes let connections come. None before, and without probes.
    #[serde(default)]
    pub ready: Option<bool>,
    /// Why it is being ended here, whatever the managers want.
    #[serde(default)]
    pub doom: Option<String>,
    /// It is being ended because no manager hears this node, which is no failure of the task.
    #[serde(default)]
    pub cut_off: bool,
    /// How it ended, once that was settled.
    pub ended: Option<StatusReport>,
}

impl Record {
    /// A damaged or missing record says nothing.
    pub fn load(dir: &Path) -> Self {
        match durable::read(&dir.join(FILE)) {
            Ok(Some(bytes)) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(dir = %dir.display(), %error, "a task's record is damaged");
                Self::default()
            }),
            Ok(None) => Self::default(),
            Err(error) => {
                tracing::warn!(dir = %dir.display(), %error, "a task's record cannot be read");
                Self::default()
            }
        }
    }

    pub fn store(&self, dir: &Path) -> Result<(), durable::Error> {
        std::fs::create_dir_all(dir).map_err(durable::at("creating", dir))?;
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        durable::replace_unsynced(&dir.join(FILE), &bytes)
    }
}
