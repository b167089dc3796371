//! The one place that prints: data to stdout, talk to stderr.
//!
//! Invariants: a reader of stdout that leaves is a normal end; a reader of stderr that leaves is
//! nobody's loss; colour and cursor movement go to terminals only, and never with `NO_COLOR` set
//! (colour) or `TERM=dumb` (both).

mod table;

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use serde::Serialize;

pub use self::table::{Table, pairs};
use crate::error::{Error, Exit};
use crate::text::one_line;

/// What lists and inspections look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    // For people.
    Table,
    // For programs: stable names, snake_case.
    Json,
}

/// Arguments of everything that shows objects.
#[derive(Clone, Debug, clap::Args)]
pub struct Show {
    /// How to show it: table for people, json for programs
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    pub output: Format,

    /// Print ids only
    #[arg(long, short)]
    pub quiet: bool,

    /// Accept what the asked manager knows, which may be a little old, without asking the leader
    #[arg(long)]
    pub stale: bool,
}

struct Stream {
    to: Box<dyn Write>,
    terminal: bool,
    color: bool,
}

pub struct Printer {
    out: Stream,
    err: Stream,
    /// Lines of the live picture now on the terminal.
    drawn: usize,
}

impl Printer {
    pub fn for_process() -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let color = !set("NO_COLOR") && !dumb;
        let stream = |to: Box<dyn Write>, terminal: bool| Stream {
            to,
            terminal: terminal && !dumb,
            color: color && terminal,
        };
        Self {
            out: stream(Box::new(io::stdout()), io::stdout().is_terminal()),
            err: stream(Box::new(io::stderr()), io::stderr().is_terminal()),
            drawn: 0,
        }
    }

    /// Prints into the given writers.
    #[cfg(test)]
    pub fn to(out: Box<dyn Write>, err: Box<dyn Write>, terminal: bool) -> Self {
        let stream = |to| Stream { to, terminal, color: terminal };
        Self { out: stream(out), err: stream(err), drawn: 0 }
    }

    /// Whether a person looks at stderr, so that lines may be drawn over.
    pub fn is_live(&self) -> bool {
        self.err.terminal
    }

    /// One line of data.
    pub fn data(&mut self, line: &str) -> Result<(), Error> {
        self.raw(format!("{line}\n").as_bytes())
    }

    /// Bytes of data as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = self.out.to.write_all(bytes).and_then(|()| self.out.to.flush());
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Error::reader_left(),
            _ => Error::refused("writing to stdout").cause(error.to_string()),
        })
    }

    /// What a container wrote to its stderr.
    pub fn raw_err(&mut self, bytes: &[u8]) {
        let _ = self.err.to.write_all(bytes).and_then(|()| self.err.to.flush());
    }

    pub fn json(&mut self, value: &impl Serialize) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Error::refused("encoding JSON").cause(error.to_string()))?;
        self.data(&text)
    }

    pub fn table(&mut self, table: &Table) -> Result<(), Error> {
        self.raw(table.to_string().as_bytes())
    }

    /// One line of talk. Replaces the live picture, if there is one.
    pub fn say(&mut self, line: &str) {
        self.drawn = 0;
        let _ = writeln!(self.err.to, "{line}");
    }

    /// Draws lines over those drawn before.
    pub fn draw(&mut self, lines: &[String]) {
        let mut text = String::new();
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A", self.drawn));
        }
        // Long lines are cut, not wrapped: otherwise the way back up would be unknown.
        text.push_str("\r\x1b[J\x1b[?7l");
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str("\x1b[?7h");
        self.drawn = lines.len();
        let _ = self.err.to.write_all(text.as_bytes()).and_then(|()| self.err.to.flush());
    }

    pub fn error(&mut self, error: &Error) {
        if error.exit == Exit::ReaderLeft {
            return;
        }
        let code = error.code.map(|code| format!("[{}]", code.as_str())).unwrap_or_default();
        let (red, cyan, plain) =
            if self.err.color { ("\x1b[1;31m", "\x1b[1;36m", "\x1b[0m") } else { ("", "", "") };
        let mut text = format!("{red}error{code}{plain}: {}\n", one_line(&error.message));
        for cause in &error.causes {
            text.push_str(&format!("  cause: {}\n", one_line(cause)));
        }
        if let Some(hint) = error.hint.as_ref().filter(|hint| !hint.is_empty()) {
            text.push_str(&format!("{cyan}hint{plain}: {}\n", one_line(hint)));
        }
        self.drawn = 0;
        let _ = self.err.to.write_all(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use cluster_wire::Code;

    use super::*;
    use crate::testing::Captured;

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_leaves_is_a_normal_end() {
        let err = Captured::default();
        let mut printer = Printer::to(Box::new(Closed), Box::new(err.clone()), false);
        let error = printer.data("x").unwrap_err();
        assert_eq!(error.exit.code(), 0);
        printer.error(&error);
        assert_eq!(err.text(), "");
    }

    #[test]
    fn errors_have_code_causes_and_hint() {
        let (mut printer, out, err) = Captured::printer(false);
        let mut error = Error::refused("port 80 is taken").cause("by web").hint("take another");
        error.code = Some(Code::PortTaken);
        printer.error(&error);
        assert_eq!(
            err.text(),
            "error[E0104]: port 80 is taken\n  cause: by web\nhint: take another\n"
        );
        assert_eq!(out.text(), "");
    }

    #[test]
    fn the_live_picture_is_drawn_over_itself() {
        let (mut printer, _, err) = Captured::printer(true);
        printer.draw(&["a".to_owned(), "b".to_owned()]);
        printer.draw(&["c".to_owned()]);
        assert_eq!(err.text(), "\r\x1b[J\x1b[?7la\nb\n\x1b[?7h\x1b[2A\r\x1b[J\x1b[?7lc\n\x1b[?7h");
    }
}
