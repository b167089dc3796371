//! What managers read from each other and from their disks.

use arbitrary::Unstructured;
use cluster_manager::raft::fuzzing;

/// Records that one input is made into.
const RECORDS_MAX: usize = 64;
/// Commands that one input is made into.
const COMMANDS_MAX: usize = 256;

pub fn messages(data: &[u8]) {
    fuzzing::envelope(data);
}

/// The input is a list of commands, each behind its length in two bytes.
pub fn commands(data: &[u8]) {
    let mut rest = data;
    let mut commands = Vec::new();
    while let Some((length, more)) = rest.split_first_chunk::<2>()
        && commands.len() < COMMANDS_MAX
    {
        let length = usize::from(u16::from_le_bytes(*length)).min(more.len());
        let (command, more) = more.split_at(length);
        commands.push(command);
        rest = more;
    }
    fuzzing::commands(&commands);
}

/// The first byte says how the rest is taken: as it is, as a file, or as bodies that get frames
/// whose checksums hold, then a cut and one changed byte.
pub fn records(data: &[u8]) {
    let Some((&kind, data)) = data.split_first() else { return };
    match kind % 4 {
        0 => drop(fuzzing::records(data)),
        1 => fuzzing::segment(data, false),
        2 => fuzzing::segment(data, true),
        _ => drop(framed(data)),
    }
}

fn framed(data: &[u8]) -> arbitrary::Result<()> {
    let mut input = Unstructured::new(data);
    let mut bytes = Vec::new();
    let mut ends = Vec::new();
    for _ in 0..input.int_in_range(0..=RECORDS_MAX)? {
        let durable = u32::from(input.arbitrary::<u16>()?);
        let body: Vec<u8> = input.arbitrary()?;
        bytes.extend(fuzzing::frame(&body, durable));
        ends.push(bytes.len());
    }
    bytes.extend(std::iter::repeat_n(0, usize::from(input.arbitrary::<u8>()?)));
    // A crash may leave a record unfinished; the ones before it must stay readable, and nothing
    // behind the cut may be taken for a record.
    let cut = input.int_in_range(0..=bytes.len())?;
    let (whole, _) = fuzzing::records(&bytes);
    bytes[cut..].fill(0);
    let (left, _) = fuzzing::records(&bytes);
    let uncut = ends.iter().filter(|end| **end <= cut).count();
    assert_eq!(left, uncut.min(whole), "of {uncut} records before the cut");
    if !bytes.is_empty() {
        let at = input.int_in_range(0..=bytes.len() - 1)?;
        bytes[at] ^= input.arbitrary::<u8>()?;
        fuzzing::records(&bytes);
    }
    Ok(())
}

/// The first byte says how the rest is taken: as a file, as one whose header is made to check, or
/// as the state inside.
pub fn snapshot(data: &[u8]) {
    let Some((&kind, data)) = data.split_first() else { return };
    match kind % 3 {
        0 => drop(fuzzing::snapshot(data, false)),
        1 => drop(fuzzing::snapshot(data, true)),
        _ => drop(fuzzing::state(data)),
    }
}
