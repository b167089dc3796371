//! The picture as lines: all of it for a terminal, what changed for anything else.

use std::collections::BTreeMap;

use super::{Line, Picture};
use crate::text::one_line;

/// Slots shown one by one; more are counted by state.
const SLOTS_SHOWN: u32 = 20;

/// The whole picture.
pub fn whole(picture: &Picture) -> Vec<String> {
    let mut lines = vec![overall(picture)];
    if picture.wanted <= SLOTS_SHOWN {
        lines.extend(picture.lines.iter().map(|line| slot(line, picture.wanted)));
    } else {
        lines.extend(totals(picture));
    }
    lines
}

/// What differs from the picture before, for logs and pipes.
pub fn changes(before: &Picture, after: &Picture) -> Vec<String> {
    let mut lines = Vec::new();
    if after.wanted <= SLOTS_SHOWN {
        let new = after.lines.iter().filter(|line| !before.lines.contains(line));
        lines.extend(new.map(|line| slot(line, after.wanted)));
    } else if totals(before) != totals(after) {
        lines.extend(totals(after));
    }
    if (before.running, before.wanted, before.leaving)
        != (after.running, after.wanted, after.leaving)
    {
        lines.push(overall(after));
    }
    lines
}

pub fn overall(picture: &Picture) -> String {
    let leaving = match picture.leaving {
        0 => String::new(),
        count => format!(", {count} to be stopped"),
    };
    format!("overall progress: {} out of {} tasks{leaving}", picture.running, picture.wanted)
}

fn slot(line: &Line, wanted: u32) -> String {
    let text = format!("{}/{wanted}: {:<9} {}", line.slot, line.state, one_line(&line.detail));
    text.trim_end().to_owned()
}

fn totals(picture: &Picture) -> Vec<String> {
    let mut by_state: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    for line in &picture.lines {
        let entry = by_state.entry(&line.state).or_insert((0, ""));
        entry.0 += 1;
        if entry.1.is_empty() && line.state != "running" {
            entry.1 = &line.detail;
        }
    }
    by_state
        .into_iter()
        .map(|(state, (count, detail))| {
            format!("{count} {state} {}", one_line(detail)).trim_end().to_owned()
        })
        .collect()
}
