//! Reading the log back at start: which files must exist, how each may end, what is cut.

use super::index::Index;
use super::record::{Record, Stop};
use super::segment::{self, Checkpoint, Segment};
use super::writer::Active;
use super::{Folder, StorageError};

/// Reads all segments into `index`; returns the one to go on with and where.
pub(super) fn recover(folder: &Folder, index: &mut Index) -> Result<Active, StorageError> {
    let (disk, dir) = (&*folder.disk, &*folder.dir);
    let names = disk.list(dir).map_err(StorageError::io("list", dir))?;
    for name in names.iter().filter(|name| name.ends_with(".tmp")) {
        let path = dir.join(name);
        disk.remove(&path).map_err(StorageError::io("remove", &path))?;
    }
    let numbers: Vec<u64> = names.iter().filter_map(|name| segment::number_of(name)).collect();
    let Some((&first, &last)) = numbers.first().zip(numbers.last()) else {
        let made = folder.make(1, 0, &Checkpoint::default())?;
        index.segments.insert(1, made.clone());
        return Ok(Active::at(made, segment::FIRST));
    };
    let mut active = None;
    for (expected, &number) in (first..).zip(&numbers) {
        if number != expected {
            return Err(StorageError::Missing { path: segment::path_of(dir, expected) });
        }
        let mut records = Vec::new();
        let (segment, checkpoint, stop) = Segment::load(
            disk,
            dir,
            folder.owner,
            number,
            folder.keys.as_ref(),
            &mut |at, record| records.push((at, record)),
        )?;
        if number == first {
            index.checkpoint = checkpoint;
        }
        for (at, record) in records {
            check_follows(index, &segment, at, &record)?;
            index.replay(number, at, record);
        }
        index.segments.insert(number, segment.clone());
        // Memory stays bounded while a long log is read.
        index.shrink(folder.settings.cache_bytes);
        active = end_of(folder, index, segment, &stop, number == last)?;
    }
    check_start(folder, index, first)?;
    let active =
        active.ok_or_else(|| StorageError::Missing { path: segment::path_of(dir, last + 1) })?;
    index.segments.insert(active.segment.number, active.segment.clone());
    Ok(active)
}

/// Makes durable what was read. A process that was killed between a write and its sync left bytes
/// that read well and may still be lost with the power; and after a sync that failed, the system
/// may take such bytes for written. So they are written once more, then synced.
fn settle(folder: &Folder, segment: &Segment, end: usize) -> Result<(), StorageError> {
    let mut bytes = vec![0; end];
    let again = segment.file.read_at(&mut bytes, 0).and_then(|()| {
        segment.file.write_at(&bytes, 0)?;
        segment.file.sync()?;
        folder.disk.sync_dir(&folder.dir)
    });
    again.map_err(StorageError::io("sync what was found in", &segment.path))
}

/// An entry must follow the one before it.
fn check_follows(
    index: &Index,
    segment: &Segment,
    at: u64,
    record: &Record,
) -> Result<(), StorageError> {
    if let Record::Entry(entry) = record
        && !index.slots.is_empty()
        && entry.at.index > index.next()
    {
        return Err(StorageError::damaged(
            &segment.path,
            at,
            "entries before this one are missing",
        ));
    }
    Ok(())
}

/// The first entry must follow what was purged.
fn check_start(folder: &Folder, index: &Index, first_segment: u64) -> Result<(), StorageError> {
    let expected = index.checkpoint.purged.map_or(0, |at| at.index + 1);
    if index.slots.is_empty() || index.first <= expected {
        return Ok(());
    }
    let path = segment::path_of(&folder.dir, first_segment.saturating_sub(1));
    Err(StorageError::Missing { path })
}

/// Decides how the log goes on after a segment: only the last may end without a seal, and only
/// its unfinished tail is cut.
fn end_of(
    folder: &Folder,
    index: &Index,
    segment: Segment,
    stop: &Stop,
    is_last: bool,
) -> Result<Option<Active>, StorageError> {
    match *stop {
        Stop::Sealed if is_last => {
            // Its seal may have been written by a process that did not live to sync it.
            let whole = usize::try_from(segment.capacity).unwrap_or(usize::MAX);
            settle(folder, &segment, whole)?;
            let made = folder.make(segment.number + 1, 0, &index.checkpoint)?;
            Ok(Some(Active::at(made, segment::FIRST)))
        }
        Stop::Sealed => Ok(None),
        Stop::Clean { end } | Stop::Torn { end, .. } if !is_last => {
            Err(StorageError::damaged(&segment.path, end as u64, "the segment's end is missing"))
        }
        Stop::Clean { end } => {
            settle(folder, &segment, end)?;
            Ok(Some(Active::at(segment, end as u64)))
        }
        Stop::Torn { end, dirty } => {
            tracing::info!(path = %segment.path.display(), offset = end, bytes = dirty - end,
                "cut an unfinished write from the end of the log");
            let zeros = vec![0; dirty - end];
            let cut = segment.file.write_at(&zeros, end as u64).and_then(|()| segment.file.sync());
            cut.map_err(StorageError::io("cut the unfinished tail of", &segment.path))?;
            settle(folder, &segment, end)?;
            Ok(Some(Active::at(segment, end as u64)))
        }
        Stop::Damaged { at, what } => Err(StorageError::damaged(&segment.path, at as u64, what)),
    }
}
