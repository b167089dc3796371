//! The picture as lines: all of it for a terminal, what changed for anything else.

use std::collections::BTreeMap;

use super::{Line, Picture};
use crate::text::one_line;

/// Slots shown one by one; more are counted by state.
const SLOTS_SHOWN: u32 = 20;

/// The whole picture.
pub fn whole(picture: &Picture) -> Vec<String> {
    let mut lines = vec![overall(picture)];
    if !picture.rollout.is_empty() {
        lines.push(one_line(&picture.rollout));
    }
    if is_small(picture) {
        lines.extend(picture.lines.iter().map(|line| slot(line, picture.wanted)));
    } else {
        lines.extend(totals(picture));
    }
    lines
}

/// What differs from the picture before, for logs and pipes.
pub fn changes(before: &Picture, after: &Picture) -> Vec<String> {
    let mut lines = Vec::new();
    if before.rollout != after.rollout && !after.rollout.is_empty() {
        lines.push(one_line(&after.rollout));
    }
    if is_small(after) {
        let new = after.lines.iter().filter(|line| !before.lines.contains(line));
        lines.extend(new.map(|line| slot(line, after.wanted)));
    } else if totals(before) != totals(after) {
        lines.extend(totals(after));
    }
    let numbers = |picture: &Picture| match picture.completed {
        // Of a job only what is done counts; tasks come and go.
        Some(completed) => (completed, picture.wanted, 0),
        None => (picture.running, picture.wanted, picture.leaving),
    };
    if (before.completed.is_some(), numbers(before)) != (after.completed.is_some(), numbers(after))
    {
        lines.push(overall(after));
    }
    lines
}

/// Slots are shown one by one.
fn is_small(picture: &Picture) -> bool {
    match picture.completed {
        Some(_) => picture.lines.len() <= SLOTS_SHOWN as usize,
        None => picture.wanted <= SLOTS_SHOWN,
    }
}

pub fn overall(picture: &Picture) -> String {
    if let Some(completed) = picture.completed {
        return format!("job progress: {completed} out of {} completed", picture.wanted);
    }
    let leaving = match picture.leaving {
        0 => String::new(),
        count => format!(", {count} to be stopped"),
    };
    format!("overall progress: {} out of {} tasks{leaving}", picture.running, picture.wanted)
}

fn slot(line: &Line, wanted: u32) -> String {
    let name = match line.node.as_str() {
        "" => format!("{}/{wanted}", line.slot),
        node => node.to_owned(),
    };
    let text = format!("{name}: {:<9} {}", line.state, one_line(&line.detail));
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
