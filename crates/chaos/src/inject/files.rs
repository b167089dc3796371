//! State files that are flipped or deleted while the daemon is down.
//!
//! A manager whose log or snapshots are not what it wrote must refuse to start and say which file;
//! then it gets its files back from a copy, or is replaced: taken out of the cluster, emptied, and
//! joined anew. A worker must start: what it lost, the managers tell it again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cluster_lab::Role;

use super::{Injector, Undo};
use crate::error::{Error, Result};

const REFUSES_WITHIN: Duration = Duration::from_secs(6);
const STAYS: Duration = Duration::from_secs(3);
const VOTES_WITHIN: Duration = Duration::from_secs(30);
const TAIL: usize = 15;
/// Of a worker: what it can get again from the managers.
const WORKER_FILES: [&str; 3] = ["assignments", "endpoints", "contact"];
/// The one that founded the cluster would found another one if it came back empty.
const FOUNDER: &str = "manager-1";

impl Injector<'_> {
    pub(super) fn damage(&mut self, node: &str, pick: u64) -> Result<(String, Undo)> {
        self.lab.kill_agent(node)?;
        match self.role(node) {
            Role::Manager => self.damage_manager(node, pick),
            Role::Worker => self.damage_worker(node, pick),
        }
    }

    fn damage_manager(&mut self, node: &str, pick: u64) -> Result<(String, Undo)> {
        let data = self.lab.data_path(node);
        let copy = data.with_file_name("data.copy");
        copy_folder(&data, &copy)?;
        let what = match pick % 3 {
            0 => {
                let log = data.join("raft/log");
                fs::remove_dir_all(&log).map_err(|source| Error::file("removing", &log, source))?;
                "its log is deleted".to_owned()
            }
            1 => {
                let Some(file) = largest(&data.join("raft/snapshots")) else {
                    return self.flip_log(node, &data, copy);
                };
                flip(&file)?;
                format!("a byte of {} is flipped", shown(&data, &file))
            }
            _ => return self.flip_log(node, &data, copy),
        };
        self.must_refuse(node, what, copy, pick)
    }

    fn flip_log(&mut self, node: &str, data: &Path, copy: PathBuf) -> Result<(String, Undo)> {
        let log = data.join("raft/log");
        let Some(file) = largest(&log) else {
            let source = io::Error::other("it holds no file");
            return Err(Error::file("looking for a log segment in", &log, source));
        };
        flip(&file)?;
        let what = format!("a byte of {} is flipped", shown(data, &file));
        self.must_refuse(node, what, copy, 0)
    }

    fn must_refuse(
        &mut self,
        node: &str,
        what: String,
        copy: PathBuf,
        pick: u64,
    ) -> Result<(String, Undo)> {
        let ended = self.lab.try_agent(node, REFUSES_WITHIN)?;
        let tail = self.log_tail(node, TAIL);
        match ended {
            None => {
                self.object("damage", format!("{node} runs although {what}"));
                self.lab.kill_agent(node)?;
            }
            Some(_) if !names_damage(&tail, &self.lab.data_path(node)) => {
                self.object("damage", format!("{node} does not say what is damaged: {tail}"));
            }
            Some(_) => {}
        }
        let replaced = node != FOUNDER && pick % 2 == 1;
        let undo = if replaced { Undo::Replace } else { Undo::Restore(copy) };
        Ok((format!("{what}; it refuses to start"), undo))
    }

    fn damage_worker(&mut self, node: &str, pick: u64) -> Result<(String, Undo)> {
        let data = self.lab.data_path(node);
        let names = usize::try_from(pick % WORKER_FILES.len() as u64).unwrap_or(0);
        let file = data.join(WORKER_FILES[names]);
        let what = if pick.is_multiple_of(2) || !file.exists() {
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::file("removing", &file, error));
                }
                _ => format!("its file {} is deleted", shown(&data, &file)),
            }
        } else {
            flip(&file)?;
            format!("a byte of its file {} is flipped", shown(&data, &file))
        };
        if let Some(how) = self.lab.try_agent(node, STAYS)? {
            let tail = self.log_tail(node, TAIL);
            self.object("damage", format!("{node} does not start after {what} ({how}): {tail}"));
            // So that the run can go on.
            let _ = fs::remove_file(&file);
        }
        Ok((what, Undo::StartAgent))
    }

    /// The way out with a copy of the files.
    pub(super) fn restore(&mut self, node: &str, copy: &Path) -> Result<String> {
        let data = self.lab.data_path(node);
        empty(&data)?;
        copy_folder(copy, &data)?;
        fs::remove_dir_all(copy).map_err(|source| Error::file("removing", copy, source))?;
        self.lab.start_agent(node)?;
        Ok("its files are back, it is started again".to_owned())
    }

    /// The way out without one.
    pub(super) fn replace(&mut self, node: &str) -> Result<String> {
        let data = self.lab.data_path(node);
        let copy = data.with_file_name("data.copy");
        fs::remove_dir_all(&copy).map_err(|source| Error::file("removing", &copy, source))?;
        self.load.remove_node(node)?;
        empty(&data)?;
        self.lab.start_agent(node)?;
        let begin = Instant::now();
        while !self.load.voters()?.iter().any(|voter| voter == node) {
            if begin.elapsed() > VOTES_WITHIN {
                let tail = self.log_tail(node, TAIL);
                let detail = format!("{node} has no vote {VOTES_WITHIN:?} after it joined: {tail}");
                self.object("replace", detail);
                break;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        let took = begin.elapsed().as_secs_f64();
        Ok(format!("it is taken out, emptied, and votes again after {took:.1} s"))
    }
}

/// The reason for the end comes last, and names a file or the folder.
fn names_damage(log: &str, data: &Path) -> bool {
    let errors = log.lines().rev().take(3).filter(|line| line.to_lowercase().contains("error"));
    let data = data.display().to_string();
    errors.into_iter().any(|line| line.contains(&data))
}

fn shown(data: &Path, file: &Path) -> String {
    file.strip_prefix(data).unwrap_or(file).display().to_string()
}

/// The file below that holds most, the newest of several.
fn largest(folder: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    files.filter(|path| path.is_file()).max_by_key(|path| used(path))
}

/// Where the last byte that is not zero lies: segments are filled with zeros beforehand.
fn used(path: &Path) -> usize {
    let bytes = fs::read(path).unwrap_or_default();
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |place| place + 1)
}

