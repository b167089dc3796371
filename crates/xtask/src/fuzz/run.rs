//! One libFuzzer binary: running it, and reading what it says.

use std::fmt;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cargo;
use crate::phases::seconds;

/// An input that takes longer is a find, like one that panics.
const SLOWEST_S: u32 = 10;
/// Memory of the whole process. Single allocations are bounded by the target itself.
const MEMORY_MB: u32 = 1024;
/// Longer inputs find little more and cost a lot.
const LONGEST: u32 = 16 << 10;
/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);
/// Last lines that are looked through for the reason of a crash.
const TAIL: usize = 60;

pub struct Run<'a> {
    pub name: &'a str,
    pub binary: PathBuf,
    /// Committed inputs.
    pub kept: PathBuf,
    /// What earlier runs on this machine found to reach new code.
    pub found: PathBuf,
    pub crashes: PathBuf,
}

/// How a search ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub runs: u64,
    /// Places of the code that were reached.
    pub coverage: u64,
    pub crash: Option<Crash>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Crash {
    pub input: PathBuf,
    pub why: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.crash.is_some() { "BROKE after" } else { "held for" };
        write!(f, "{word} {} runs, {} places reached", self.runs, self.coverage)
    }
}

impl Run<'_> {
    /// Searches for so long, from the kept inputs and those found before.
    pub fn search(&self, time: Duration) -> Result<Outcome> {
        for folder in [&self.found, &self.crashes, &self.kept] {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        let mut command = Command::new(&self.binary);
        command
            .arg(&self.found)
            .arg(&self.kept)
            .arg(format!("-max_total_time={}", time.as_secs()))
            .arg(format!("-timeout={SLOWEST_S}"))
            .arg(format!("-rss_limit_mb={MEMORY_MB}"))
            .arg(format!("-max_len={LONGEST}"))
            .arg(format!("-artifact_prefix={}/", self.crashes.display()))
            .args(["-print_final_stats=1", "-reload=0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child =
            command.spawn().with_context(|| format!("running {}", self.binary.display()))?;
        let said = child.stderr.take().context("the target's output")?;
        let (mut outcome, mut tail, mut shown) = (Outcome::default(), Vec::new(), Instant::now());
        for line in BufReader::new(said).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            outcome.read(&line);
            if shown.elapsed() >= PROGRESS {
                shown = Instant::now();
                eprintln!(
                    "    {}: {} runs, {} places reached",
                    self.name, outcome.runs, outcome.coverage
                );
            }
            if tail.len() == TAIL {
                tail.remove(0);
            }
            tail.push(line);
        }
        let status = child.wait().context("waiting for the target")?;
        if !status.success() {
            outcome.crash = Some(crash(&tail).with_context(|| {
                format!("{} ended ({status}) without an input:\n{}", self.name, tail.join("\n"))
            })?);
        }
        Ok(outcome)
    }

    /// Moves found inputs that reach new code to the kept ones.
    pub fn keep(&self) -> Result<()> {
        let begin = Instant::now();
        let mut command = Command::new(&self.binary);
        command
            .arg("-merge=1")
            .arg(format!("-max_len={LONGEST}"))
            .args([&self.kept, &self.found])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        cargo::run(&mut command)?;
        let count = fs::read_dir(&self.kept)?.count();
        eprintln!("    {}: {count} inputs kept, {}", self.name, seconds(begin.elapsed()));
        Ok(())
    }
}

/// Gives one input to a target, with all that it says.
pub fn once(binary: &Path, input: &Path) -> Result<()> {
    if !input.is_file() {
        bail!("--input {}: there is no such file", input.display());
    }
    cargo::run(Command::new(binary).arg(format!("-timeout={SLOWEST_S}")).arg(input))
}

impl Outcome {
    /// Takes the numbers of a line such as `#8192 pulse cov: 540 ft: 900 corp: 31/1Kb …` or
    /// `stat::number_of_executed_units: 9000`.
    fn read(&mut self, line: &str) {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("stat::number_of_executed_units:") => {
                self.runs = words.next().and_then(|word| word.parse().ok()).unwrap_or(self.runs);
            }
            Some(first) if first.starts_with('#') => {
                self.runs = first[1..].parse().unwrap_or(self.runs);
                let mut rest = words.skip_while(|word| *word != "cov:").skip(1);
                self.coverage =
                    rest.next().and_then(|word| word.parse().ok()).unwrap_or(self.coverage);
            }
            _ => {}
        }
    }
}

/// Why a target ended, and on which input.
fn crash(tail: &[String]) -> Option<Crash> {
    let marker = "Test unit written to ";
    let input = tail.iter().rev().find_map(|line| line.split_once(marker))?.1.trim();
    let panic = tail.iter().position(|line| line.contains("panicked at"));
    let why = match panic {
        // The place, and the message below it.
        Some(at) => tail[at..tail.len().min(at + 2)].join(" "),
        None => {
            let said = ["an input caused", "ERROR: libFuzzer"];
            let found = tail.iter().find(|line| said.iter().any(|text| line.contains(text)));
            found.cloned().unwrap_or_else(|| "it ended by a signal".to_owned())
        }
    };
    Some(Crash { input: input.into(), why: why.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_libfuzzer_are_read() {
        let mut outcome = Outcome::default();
        for line in [
            "INFO: Seed: 17",
            "#2\tINITED cov: 12 ft: 13 corp: 1/1b exec/s: 0 rss: 33Mb",
            "#8192\tpulse  cov: 540 ft: 900 corp: 31/1Kb lim: 80 exec/s: 4096 rss: 40Mb",
            "stat::number_of_executed_units: 9000",
            "stat::new_units_added:          31",
        ] {
            outcome.read(line);
        }
        assert_eq!((outcome.runs, outcome.coverage), (9000, 540));
        assert_eq!(outcome.to_string(), "held for 9000 runs, 540 places reached");
    }

    #[test]
    fn a_crash_names_its_reason_and_input() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let panic = lines(
            "thread 'main' panicked at crates/x.rs:5:9:\nindex out of bounds\nnote: run\n\
             ==1== ERROR: libFuzzer: deadly signal\n\
             artifact_prefix='/a/'; Test unit written to /a/crash-1\nBase64: YQ==",
        );
        let found = crash(&panic).unwrap();
        assert_eq!(found.input, Path::new("/a/crash-1"));
        assert!(found.why.contains("crates/x.rs:5:9: index out of bounds"), "{}", found.why);
        let slow = lines(
            "==1== ERROR: libFuzzer: timeout after 11 seconds\n\
             artifact_prefix='/a/'; Test unit written to /a/timeout-1",
        );
        assert!(crash(&slow).unwrap().why.contains("timeout"));
        assert_eq!(crash(&lines("nothing of interest")), None);
    }
}
