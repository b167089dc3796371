//! Where things lie under the data folder, and nothing else:
//!
//! | path | what |
//! | --- | --- |
//! | `LOCK` | held by the one process that uses the folder |
//! | `worker.sock` | where `cluster-worker image …` reaches the running worker |
//! | `identity.json` | key, certificate, CA |
//! | `member.json` | name, count of starts, known managers |
//! | `assignments` | what this node is to run |
//! | `contact` | when a manager last heard this node |
//! | `endpoints` | what the balancers were last told |
//! | `images/` | the image store |
//! | `containers/` | what the runtime keeps of containers, their output included |
//! | `tasks/<id>/` | how far a task came, and its `/etc/hosts` and the like |
//! | `volumes/<name>/` | named volumes; never removed by the worker |

use std::path::{Path, PathBuf};

use cluster_model::TaskId;

#[derive(Clone, Debug)]
pub struct DataDir {
    root: PathBuf,
}

impl DataDir {
    /// `root` must be absolute: mounts outlive the working folder.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn socket(&self) -> PathBuf {
        self.root.join("worker.sock")
    }

    pub fn member(&self) -> PathBuf {
        self.root.join("member.json")
    }

    pub fn assignments(&self) -> PathBuf {
        self.root.join("assignments")
    }

    pub fn contact(&self) -> PathBuf {
        self.root.join("contact")
    }

    pub fn endpoints(&self) -> PathBuf {
        self.root.join("endpoints")
    }

    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    pub fn tasks(&self) -> PathBuf {
        self.root.join("tasks")
    }

    pub fn task(&self, task: TaskId) -> PathBuf {
        self.tasks().join(task.to_string())
    }

    pub fn volume(&self, name: &str) -> PathBuf {
        self.root.join("volumes").join(name)
    }
}
