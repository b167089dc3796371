//! What was applied here lately, by content.
//!
//! A proposer whose leader died before it answered sends its command to the next leader. If the
//! first one made it into the log after all, the second is refused, since commands are guarded by
//! the ids and versions they carry; the true answer is then that of the first, and is found here.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::types::Response;

/// Commands that are remembered: far more than are applied while a proposer waits.
const KEPT: usize = 4096;

#[derive(Default)]
pub(crate) struct Recent(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    commands: VecDeque<Command>,
    /// Commands up to this index may be missing.
    complete_after: u64,
}

struct Command {
    index: u64,
    print: u64,
    response: Response,
}

fn print(body: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    hasher.finish()
}

impl Recent {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A command was applied.
    pub(crate) fn add(&self, index: u64, body: &[u8], response: &Response) {
        let command = Command { index, print: print(body), response: response.clone() };
        let mut kept = self.kept();
        if kept.commands.len() == KEPT
            && let Some(oldest) = kept.commands.pop_front()
        {
            kept.complete_after = oldest.index;
        }
        kept.commands.push_back(command);
    }

    /// The state jumped to an index without applying what led there.
    pub(crate) fn jump(&self, index: u64) {
        *self.kept() = Kept { commands: VecDeque::new(), complete_after: index };
    }

    /// Index and answer of the first such command after index `since`; none if there was none, or
    /// if it may have been forgotten.
    pub(crate) fn first(&self, since: u64, body: &[u8]) -> Option<(u64, Response)> {
        let print = print(body);
        let kept = self.kept();
        if kept.complete_after > since {
            return None;
        }
        let mut later = kept.commands.iter().filter(|command| command.index > since);
        let found = later.find(|command| command.print == print)?;
        Some((found.index, found.response.clone()))
    }
}

#[cfg(test)]
mod tests {
    use cluster_model::{Refusal, Reply};

    use super::*;

    fn done() -> Response {
        Response(Some(Ok(Reply::Done)))
    }

    fn refused() -> Response {
        Response(Some(Err(Refusal::IdTaken("x".into()))))
    }

    #[test]
    fn the_first_of_equal_commands_tells_the_fate() {
        let recent = Recent::default();
        recent.add(1, b"a", &done());
        recent.add(2, b"b", &done());
        recent.add(3, b"a", &refused());
        assert_eq!(recent.first(0, b"a"), Some((1, done())));
        assert_eq!(recent.first(1, b"a"), Some((3, refused())));
        assert_eq!(recent.first(0, b"c"), None);
    }

    #[test]
    fn nothing_is_said_of_what_may_be_forgotten() {
        let recent = Recent::default();
        for index in 1..=KEPT as u64 + 1 {
            recent.add(index, b"a", &done());
        }
        assert_eq!(recent.first(0, b"a"), None);
        assert_eq!(recent.first(1, b"a"), Some((2, done())));
        recent.jump(9000);
        assert_eq!(recent.first(8999, b"a"), None);
        recent.add(9001, b"a", &done());
        assert_eq!(recent.first(9000, b"a"), Some((9001, done())));
    }
}
