//! Small files that programs keep from one start to the next.

use std::fs;

use cluster_identity::{Context, Identity};
use cluster_model::TaskId;
use cluster_worker::assignments::store;
use cluster_worker::contact::Contact;
use cluster_worker::data_dir::DataDir;
use cluster_worker::member::Member;
use cluster_worker::task::record::Record;

use crate::scratch;

/// An identity or a context, as a file says it.
pub fn identity(data: &[u8]) {
    let folder = scratch::folder();
    fs::write(Identity::path(folder.path()), data).expect("the input is written");
    if let Ok(identity) = Identity::load_any_age(folder.path()) {
        let _ = identity.check_dates(1_700_000_000);
        identity.store(folder.path()).expect("an identity that reads can be written");
        Identity::load_any_age(folder.path()).expect("an identity that was written reads");
    }
    let path = folder.path().join("context.json");
    fs::write(&path, data).expect("the input is written");
    if let Ok(context) = Context::load(&path) {
        context.save(&path).expect("a context that reads can be written");
        Context::load(&path).expect("a context that was written reads");
    }
}

/// The first byte says which file the rest is.
pub fn worker(data: &[u8]) {
    let Some((&kind, data)) = data.split_first() else { return };
    let folder = scratch::folder();
    let dir = DataDir::new(folder.path());
    match kind % 5 {
        0 => assignments(&dir, data),
        1 => {
            // The checksum is made to hold.
            let mut bytes = format!("{:08x}\n", crc32fast::hash(data)).into_bytes();
            bytes.extend_from_slice(data);
            assignments(&dir, &bytes);
        }
        2 => {
            fs::write(dir.member(), data).expect("the input is written");
            if let Ok(Some(member)) = Member::load(&dir) {
                member.store(&dir).expect("what reads can be written");
                assert_eq!(Member::load(&dir).ok().flatten(), Some(member));
            }
        }
        3 => {
            let task = dir.task(TaskId(1));
            fs::create_dir_all(&task).expect("a folder");
            fs::write(task.join("record.json"), data).expect("the input is written");
            let _ = Record::load(&task);
        }
        _ => {
            fs::write(dir.contact(), data).expect("the input is written");
            let _ = Contact::load(dir.contact()).silence_ms();
        }
    }
}

fn assignments(dir: &DataDir, bytes: &[u8]) {
    let path = dir.assignments();
    fs::write(&path, bytes).expect("the input is written");
    if let Ok(table) = store::load(&path) {
        store::save(&path, &table).expect("a table that reads can be written");
        assert_eq!(store::load(&path).ok(), Some(table), "a table changes by being written");
    }
}

/// Files of `cluster snapshot save`. The first byte says whether the header's checksum is made to
/// hold, so that what lies behind it is reached.
pub fn state_file(data: &[u8]) {
    let Some((&kind, data)) = data.split_first() else { return };
    let mut bytes = data.to_vec();
    if kind % 2 == 1 {
        cluster_archive::fuzzing::mend(&mut bytes);
    }
    if let Ok((header, state)) = cluster_archive::read(bytes.as_slice()) {
        let mut again = Vec::new();
        cluster_archive::write(&header, &state, &mut again).expect("what reads can be written");
        let read = cluster_archive::read(again.as_slice()).expect("what was written reads");
        assert_eq!(read, (header, state));
    }
}
