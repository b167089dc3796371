//! How far a task came, kept beside its container, so that a restarted worker neither runs an
//! attempt twice nor tells its end differently. Blocking.
//!
//! Written without a sync: what a power cut takes away, the runtime knows from the boot id.

use std::path::Path;

use cluster_model::StatusReport;
use serde::{Deserialize, Serialize};

use crate::durable;

const FILE: &str = "record.json";
const VERSION: u32 = 1;

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

/// As it is in the file.
#[derive(Serialize, Deserialize)]
struct Stored<R> {
    /// Absent in records that were written before it was.
    #[serde(default = "first")]
    version: u32,
    #[serde(flatten)]
    record: R,
}

fn first() -> u32 {
    1
}

impl Record {
    /// A damaged or missing record says nothing; nor does one of a newer version, which comes only
    /// with a task's folder that was copied here, since an older worker refuses the folder of a
    /// newer one as a whole (`member`).
    pub fn load(dir: &Path) -> Self {
        let path = dir.join(FILE);
        match durable::read(&path) {
            Ok(Some(bytes)) => match serde_json::from_slice::<Stored<Self>>(&bytes) {
                Ok(stored) if stored.version <= VERSION => stored.record,
                Ok(Stored { version, .. }) => {
                    tracing::error!(path = %path.display(), version, known = VERSION,
                        "a task's record is of a newer version; start the newer cluster-worker");
                    Self::default()
                }
                Err(error) => {
                    tracing::warn!(dir = %dir.display(), %error, "a task's record is damaged");
                    Self::default()
                }
            },
            Ok(None) => Self::default(),
            Err(error) => {
                tracing::warn!(dir = %dir.display(), %error, "a task's record cannot be read");
                Self::default()
            }
        }
    }

    pub fn store(&self, dir: &Path) -> Result<(), durable::Error> {
        std::fs::create_dir_all(dir).map_err(durable::at("creating", dir))?;
        let stored = Stored { version: VERSION, record: self };
        let bytes = serde_json::to_vec(&stored).unwrap_or_default();
        durable::replace_unsynced(&dir.join(FILE), &bytes)
    }
}
