//! Telling qemu what to do: its machine protocol, one JSON object per line.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::error::{Error, Result};

/// Longer than qemu takes to close its disks.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Events may come between a command and its answer, but not without end.
const MOST_LINES: usize = 100;

/// Ends qemu at once, as a power cut ends a machine: the guest is told nothing.
pub(crate) fn quit(machine: &str, socket: &Path) -> Result<()> {
    let failed = |reason: String| Error::Control { machine: machine.to_owned(), reason };
    let stream = UnixStream::connect(socket)
        .map_err(|error| failed(format!("connecting to {}: {error}", socket.display())))?;
    stream
        .set_read_timeout(Some(ANSWER_WITHIN))
        .map_err(|error| failed(format!("setting a timeout: {error}")))?;
    let mut input = BufReader::new(&stream);
    for command in ["qmp_capabilities", "quit"] {
        let line = format!("{}\n", json!({ "execute": command }));
        (&stream)
            .write_all(line.as_bytes())
            .map_err(|error| failed(format!("sending {command}: {error}")))?;
        answer(&mut input).map_err(|reason| failed(format!("{command}: {reason}")))?;
    }
    Ok(())
}

/// Reads until the answer to a command; the greeting and events are passed over.
fn answer(input: &mut impl BufRead) -> Result<(), String> {
    for _ in 0..MOST_LINES {
        let mut line = String::new();
        let read = input.read_line(&mut line).map_err(|error| error.to_string())?;
        if read == 0 {
            return Err("qemu closed the connection".to_owned());
        }
        let value: Value = serde_json::from_str(&line)
            .map_err(|error| format!("{error} in {}", line.trim_end()))?;
        if let Some(error) = value.get("error") {
            return Err(error["desc"].as_str().unwrap_or("refused").to_owned());
        }
        if value.get("return").is_some() {
            return Ok(());
        }
    }
    Err("no answer among many events".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings_and_events_are_passed_over() {
        let mut text = "{\"QMP\": {}}\n{\"event\": \"RESUME\"}\n{\"return\": {}}\n".as_bytes();
        assert_eq!(answer(&mut text), Ok(()));
    }

    #[test]
    fn a_refusal_says_why() {
        let mut text = "{\"error\": {\"class\": \"X\", \"desc\": \"not now\"}}\n".as_bytes();
        assert_eq!(answer(&mut text), Err("not now".to_owned()));
    }

    #[test]
    fn an_end_and_nonsense_are_errors() {
        assert!(answer(&mut "".as_bytes()).unwrap_err().contains("closed"));
        assert!(answer(&mut "hello\n".as_bytes()).unwrap_err().contains("hello"));
    }
}
