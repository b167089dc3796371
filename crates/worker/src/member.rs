//! What a member remembers from one start to the next: its name, how often it was started, and
//! where managers were last seen.
//!
//! It is read before anything else of the folder and written at every start, so its version is that
//! of the folder: a release that writes any file of it in a way that older ones misread raises the
//! version here, and older programs refuse the folder before they touch it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::data_dir::DataDir;
use crate::durable;

const VERSION: u32 = 1;
/// Managers worth remembering.
const MANAGERS_MAX: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    File(#[from] durable::Error),
    #[error("encoding what this node remembers")]
    Encode(#[source] serde_json::Error),
    #[error("the file {} is damaged", path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error(
        "the file {} has version {found}, and this program knows version {VERSION}: start the newer \
         cluster-worker that wrote this folder",
        path.display()
    )]
    UnknownVersion { path: PathBuf, found: u32 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    /// Counts starts on this data folder, from 1.
    pub boot: u64,
    pub managers: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    name: String,
    boot: u64,
    managers: Vec<String>,
}

impl Member {
    /// `None` before the first join.
    pub fn load(dir: &DataDir) -> Result<Option<Self>, Error> {
        let path = dir.member();
        let Some(bytes) = durable::read(&path)? else { return Ok(None) };
        let damaged = |source| Error::Damaged { path: path.clone(), source };
        let found = durable::version(&bytes).map_err(damaged)?;
        if found != VERSION {
            return Err(Error::UnknownVersion { path, found });
        }
        let stored: Stored = serde_json::from_slice(&bytes).map_err(damaged)?;
        let Stored { name, boot, managers, .. } = stored;
        Ok(Some(Self { name, boot, managers }))
    }

    pub fn store(&self, dir: &DataDir) -> Result<(), Error> {
        let stored = Stored {
            version: VERSION,
            name: self.name.clone(),
            boot: self.boot,
            managers: self.managers.clone(),
        };
        let bytes = serde_json::to_vec_pretty(&stored).map_err(Error::Encode)?;
        Ok(durable::replace(&dir.member(), &bytes)?)
    }

    /// Takes the managers' word on where they are; true if that was news.
    pub fn learn(&mut self, mut managers: Vec<String>) -> bool {
        managers.sort();
        managers.dedup();
        managers.truncate(MANAGERS_MAX);
        if managers.is_empty() || managers == self.managers {
            return false;
        }
        self.managers = managers;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_and_learns() {
        let dir = tempfile::tempdir().unwrap();
        let dir = DataDir::new(dir.path());
        assert_eq!(Member::load(&dir).unwrap(), None);
        let mut member = Member { name: "worker-1".into(), boot: 3, managers: vec![] };
        assert!(member.learn(vec!["b:1".into(), "a:1".into(), "b:1".into()]));
        assert!(!member.learn(vec!["a:1".into(), "b:1".into()]));
        assert!(!member.learn(vec![]), "an empty list says nothing");
        member.store(&dir).unwrap();
        assert_eq!(Member::load(&dir).unwrap(), Some(member));
        std::fs::write(dir.member(), b"{").unwrap();
        let error = Member::load(&dir).unwrap_err();
        assert!(error.to_string().contains("member.json"), "{error}");
    }
}
