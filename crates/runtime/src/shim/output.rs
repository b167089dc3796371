//! Output of the container: from two FIFOs into one log file, line by line, rotated.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::logs::{MAX_TEXT, OutputStream, encode_record};
use crate::process::unix_nanos;
use crate::shim::files::Folder;
use crate::spec::LogRotation;

/// Bytes taken from a FIFO at once; a turn of the loop is bounded by it.
const CHUNK: usize = 16 << 10;

/// Everything the shim does with output.
pub struct Output {
    pipes: [Pipe; 2],
    log: LogFile,
}

struct Pipe {
    stream: OutputStream,
    path: PathBuf,
    reader: File,
    /// The line under way, at most [`MAX_TEXT`] long.
    line: Vec<u8>,
}

struct LogFile {
    folder: Folder,
    rotation: LogRotation,
    file: File,
    size: u64,
    /// The last write stopped half-way.
    torn: bool,
    /// Output that could not be kept was reported.
    complained: bool,
}

impl Output {
    /// Opens FIFOs and log, making what is not there yet: an adopting shim goes on where the lost
    /// one stopped.
    pub fn open(folder: &Folder, rotation: LogRotation) -> io::Result<Self> {
        let pipe = |name: &str, stream| {
            let path = folder.join(name);
            match mkfifo(&path, Mode::from_bits_truncate(0o600)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(io::Error::from(errno)),
            }
            let reader = open_fifo(&path, true)?;
            Ok(Pipe { stream, path, reader, line: Vec::new() })
        };
        Ok(Self {
            pipes: [pipe("out", OutputStream::Stdout)?, pipe("err", OutputStream::Stderr)?],
            log: LogFile::open(folder.clone(), rotation)?,
        })
    }

    /// Descriptors to poll for input.
    pub fn readers(&self) -> [BorrowedFd<'_>; 2] {
        [self.pipes[0].reader.as_fd(), self.pipes[1].reader.as_fd()]
    }

    /// Fresh write ends for stdout and stderr of the container.
    pub fn writers(&self) -> io::Result<[File; 2]> {
        Ok([open_fifo(&self.pipes[0].path, false)?, open_fifo(&self.pipes[1].path, false)?])
    }

    /// Takes one chunk from one FIFO into the log; `false` when it was empty.
    pub fn pump(&mut self, index: usize) -> io::Result<bool> {
        let mut chunk = [0; CHUNK];
        let pipe = &mut self.pipes[index];
        let length = match pipe.reader.read(&mut chunk) {
            Ok(0) => return Ok(false),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(error) => return Err(error),
        };
        let records = pipe.take(&chunk[..length]);
        self.log.keep(&records);
        Ok(true)
    }

    /// Takes all there is, and what is left of unfinished lines. Called when every writer is gone.
    pub fn finish(&mut self) -> io::Result<()> {
        for index in 0..self.pipes.len() {
            while self.pump(index)? {}
            let pipe = &mut self.pipes[index];
            if !pipe.line.is_empty() {
                let mut record = Vec::new();
                encode_record(unix_nanos(), pipe.stream, true, &pipe.line, &mut record);
                pipe.line.clear();
                self.log.keep(&record);
            }
        }
        Ok(())
    }
}

impl Pipe {
    /// Splits what was read into records; keeps the unfinished line.
    fn take(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let now = unix_nanos();
        let mut records = Vec::with_capacity(bytes.len() + 64);
        while !bytes.is_empty() {
            let room = MAX_TEXT - self.line.len();
            let end = bytes.iter().take(room + 1).position(|byte| *byte == b'\n');
            match end {
                Some(end) if self.line.is_empty() => {
                    encode_record(now, self.stream, false, &bytes[..end], &mut records);
                    bytes = &bytes[end + 1..];
                }
                Some(end) => {
                    self.line.extend_from_slice(&bytes[..end]);
                    encode_record(now, self.stream, false, &self.line, &mut records);
                    self.line.clear();
                    bytes = &bytes[end + 1..];
                }
                None if bytes.len() > room => {
                    self.line.extend_from_slice(&bytes[..room]);
                    encode_record(now, self.stream, true, &self.line, &mut records);
                    self.line.clear();
                    bytes = &bytes[room..];
                }
                None => {
                    self.line.extend_from_slice(bytes);
                    break;
                }
            }
        }
        records
    }
}

impl LogFile {
    fn open(folder: Folder, rotation: LogRotation) -> io::Result<Self> {
        let mut file = Self::append(&folder)?;
        let mut size = file.metadata()?.len();
        // A lost shim may have left half a record; end it so that the next one stands alone.
        if size > 0 && !ends_with_newline(&folder, size)? {
            file.write_all(b"\n")?;
            size += 1;
        }
        Ok(Self { folder, rotation, file, size, torn: false, complained: false })
    }

