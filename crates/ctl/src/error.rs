//! A failure as the user sees it: what went wrong, why, what to do next, and the exit code.

use std::fmt;

use cluster_wire::Code;
use cluster_wire::error::{code_of, hint_of};
use tonic::Status;

/// How the program ends. The numbers are promised to scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Refused, not found, or did not converge.
    Refused,
    /// The command line cannot be right.
    Usage,
    /// No manager can be reached, or the managers have no leader.
    Unreachable,
    /// No answer, or no convergence, in time.
    TimedOut,
    /// Whoever read our output has left: not an error, and nothing is said.
    ReaderLeft,
}

impl Exit {
    pub fn code(self) -> i32 {
        match self {
            Exit::ReaderLeft => 0,
            Exit::Refused => 1,
            Exit::Usage => 2,
            Exit::Unreachable => 3,
            Exit::TimedOut => 4,
        }
    }
}

/// Printed as `error[E0104]: message`, the causes, `hint: …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub exit: Exit,
    pub code: Option<Code>,
    pub message: String,
    pub causes: Vec<String>,
    pub hint: Option<String>,
}

impl Error {
    fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, code: None, message: message.into(), causes: Vec::new(), hint: None }
    }

    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(Exit::Refused, message)
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub fn unreachable(message: impl Into<String>) -> Self {
        Self::new(Exit::Unreachable, message)
    }

    pub fn timed_out(message: impl Into<String>) -> Self {
        Self::new(Exit::TimedOut, message)
    }

    pub fn reader_left() -> Self {
        Self::new(Exit::ReaderLeft, "the reader of our output has left")
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// A library's error with everything behind it.
    pub fn caused(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut report = Self::refused(error.to_string());
        let behind = std::iter::successors(error.source(), |error| error.source());
        report.causes.extend(behind.map(ToString::to_string));
        report
    }

    /// What a manager answered.
    pub fn from_status(status: &Status) -> Self {
        let code = code_of(status);
        let exit = match (code, status.code()) {
            (Some(Code::NoLeader | Code::Stopping), _) => Exit::Unreachable,
            (Some(Code::UnknownOutcome), _) => Exit::TimedOut,
            (Some(_), _) => Exit::Refused,
            (None, tonic::Code::Unavailable) => Exit::Unreachable,
            (None, tonic::Code::DeadlineExceeded) => Exit::TimedOut,
            (None, _) => Exit::Refused,
        };
        let message = match status.message() {
            "" => format!("the manager answered: {}", status.code()),
            text => text.to_owned(),
        };
        Self { exit, code, message, causes: Vec::new(), hint: hint_of(status) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use cluster_wire::Failure;

    use super::*;

    #[test]
    fn a_status_keeps_code_and_hint() {
        let error = Error::from_status(&Failure::new(Code::PortTaken, "port 80 is taken").into());
        assert_eq!((error.exit, error.code), (Exit::Refused, Some(Code::PortTaken)));
        assert!(error.hint.unwrap().contains("another port"));
    }

    #[test]
    fn exit_codes_tell_scripts_what_kind_it_was() {
        let exit = |code| Error::from_status(&Failure::new(code, "x").into()).exit.code();
        assert_eq!(exit(Code::NotFound), 1);
        assert_eq!(exit(Code::InvalidField), 1);
        assert_eq!(exit(Code::NoLeader), 3);
        assert_eq!(exit(Code::UnknownOutcome), 4);
        assert_eq!(Error::from_status(&Status::unavailable("gone")).exit.code(), 3);
    }
}
