//! Reading the log files beside a container while a shim appends to and rotates them.
//!
//! An open file stays readable when it is renamed, so the reader holds the files it has not
//! finished and finds their successors by inode.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt, StreamExt};

use crate::embedded::entry::{Entry, Phase};
use crate::embedded::{blocking, io_error};
use crate::error::Result;
use crate::logs::{LogLine, LogQuery, LogStream};
use crate::observe::State;
use crate::shim::files::Folder;

/// Bytes read at once, and thereby the most that waits for a slow caller.
const CHUNK: usize = 64 << 10;
/// How soon a follower looks again. Cheap: one `stat` and one `read`.
const FOLLOW_PERIOD: Duration = Duration::from_millis(50);
/// A record cannot be longer; what is gets dropped.
const MAX_RECORD: usize = crate::logs::MAX_TEXT + 128;

/// The stream of `Runtime::logs`.
pub fn stream(entry: &Arc<Entry>, query: LogQuery) -> LogStream {
    let (mut sender, receiver) = futures::channel::mpsc::channel(0);
    let entry = entry.clone();
    // Ends when the receiver is dropped: the next send fails.
    tokio::spawn(async move {
        if let Err(error) = run(&entry, query, &mut sender).await {
            let _ = sender.send(Err(error)).await;
        }
    });
    receiver.boxed()
}

type Sender = futures::channel::mpsc::Sender<Result<LogLine>>;

async fn run(entry: &Entry, query: LogQuery, sender: &mut Sender) -> Result<()> {
    let folder = entry.folder.clone();
    let mut reader = blocking("read logs", move || Reader::open(folder, query)).await?;
    let mut status = entry.subscribe();
    loop {
        // Asked before reading: what was written before the end is then in what we read.
        let over = !query.follow
            || matches!(entry.phase(), Phase::Known(State::Exited(_)) | Phase::Removed);
        let (lines, back) = blocking("read logs", move || {
            let lines = reader.next_lines()?;
            Ok((lines, reader))
        })
        .await?;
        reader = back;
        match lines {
            Some(lines) => {
                for line in lines {
                    if sender.send(Ok(line)).await.is_err() {
                        return Ok(());
                    }
                }
            }
            None if over => return Ok(()),
            None => {
                let changed = tokio::time::timeout(FOLLOW_PERIOD, status.changed()).await;
                if sender.is_closed() || matches!(changed, Ok(Err(_))) {
                    return Ok(());
                }
            }
        }
    }
}

struct Reader {
    folder: Folder,
    query: LogQuery,
    /// Oldest first; the last one is or was the current file.
    files: VecDeque<File>,
    /// Inode of the newest file opened so far.
    newest: Option<u64>,
    /// Records still to be passed over.
    skip: usize,
    rest: Vec<u8>,
}

impl Reader {
    fn open(folder: Folder, query: LogQuery) -> Result<Self> {
        let mut reader =
            Self { folder, query, files: VecDeque::new(), newest: None, skip: 0, rest: Vec::new() };
        reader.find_files().map_err(io_error("open the logs in", reader.folder.path()))?;
        if let Some(tail) = query.tail {
            let records =
                reader.count().map_err(io_error("read the logs in", reader.folder.path()))?;
            reader.skip = records.saturating_sub(tail);
        }
        Ok(reader)
    }

    /// Appends the files that are newer than the newest one we have. Looks from the current file
    /// backwards: a rotation meanwhile then shows one twice, but never hides one.
    fn find_files(&mut self) -> io::Result<()> {
        let mut found: Vec<(u64, File)> = Vec::new();
        for age in 0.. {
            let file = match File::open(self.folder.log(age)) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            };
            let inode = file.metadata()?.ino();
            if self.newest == Some(inode) {
                break;
            }
            if found.iter().all(|(known, _)| *known != inode) {
                found.push((inode, file));
            }
        }
        if let Some((inode, _)) = found.first() {
            self.newest = Some(*inode);
        }
        self.files.extend(found.into_iter().rev().map(|(_, file)| file));
        Ok(())
    }

    fn count(&mut self) -> io::Result<usize> {
        let mut records = 0;
        let mut chunk = vec![0; CHUNK];
        for file in &mut self.files {
            loop {
                let length = file.read(&mut chunk)?;
                if length == 0 {
                    break;
                }
                records += chunk[..length].iter().filter(|byte| **byte == b'\n').count();
            }
            file.seek(SeekFrom::Start(0))?;
        }
        Ok(records)
    }

    /// Lines of the next chunk, `None` at the end of what there is.
    fn next_lines(&mut self) -> Result<Option<Vec<LogLine>>> {
        let failed = |folder: &Folder| io_error("read the logs in", folder.path());
        let mut chunk = vec![0; CHUNK];
        loop {
            let Some(file) = self.files.front_mut() else {
                if self.rotated().map_err(failed(&self.folder))? {
                    continue;
                }
                return Ok(None);
            };
            let length = file.read(&mut chunk).map_err(failed(&self.folder))?;
            if length > 0 {
                return Ok(Some(self.take(&chunk[..length])));
            }
            // The end of the newest file is only an end if it is still the current one.
            if self.files.len() == 1 && !self.rotated().map_err(failed(&self.folder))? {
                return Ok(None);
            }
            if self.files.len() > 1 && self.at_end().map_err(failed(&self.folder))? {
                self.files.pop_front();
            }
        }
    }

    /// Nothing was appended between our last read and the rotation.
    fn at_end(&mut self) -> io::Result<bool> {
        let Some(file) = self.files.front_mut() else { return Ok(true) };
        Ok(file.stream_position()? >= file.metadata()?.len())
    }

    fn rotated(&mut self) -> io::Result<bool> {
        let current = match fs::metadata(self.folder.log(0)) {
            Ok(metadata) => metadata.ino(),
            // Between two renames, or removed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        if self.newest == Some(current) {
            return Ok(false);
        }
        self.find_files()?;
        Ok(true)
    }

    fn take(&mut self, bytes: &[u8]) -> Vec<LogLine> {
        let mut lines = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(part);
            if part.ends_with(b"\n") {
                self.rest.pop();
                let line = LogLine::decode(&self.rest);
                self.rest.clear();
                if self.skip > 0 {
                    self.skip -= 1;
                } else {
                    lines.extend(line.filter(|line| {
                        self.query.since_unix_nanos.is_none_or(|since| line.unix_nanos >= since)
                    }));
                }
            } else if self.rest.len() > MAX_RECORD {
                self.rest.clear();
            }
        }
        lines
    }
}