    fn append(folder: &Folder) -> io::Result<File> {
        OpenOptions::new().append(true).create(true).mode(0o600).open(folder.log(0))
    }

    /// Writes, or drops what a full disk does not take: the container must not stop for its log.
    fn keep(&mut self, records: &[u8]) {
        if let Err(error) = self.write(records) {
            self.torn = true;
            if !std::mem::replace(&mut self.complained, true) {
                let _ =
                    writeln!(io::stderr(), "output is lost, the log cannot be written: {error}");
            }
        }
    }

    fn write(&mut self, records: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + records.len() as u64 > self.rotation.max_bytes {
            self.rotate()?;
        }
        if self.torn {
            self.file.write_all(b"\n")?;
            self.torn = false;
        }
        self.file.write_all(records)?;
        self.size += records.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let kept = self.rotation.max_files.saturating_sub(1);
        for age in (0..kept).rev() {
            match fs::rename(self.folder.log(age), self.folder.log(age + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if kept == 0 {
            fs::remove_file(self.folder.log(0))?;
        }
        self.file = Self::append(&self.folder)?;
        self.size = 0;
        Ok(())
    }
}

fn ends_with_newline(folder: &Folder, size: u64) -> io::Result<bool> {
    use std::os::unix::fs::FileExt;
    let mut last = [0];
    File::open(folder.log(0))?.read_exact_at(&mut last, size - 1)?;
    Ok(last == *b"\n")
}

/// Opened for both directions, so that neither side ever sees the other gone.
fn open_fifo(path: &std::path::Path, nonblocking: bool) -> io::Result<File> {
    let flags = if nonblocking { nix::libc::O_NONBLOCK } else { 0 };
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::LogLine;

    fn lines(folder: &Folder, age: u32) -> Vec<LogLine> {
        let text = fs::read(folder.log(age)).expect("log");
        text.split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| LogLine::decode(line).expect("record"))
            .collect()
    }

    #[test]
    fn lines_are_joined_split_and_finished() {
        let dir = tempfile::tempdir().expect("dir");
        let folder = Folder::new(dir.path());
        let mut output = Output::open(&folder, LogRotation::default()).expect("open");
        let [mut out, mut err] = output.writers().expect("writers");
        out.write_all(b"a\nb").expect("write");
        assert!(output.pump(0).expect("pump"));
        out.write_all(b"c\n\nrest").expect("write");
        err.write_all(&vec![b'x'; MAX_TEXT + 5]).expect("write");
        err.write_all(b"\n").expect("write");
        output.finish().expect("finish");
        let lines = lines(&folder, 0);
        let seen: Vec<_> =
            lines.iter().map(|line| (line.stream, line.partial, line.text.len())).collect();
        use OutputStream::{Stderr, Stdout};
        assert_eq!(
            seen,
            [
                (Stdout, false, 1),
                (Stdout, false, 2),
                (Stdout, false, 0),
                (Stdout, true, 4),
                (Stderr, true, MAX_TEXT),
                (Stderr, false, 5)
            ]
        );
        assert_eq!(lines[1].text, b"bc");
    }

    #[test]
    fn old_files_are_dropped_and_a_torn_record_is_ended() {
        let dir = tempfile::tempdir().expect("dir");
        let folder = Folder::new(dir.path());
        let rotation = LogRotation { max_bytes: 4096, max_files: 2 };
        for round in 0..20 {
            // Opened anew each round, as after a lost shim.
            let mut output = Output::open(&folder, rotation).expect("open");
            let [mut out, _] = output.writers().expect("writers");
            out.write_all(format!("{round} {}\n", "y".repeat(1000)).as_bytes()).expect("write");
            output.finish().expect("finish");
        }
        assert!(!folder.log(2).exists());
        assert!(fs::metadata(folder.log(0)).expect("log").len() <= 4096);
        assert!(lines(&folder, 0).last().expect("line").text.starts_with(b"19 "));
        fs::write(folder.log(0), b"2000-01-01T00:00").expect("tear");
        let mut output = Output::open(&folder, rotation).expect("open");
        output.writers().expect("writers")[0].write_all(b"whole\n").expect("write");
        output.finish().expect("finish");
        let text = fs::read(folder.log(0)).expect("log");
        let last = text.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty()).expect("line");
        assert_eq!(LogLine::decode(last).expect("record").text, b"whole");
    }
}
