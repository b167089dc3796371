//! systemd through its programs. Every question has a bound.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A daemon that stops gets 90 s from systemd before it is killed.
const ANSWER_MAX: Duration = Duration::from_secs(100);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Of what a daemon said last.
const LINES_MAX: &str = "20";
const OUTPUT_MAX: u64 = 64 * 1024;
const PROPERTIES: &str = "LoadState,ActiveState,SubState,StatusText,MainPID,InvocationID,NRestarts";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "there is no systemd here ({program} cannot be run): start {unit} yourself with the options of \
         `{unit} --help`, or use a machine with systemd"
    )]
    Missing {
        program: String,
        unit: String,
        #[source]
        source: io::Error,
    },
    #[error(
        "this system was not booted with systemd, so no unit can be started: start {unit} yourself with \
         the options of `{unit} --help`"
    )]
    NotBooted { unit: String },
    #[error("`{command}` failed: {said}")]
    Failed { command: String, said: String },
    #[error("`{command}` did not end within {} s", ANSWER_MAX.as_secs())]
    Slow { command: String },
}

/// The programs to call.
#[derive(Clone, Debug)]
pub struct Systemd {
    systemctl: OsString,
    journalctl: OsString,
}

/// What systemd says of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitState {
    /// `loaded`, `not-found`, …
    pub load: String,
    /// `active`, `activating`, `inactive`, `failed`, …
    pub active: String,
    pub sub: String,
    /// What the daemon says of itself.
    pub status: String,
    pub pid: u32,
    /// This start of it.
    pub invocation: String,
    pub restarts: u32,
}

impl UnitState {
    pub fn is_active(&self) -> bool {
        self.active == "active"
    }

    /// It failed, and systemd waits before it starts it again.
    pub fn waits_for_restart(&self) -> bool {
        self.sub == "auto-restart"
    }
}

impl Default for Systemd {
    fn default() -> Self {
        Self::at("systemctl", "journalctl")
    }
}

impl Systemd {
    pub fn at(systemctl: impl Into<OsString>, journalctl: impl Into<OsString>) -> Self {
        Self { systemctl: systemctl.into(), journalctl: journalctl.into() }
    }

    pub fn state(&self, unit: &str) -> Result<UnitState, Error> {
        let text = self.call(unit, &["show", unit, "--property", PROPERTIES])?;
        Ok(parse(&text))
    }

    pub fn enable(&self, unit: &str) -> Result<(), Error> {
        self.call(unit, &["enable", unit]).map(drop)
    }

    /// Begins the start; [`Systemd::state`] shows what becomes of it.
    pub fn start(&self, unit: &str) -> Result<(), Error> {
        // After failures in a row systemd would refuse.
        let _ = self.call(unit, &["reset-failed", unit]);
        self.call(unit, &["start", "--no-block", unit]).map(drop)
    }

    /// Ends it; also a start that systemd would make by itself.
    pub fn stop(&self, unit: &str) -> Result<(), Error> {
        self.call(unit, &["stop", unit]).map(drop)
    }

    /// Stops it and takes it out of the boot.
    pub fn disable(&self, unit: &str) -> Result<(), Error> {
        self.call(unit, &["disable", "--now", unit])?;
        // Only so that it is not listed as failed.
        let _ = self.call(unit, &["reset-failed", unit]);
        Ok(())
    }

    /// What the unit logged last in this start of it, as far as that can be read.
    pub fn last_words(&self, unit: &str, invocation: &str) -> Vec<String> {
        let this = format!("_SYSTEMD_INVOCATION_ID={invocation}");
        let mut arguments = vec!["--no-pager", "-o", "cat", "-n", LINES_MAX, "-u", unit];
        if !invocation.is_empty() {
            arguments.push(&this);
        }
        match run(&self.journalctl, &arguments) {
            Ok((_, out, _)) => out.lines().map(str::to_owned).collect(),
            Err(_) => Vec::new(),
        }
    }

    fn call(&self, unit: &str, arguments: &[&str]) -> Result<String, Error> {
        let command = || format!("{} {}", self.systemctl.to_string_lossy(), arguments.join(" "));
        let (status, out, err) = match run(&self.systemctl, arguments) {
            Ok(ran) => ran,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(Error::Slow { command: command() });
            }
            Err(source) => {
                let program = self.systemctl.to_string_lossy().into_owned();
                return Err(Error::Missing { program, unit: bare(unit), source });
            }
        };
        if status.success() {
            return Ok(out);
        }
        if err.contains("not been booted with systemd") || err.contains("Failed to connect to bus")
        {
            return Err(Error::NotBooted { unit: bare(unit) });
        }
        Err(Error::Failed { command: command(), said: err.trim().replace('\n', "; ") })
    }
}

fn bare(unit: &str) -> String {
    unit.trim_end_matches(".service").to_owned()
}

fn parse(text: &str) -> UnitState {
    let value = |name: &str| -> String {
        let lines = text.lines().filter_map(|line| line.split_once('='));
        lines
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
            .next()
            .unwrap_or_default()
    };
    UnitState {
        load: value("LoadState"),
        active: value("ActiveState"),
        sub: value("SubState"),
        status: value("StatusText"),
        pid: value("MainPID").parse().unwrap_or(0),
        invocation: value("InvocationID"),
        restarts: value("NRestarts").parse().unwrap_or(0),
    }
}

/// Runs a program to its end, or kills it at the bound.
fn run(program: &OsStr, arguments: &[&str]) -> io::Result<(ExitStatus, String, String)> {
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let out = thread::spawn(move || all_of(out));
    let err = thread::spawn(move || all_of(err));
    let deadline = Instant::now() + ANSWER_MAX;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::sleep(LOOK_EVERY);
    };
    let joined = |reader: thread::JoinHandle<String>| reader.join().unwrap_or_default();
    Ok((status, joined(out), joined(err)))
}

fn all_of(stream: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        // What was read until it broke is still worth showing.
        let _ = stream.take(OUTPUT_MAX).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_unit_is_said_to_be() {
        let state = parse(
            "LoadState=loaded\nActiveState=activating\nSubState=start\nStatusText=joining a=b\n\
             MainPID=12\nInvocationID=ab\nNRestarts=3\n",
        );
        assert_eq!((state.load.as_str(), state.pid, state.restarts), ("loaded", 12, 3));
        assert_eq!(state.status, "joining a=b");
        assert!(!state.is_active());
    }

    #[test]
    fn a_machine_without_systemd_is_told_what_to_do() {
        let error = Systemd::at("/nonexistent", "/nonexistent").state("x.service").unwrap_err();
        assert!(error.to_string().contains("`x --help`"), "{error}");
        assert_eq!(Systemd::at("/nonexistent", "/nonexistent").last_words("x", ""), [""; 0]);
    }
}
