//! Where contexts are kept, and which one a command uses.
//!
//! `$CLUSTERCTL_CONFIG` or `~/.config/clusterctl` holds `contexts/<name>.json` and `current`, the
//! name of the one used by default. The files hold keys, so folder and files are the owner's only.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use cluster_identity::Context;

use crate::cli::Global;
use crate::error::Error;
use crate::text::{one_line, shortened};

const NO_CONTEXT: &str = "import the context file that a manager wrote with \
    `clusterctl context import DATA-DIR/admin.json`, or start a lab with `clusterctl lab up`";

/// The folder of all contexts.
pub struct Store {
    folder: PathBuf,
}

impl Store {
    pub fn of_user() -> Result<Self, Error> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let folder = match (set("CLUSTERCTL_CONFIG"), set("HOME")) {
            (Some(folder), _) => PathBuf::from(folder),
            (None, Some(home)) => PathBuf::from(home).join(".config/clusterctl"),
            (None, None) => {
                return Err(Error::usage("there is no home folder to keep contexts in")
                    .hint("set HOME or CLUSTERCTL_CONFIG, or use --context-file"));
            }
        };
        Ok(Self { folder })
    }

    #[cfg(test)]
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// All names, sorted.
    pub fn names(&self) -> Result<Vec<String>, Error> {
        let folder = self.folder.join("contexts");
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("reading", &folder, &error)),
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter_map(|name| name.strip_suffix(".json").map(str::to_owned))
            .collect();
        names.sort();
        Ok(names)
    }

    /// The chosen one; without a choice the only one there is.
    pub fn current(&self) -> Result<Option<String>, Error> {
        let path = self.folder.join("current");
        match fs::read_to_string(&path) {
            Ok(name) if !name.trim().is_empty() => Ok(Some(name.trim().to_owned())),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("reading", &path, &error))
            }
            _ => {
                let mut names = self.names()?;
                Ok(if names.len() == 1 { names.pop() } else { None })
            }
        }
    }

    pub fn set_current(&self, name: &str) -> Result<(), Error> {
        self.require(name)?;
        let (path, partial) = (self.folder.join("current"), self.folder.join("current.partial"));
        fs::write(&partial, format!("{name}\n"))
            .and_then(|()| fs::rename(&partial, &path))
            .map_err(|error| failed("writing", &path, &error))
    }

    pub fn load(&self, name: &str) -> Result<Context, Error> {
        self.require(name)?;
        load(&self.path(name))
    }

    /// Keeps a context under its name; one of another cluster is not replaced unless told.
    pub fn save(&self, context: &Context, replace: bool) -> Result<(), Error> {
        let path = self.path(&context.name);
        let before = Context::load(&path);
        if !replace && before.is_ok_and(|before| before.cluster_id != context.cluster_id) {
            return Err(Error::refused(format!(
                "there is a context `{}` already, of another cluster",
                context.name
            ))
            .hint("choose another name with --name, or remove it with `clusterctl context rm`"));
        }
        let folder = self.folder.join("contexts");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|error| failed("creating", &folder, &error))?;
        context.save(&path).map_err(|error| Error::caused(&error))
    }

    pub fn remove(&self, name: &str) -> Result<(), Error> {
        self.require(name)?;
        let path = self.path(name);
        fs::remove_file(&path).map_err(|error| failed("removing", &path, &error))?;
        let current = self.folder.join("current");
        let was_current = fs::read_to_string(&current).is_ok_and(|text| text.trim() == name);
        if was_current {
            fs::remove_file(&current).map_err(|error| failed("removing", &current, &error))?;
        }
        Ok(())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join("contexts").join(format!("{name}.json"))
    }

    fn require(&self, name: &str) -> Result<(), Error> {
        let known = self.names()?;
        if known.iter().any(|other| other == name) {
            return Ok(());
        }
        let shown = shortened(&one_line(name), 60);
        let error = Error::refused(format!("there is no context `{shown}`"));
        Err(if known.is_empty() {
            error.hint(NO_CONTEXT)
        } else {
            error.hint(format!("there are {}", known.join(", ")))
        })
    }
}

/// The context of this command.
pub fn select(global: &Global) -> Result<Context, Error> {
    load(&selected(global)?)
}

/// Where the context of this command is: flags before environment, a file before a name, then the
/// current one.
pub fn selected(global: &Global) -> Result<PathBuf, Error> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(path) = &global.context_file {
        return Ok(path.clone());
    }
    let known = |store: Store, name: &str| store.require(name).map(|()| store.path(name));
    if let Some(name) = &global.context {
        return known(Store::of_user()?, name);
    }
    if let Some(path) = set("CLUSTERCTL_CONTEXT_FILE") {
        return Ok(PathBuf::from(path));
    }
    let store = Store::of_user()?;
    let name = match set("CLUSTERCTL_CONTEXT") {
        Some(name) => Some(name),
        None => store.current()?,
    };
    match name {
        Some(name) => known(store, &name),
        None if store.names()?.is_empty() => {
            Err(Error::refused("no cluster is known here").hint(NO_CONTEXT))
        }
        None => Err(Error::refused("there are several contexts and none is current")
            .hint("choose one with `clusterctl context use NAME` or --context NAME")),
    }
}

pub fn load(path: &Path) -> Result<Context, Error> {
    Context::load(path).map_err(|error| Error::caused(&error))
}

fn failed(doing: &str, path: &Path, error: &io::Error) -> Error {
    Error::refused(format!("{doing} {}", path.display())).cause(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ca, context};

    #[test]
    fn contexts_are_kept_chosen_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        assert_eq!(store.current().unwrap(), None);
        assert!(store.load("a").unwrap_err().hint.unwrap().contains("import"));

        let authority = ca("c1");
        store.save(&context(&authority, "a", vec!["127.0.0.1:1".into()]), false).unwrap();
        assert_eq!(store.current().unwrap().as_deref(), Some("a"), "the only one");
        store.save(&context(&authority, "b", vec!["127.0.0.1:1".into()]), false).unwrap();
        assert_eq!(store.current().unwrap(), None, "two, and none chosen");
        store.set_current("b").unwrap();
        assert_eq!(store.current().unwrap().as_deref(), Some("b"));
        assert_eq!(store.load("b").unwrap().name, "b");
        assert!(store.set_current("c").unwrap_err().hint.unwrap().contains("a, b"));
        assert!(store.load("../b").is_err());

        store.remove("b").unwrap();
        assert_eq!(store.current().unwrap().as_deref(), Some("a"));
    }

    #[test]
    fn another_clusters_context_is_not_overwritten_by_accident() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        let address = || vec!["127.0.0.1:1".to_owned()];
        store.save(&context(&ca("c1"), "a", address()), false).unwrap();
        let other = context(&ca("c2"), "a", address());
        assert!(store.save(&other, false).is_err());
        store.save(&other, true).unwrap();
        assert_eq!(store.load("a").unwrap().cluster_id, "c2");
    }
}
