//! Messages of the session between a worker and a manager, through the conversions of both.

use cluster_pb::dispatcher::v1 as pb;
use cluster_wire::{dispatch, object};
use cluster_worker::assignments::store;
use cluster_worker::assignments::{Intake, Table};
use cluster_worker::endpoints::Told;
use prost::Message as _;

use crate::scratch;

/// Messages that one input is made into.
const MESSAGES_MAX: usize = 64;

/// The first byte says who speaks; then messages, each behind its length in two bytes.
pub fn session(data: &[u8]) {
    let Some((&kind, mut rest)) = data.split_first() else { return };
    let mut messages = Vec::new();
    while let Some((length, more)) = rest.split_first_chunk::<2>()
        && messages.len() < MESSAGES_MAX
    {
        let length = usize::from(u16::from_le_bytes(*length)).min(more.len());
        let (message, more) = more.split_at(length);
        messages.push(message);
        rest = more;
    }
    if kind % 2 == 0 { worker_speaks(&messages) } else { manager_speaks(&messages) }
}

fn worker_speaks(messages: &[&[u8]]) {
    use pb::worker_message::Item;
    for bytes in messages {
        let Ok(message) = pb::WorkerMessage::decode(*bytes) else { continue };
        match message.item {
            Some(Item::Hello(hello)) => {
                let Some(description) = hello.description else { continue };
                let Ok(read) = object::description_from_pb(description) else { continue };
                let again = object::description_from_pb(object::description_to_pb(&read));
                assert_eq!(again.as_ref(), Ok(&read), "a description changes on its way");
            }
            Some(Item::Report(report)) => {
                for task in report.tasks {
                    let Ok(read) = dispatch::report_from_pb(task) else { continue };
                    let again = dispatch::report_from_pb(dispatch::report_to_pb(&read));
                    assert_eq!(again.as_ref(), Ok(&read), "a report changes on its way");
                }
            }
            Some(Item::Heartbeat(_) | Item::Acknowledge(_)) | None => {}
        }
    }
}

fn manager_speaks(messages: &[&[u8]]) {
    use pb::manager_message::Item;
    let (mut intake, mut table, mut told) = (Intake::default(), Table::default(), Told::default());
    for bytes in messages {
        let Ok(message) = pb::ManagerMessage::decode(*bytes) else { continue };
        match message.item {
            Some(Item::Assignments(assignments)) => match intake.accept(&table, assignments) {
                Ok(Some(next)) => {
                    assert!(next.stamp >= table.stamp, "a worker went back");
                    table = next;
                }
                Ok(None) => {}
                // A session that breaks the rules ends; so do its parts.
                Err(_) => intake = Intake::default(),
            },
            Some(Item::Endpoints(endpoints)) => drop(told.accept(endpoints)),
            _ => {}
        }
    }
    if !table.tasks.is_empty() {
        let folder = scratch::folder();
        let path = folder.path().join("assignments");
        store::save(&path, &table).expect("a table can be written down");
        let read = store::load(&path).expect("a table that was written reads");
        assert_eq!(read, table, "a table changes by being written down");
    }
}
