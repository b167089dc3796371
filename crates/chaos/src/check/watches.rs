//! One watch of one service: no repeat, no reordering, and tasks that only go forward.
//!
//! The API sends whole views, and may leave views out when they come fast; so a gap is a view that
//! claims an index and does not show all that was written up to it (`check::writes` objects), or
//! the last state never delivered (the run looks for it at the end).

use std::collections::BTreeMap;

use super::Objection;

/// How far a task is, in the order in which states may follow each other. Ends are all alike.
const STATES: [&str; 8] =
    ["new", "pending", "assigned", "accepted", "preparing", "ready", "starting", "running"];
const LOST: &str = "lost";

/// One message of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub index: u64,
    pub id: String,
    pub version: u64,
    /// Task id, its version, and its observed state.
    pub tasks: Vec<(String, u64, String)>,
    /// Stands for all that a message says besides its index.
    pub digest: u64,
}

/// Follows one watcher over all its streams.
#[derive(Debug, Default)]
pub struct Judge {
    watched: String,
    last: Option<Frame>,
    tasks: BTreeMap<String, (u64, String)>,
    first_of_stream: bool,
}

fn rank(state: &str) -> usize {
    STATES.iter().position(|known| *known == state).unwrap_or(STATES.len())
}

impl Judge {
    pub fn new(watched: impl Into<String>) -> Self {
        Self { watched: watched.into(), first_of_stream: true, ..Self::default() }
    }

    /// The stream broke; the next one begins with the present view.
    pub fn reopened(&mut self) {
        self.first_of_stream = true;
    }

    pub fn feed(&mut self, frame: Frame) -> Vec<Objection> {
        let mut objections = Vec::new();
        let mut object = |problem: String| {
            let detail = format!("watch of {}: {problem}", self.watched);
            objections.push(Objection::new("watch", detail));
        };
        let first = std::mem::take(&mut self.first_of_stream);
        if let Some(last) = &self.last {
            let (index, before) = (frame.index, last.index);
            if index < before {
                object(format!("index {index} after {before}"));
            }
            if !first && index == before {
                object(format!("index {index} twice"));
            }
            if last.id == frame.id {
                if !first && last.digest == frame.digest {
                    object(format!("the same view at index {before} and {index}"));
                }
                if frame.version < last.version {
                    object(format!("version {} after {}", frame.version, last.version));
                }
            } else {
                self.tasks.clear();
            }
        }
        for (task, version, state) in &frame.tasks {
            let before = self.tasks.insert(task.clone(), (*version, state.clone()));
            let Some((old, was)) = before else { continue };
            if *version < old {
                object(format!("task {task}: version {version} after {old}"));
            }
            // Of a lost task its node may still say how it ended.
            let ended = rank(&was) == STATES.len() && *state != was && was != LOST;
            if rank(state) < rank(&was) || ended {
                object(format!("task {task}: {state} after {was}"));
            }
        }
        self.last = Some(frame);
        objections
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(index: u64, version: u64, state: &str) -> Frame {
        let tasks = vec![("t".to_owned(), index, state.to_owned())];
        Frame { index, id: "a".to_owned(), version, tasks, digest: index }
    }

    fn problems(frames: &[Frame]) -> usize {
        let mut judge = Judge::new("web");
        frames.iter().flat_map(|frame| judge.feed(frame.clone())).count()
    }

    #[test]
    fn views_that_go_forward_are_fine() {
        let (one, two) = (frame(5, 3, "new"), frame(7, 3, "running"));
        assert_eq!(problems(&[one.clone(), two.clone(), frame(9, 8, "failed")]), 0);
        // The next stream begins with what was last, at least.
        let mut judge = Judge::new("web");
        judge.feed(one);
        judge.feed(two.clone());
        judge.reopened();
        assert_eq!(judge.feed(two), []);
    }

    #[test]
    fn repeats_are_found() {
        assert!(problems(&[frame(5, 3, "new"), frame(5, 3, "new")]) > 0);
        let again = Frame { index: 6, ..frame(5, 3, "new") };
        assert_eq!(problems(&[frame(5, 3, "new"), again]), 1);
    }

    #[test]
    fn steps_back_are_found() {
        assert!(problems(&[frame(5, 3, "new"), frame(4, 3, "new")]) > 0);
        assert_eq!(problems(&[frame(5, 3, "new"), frame(6, 2, "new")]), 1);
        assert_eq!(problems(&[frame(5, 3, "running"), frame(6, 3, "starting")]), 1);
        assert_eq!(problems(&[frame(5, 3, "lost"), frame(6, 3, "running")]), 1);
        assert_eq!(problems(&[frame(5, 3, "failed"), frame(6, 3, "complete")]), 1);
        assert_eq!(problems(&[frame(5, 3, "lost"), frame(6, 3, "shutdown")]), 0, "settled late");
        let mut judge = Judge::new("web");
        judge.feed(frame(9, 3, "new"));
        judge.reopened();
        assert_eq!(judge.feed(frame(8, 3, "new")).len(), 2, "the index and the task's version");
    }
}