/// Flips one bit in the middle of what the file holds.
fn flip(path: &Path) -> Result<()> {
    let mut bytes = fs::read(path).map_err(|source| Error::file("reading", path, source))?;
    let middle = used(path) / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 0x10;
    }
    fs::write(path, bytes).map_err(|source| Error::file("damaging", path, source))
}

/// Empties a folder that may be a mount point.
fn empty(folder: &Path) -> Result<()> {
    let entries = fs::read_dir(folder).map_err(|source| Error::file("listing", folder, source))?;
    for entry in entries.flatten() {
        let path = entry.path();
        let removed =
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(|source| Error::file("removing", &path, source))?;
    }
    Ok(())
}

/// A copy with owners, modes and links, into a folder that may be there.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).map_err(|source| Error::file("creating", to, source))?;
    let status = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Error::file("copying", from, io::Error::other(status.to_string()))),
        Err(source) => Err(Error::file("copying", from, source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flip_meets_what_is_used_of_the_fullest_file() {
        let folder = tempfile::tempdir().unwrap();
        let (full, spare) = (folder.path().join("1"), folder.path().join("2"));
        fs::write(&full, [[7u8; 100].as_slice(), &[0; 1000]].concat()).unwrap();
        fs::write(&spare, [0u8; 5000]).unwrap();
        assert_eq!(largest(folder.path()), Some(full.clone()));
        flip(&full).unwrap();
        assert_eq!(fs::read(&full).unwrap()[50], 7 ^ 0x10);
    }

    #[test]
    fn a_refusal_names_what_is_damaged() {
        let data = Path::new("/lab/manager-1/data");
        let good = "INFO joined\nerror: /lab/manager-1/data/raft/log/1.log: its checksum is wrong";
        assert!(names_damage(good, data));
        assert!(!names_damage("INFO joined\nerror: damaged", data));
        assert!(!names_damage("INFO opened /lab/manager-1/data", data));
    }

    #[test]
    fn a_folder_is_copied_and_emptied() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("below")).unwrap();
        fs::write(from.join("below/file"), "x").unwrap();
        copy_folder(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("below/file")).unwrap(), "x");
        empty(&to).unwrap();
        assert_eq!(fs::read_dir(&to).unwrap().count(), 0);
    }
}
