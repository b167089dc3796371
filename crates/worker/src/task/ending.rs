//! How an attempt ended, in the words of reports. Pure.

use cluster_model::{Observed, StatusReport, TaskId};
use cluster_runtime::{Exit, ExitSource, Signal};

/// What a report says beside the task and the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    pub state: Observed,
    pub error: Option<String>,
    pub exit_code: Option<i32>,
    pub oom: bool,
}

impl Ending {
    /// It never started.
    pub fn rejected(error: String) -> Self {
        Self { state: Observed::Rejected, error: Some(error), exit_code: None, oom: false }
    }

    /// It had started, and nobody can tell how it went on.
    pub fn vanished() -> Self {
        let error = Some("the container has vanished from the node".to_owned());
        Self { state: Observed::Failed, error, exit_code: None, oom: false }
    }

    /// It was ended here for a reason of this node's own; its container may tell a code.
    /// What was ended only because the node is cut off is lost like one whose node is, and costs no
    /// attempt.
    pub fn doomed(why: String, cut_off: bool, exit: Option<&Exit>) -> Self {
        let exit_code = exit.and_then(Exit::shell_code).map(i32::from);
        let state = if cut_off { Observed::Lost } else { Observed::Failed };
        Self { state, error: Some(why), exit_code, oom: false }
    }

    /// It was asked to end and had no container that could have told a code.
    pub fn asked() -> Self {
        Self { state: Observed::Shutdown, error: None, exit_code: None, oom: false }
    }

    /// Its container ended; `asked` says whether the managers wanted that, `started` whether its
    /// command ever ran.
    pub fn of(exit: &Exit, asked: bool, started: bool) -> Self {
        let exit_code = exit.shell_code().map(i32::from);
        let (state, error) = if asked {
            (Observed::Shutdown, None)
        } else if !started {
            let why = format!("the container ended before its command ran: {}", describe(exit));
            (Observed::Rejected, Some(why))
        } else if exit.is_success() {
            (Observed::Complete, None)
        } else {
            (Observed::Failed, Some(describe(exit)))
        };
        Self { state, error, exit_code, oom: exit.oom_killed() }
    }

    pub fn report(self, task: TaskId, at_ms: u64) -> StatusReport {
        let Self { state, error, exit_code, oom } = self;
        let error = error.map(Into::into);
        StatusReport { error, exit_code, oom, ..StatusReport::new(task, state, at_ms) }
    }
}

fn describe(exit: &Exit) -> String {
    if exit.oom_killed() {
        return "out of memory: the kernel killed it".to_owned();
    }
    match (exit.code, exit.signal, exit.source) {
        (Some(code), ..) => format!("exited with code {code}"),
        (None, Some(number), _) => match Signal::new(number) {
            Some(signal) => format!("killed by signal {number} ({signal})"),
            None => format!("killed by signal {number}"),
        },
        (None, None, ExitSource::Reboot) => "the machine was restarted".to_owned(),
        (None, None, ExitSource::ShimLost) => {
            "ended with an unknown code: the process that watched it was killed".to_owned()
        }
        (None, None, _) => "ended with an unknown code".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: Option<u8>, signal: Option<u8>, oom: bool) -> Exit {
        Exit { code, signal, oom, at_unix_ms: 5, source: ExitSource::Observed }
    }

    #[test]
    fn endings_in_words() {
        let cases = [
            (exit(Some(0), None, false), Observed::Complete, "", Some(0)),
            (exit(Some(3), None, false), Observed::Failed, "exited with code 3", Some(3)),
            (
                exit(None, Some(9), false),
                Observed::Failed,
                "killed by signal 9 (SIGKILL)",
                Some(137),
            ),
            (
                exit(None, Some(9), true),
                Observed::Failed,
                "out of memory: the kernel killed it",
                Some(137),
            ),
            (exit(None, None, false), Observed::Failed, "ended with an unknown code", None),
        ];
        for (exit, state, error, code) in cases {
            let ending = Ending::of(&exit, false, true);
            assert_eq!(ending.state, state);
            assert_eq!(ending.error.as_deref().unwrap_or(""), error);
            assert_eq!(ending.exit_code, code);
        }
        let asked = Ending::of(&exit(None, Some(15), false), true, true);
        assert_eq!(
            (asked.state, asked.error, asked.exit_code),
            (Observed::Shutdown, None, Some(143))
        );
        let early = Ending::of(&exit(Some(1), None, false), false, false);
        assert_eq!(early.state, Observed::Rejected);
    }
}
