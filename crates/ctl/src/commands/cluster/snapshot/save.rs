//! `cluster snapshot save FILE`
//!
//! The file gets its name only when it is whole, was read again and is durable.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cluster_pb::control::v1::save_snapshot_response::Part;
use cluster_pb::control::v1::{SaveSnapshotRequest, SaveSnapshotResponse};
use tonic::Streaming;

use super::inspect::SnapshotView;
use crate::Invocation;
use crate::error::Error;
use crate::output::Format;
use crate::text::bytes;

/// Bytes between two lines of progress.
const TELL_EVERY: u64 = 8 << 20;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file to write, readable by its owner only. Whoever has it has the cluster: it holds the
    /// CA's key and the join tokens
    file: PathBuf,

    /// Replace the file if it exists
    #[arg(long, short)]
    force: bool,

    /// Accept what the asked manager holds, without asking the leader: also without a majority
    #[arg(long)]
    stale: bool,

    /// How to show what was saved
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let path = &args.file;
    if path.exists() && !args.force {
        let message = format!("{} exists already", path.display());
        return Err(Error::refused(message).hint("choose another name, or use --force"));
    }
    let patience = invocation.global.timeout;
    let request = SaveSnapshotRequest { stale: args.stale };
    let parts = invocation.client()?.save_snapshot(request).await?;
    let unfinished = unfinished(path)?;
    let saved = receive(parts, &unfinished, patience, invocation).await.and_then(|()| {
        // What cannot be read again is no snapshot.
        let read = super::read(&unfinished)?;
        let fail = failing("name", path);
        fs::rename(&unfinished, path).map_err(fail)?;
        sync_folder(path)?;
        Ok(read)
    });
    let (header, state) = match saved {
        Ok(read) => read,
        Err(error) => {
            // The failure to report is the first one.
            let _ = fs::remove_file(&unfinished);
            return Err(error);
        }
    };
    let view = SnapshotView::of(path, header, &state);
    if args.output == Format::Json {
        return invocation.printer.json(&view);
    }
    invocation.printer.data(&view.file)?;
    invocation.printer.say(&format!(
        "{} services, {} tasks, {} workers as of index {}, {}, state hash {}",
        view.services,
        view.tasks,
        view.workers,
        view.index,
        bytes(view.bytes),
        view.state_hash
    ));
    invocation
        .printer
        .say("keep it safe: it holds the CA's key and the join tokens, and is not encrypted");
    Ok(())
}

fn failing(doing: &'static str, path: &Path) -> impl Fn(std::io::Error) -> Error {
    let path = path.display().to_string();
    move |error| Error::refused(format!("cannot {doing} {path}")).cause(error.to_string())
}

fn unfinished(path: &Path) -> Result<PathBuf, Error> {
    let name = path
        .file_name()
        .ok_or_else(|| Error::usage(format!("{} is not the name of a file", path.display())))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}.tmp", std::process::id()));
    Ok(path.with_file_name(hidden))
}

async fn receive(
    mut parts: Streaming<SaveSnapshotResponse>,
    path: &Path,
    patience: Duration,
    invocation: &mut Invocation,
) -> Result<(), Error> {
    let mut file: File = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(failing("make", path))?;
    let (mut got, mut told) = (0u64, 0u64);
    loop {
        let next = tokio::time::timeout(patience, parts.message()).await;
        let part = match next {
            Ok(Ok(part)) => part.and_then(|part| part.part),
            Ok(Err(status)) => return Err(Error::from_status(&status)),
            Err(_) => {
                let message = format!("no more of the snapshot came within {patience:?}");
                return Err(Error::timed_out(message).hint("allow more time with --timeout"));
            }
        };
        match part {
            Some(Part::Chunk(chunk)) => {
                file.write_all(&chunk).map_err(failing("write", path))?;
                got += chunk.len() as u64;
                if got >= told + TELL_EVERY {
                    told = got;
                    invocation.printer.say(&format!("{} saved", bytes(got)));
                }
            }
            Some(Part::Sum(sum)) if sum.bytes == got => break,
            Some(Part::Sum(sum)) => {
                let message = format!("{got} of {} bytes of the snapshot came", sum.bytes);
                return Err(Error::unreachable(message));
            }
            None => return Err(Error::unreachable("the snapshot ended before it was whole")),
        }
    }
    file.sync_all().map_err(failing("sync", path))
}

fn sync_folder(path: &Path) -> Result<(), Error> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failing("sync", folder))
}
