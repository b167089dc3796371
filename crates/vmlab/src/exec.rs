//! Running programs to their end.

use std::process::{Command, Output, Stdio};

use crate::error::{Error, Result};

/// Runs the command without input; returns what it printed, or an error with what it said.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        return Err(Error::Command {
            shown: shown(command),
            status: output.status,
            said: said(&output),
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

pub(crate) fn output(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null()).output().map_err(|source| Error::Spawn {
        program: command.get_program().to_string_lossy().into_owned(),
        source,
    })
}

/// The end of what a failed program said, on whichever stream.
pub(crate) fn said(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let text =
        if stderr.trim().is_empty() { String::from_utf8_lossy(&output.stdout) } else { stderr };
    tail(&text)
}

/// The last lines of a text, enough to see what went wrong.
pub(crate) fn tail(text: &str) -> String {
    const LINES: usize = 12;
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_says_what_it_said() {
        let error = run(Command::new("sh").args(["-c", "echo no disk >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("no disk") && text.contains("exit status: 3"), "{text}");
    }

    #[test]
    fn the_tail_is_the_last_lines() {
        let long: String = (0..40).map(|n| format!("line {n}\n\n")).collect();
        let tail = tail(&long);
        assert!(tail.starts_with("line 28") && tail.ends_with("line 39"), "{tail}");
    }
}
