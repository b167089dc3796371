//! Files of settings as units read them (`EnvironmentFile=`).

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use cluster_daemon::fsx;

/// Secrets pass through the file.
const MODE: u32 = 0o600;
/// The first words of files of ours.
const MARK: &str = "# Written by `";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot create the folder {}", path.display())]
    Folder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write the settings")]
    Write(#[from] fsx::Error),
    #[error("cannot remove {}", path.display())]
    Remove {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the setting {name} has a line break or another control character")]
    Control { name: String },
}

/// Names and values, in order.
pub type Settings = Vec<(String, String)>;

/// The bytes of the file, if there is one.
pub fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

/// Whether a file's text was written here, by whatever command.
pub fn is_ours(text: &str) -> bool {
    text.starts_with(MARK)
}

/// Replaces the file in one step; `command` is named in it.
pub fn write(path: &Path, command: &str, settings: &[(String, String)]) -> Result<(), Error> {
    let mut text = format!(
        "{MARK}{command}`; do not edit: your own settings belong into /etc/default, which wins.\n"
    );
    for (name, value) in settings {
        if value.chars().any(char::is_control) {
            return Err(Error::Control { name: name.clone() });
        }
        text.push_str(&format!("{name}={}\n", quoted(value)));
    }
    restore(path, &text)
}

/// Writes what [`read`] gave.
pub fn restore(path: &Path, text: &str) -> Result<(), Error> {
    if let Some(folder) = path.parent() {
        let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(folder);
        made.map_err(|source| Error::Folder { path: folder.to_owned(), source })?;
    }
    Ok(fsx::write_atomic(path, text.as_bytes(), MODE)?)
}

/// Removes it; one that is gone is fine.
pub fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Ok(()) => Ok(fsx::sync_dir(path.parent().unwrap_or(Path::new("/")))?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::Remove { path: path.to_owned(), source }),
    }
}

fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./:,=@%+-[]".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    let mut text = String::from('"');
    for c in value.chars() {
        if matches!(c, '"' | '\\' | '$' | '`') {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('"');
    text
}

/// The settings of a file's text, as systemd reads them: what is commented out does not count.
pub fn parse(text: &str) -> Settings {
    let lines = text.lines().map(str::trim_start).filter(|line| !line.starts_with(['#', ';']));
    lines
        .filter_map(|line| {
            let (name, value) = line.split_once('=')?;
            Some((name.trim().to_owned(), unquoted(value.trim())))
        })
        .collect()
}

fn unquoted(value: &str) -> String {
    let mut text = String::new();
    let (mut quote, mut chars) = (None, value.chars());
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (Some('\''), c) => text.push(c),
            (_, '\\') => text.extend(chars.next()),
            (_, c) => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_written_is_read_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("etc/x.env");
        let values = ["plain-1.0:7100", "two words", "a\"b\\c$d`e", "", "rack=a"];
        let settings: Settings = values
            .iter()
            .enumerate()
            .map(|(number, value)| (format!("N{number}"), (*value).to_owned()))
            .collect();
        write(&path, "x join", &settings).unwrap();
        let text = read(&path).unwrap().unwrap();
        assert!(is_ours(&text));
        assert_eq!(parse(&text), settings);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(read(&path).unwrap(), None);
        let broken = [("N".to_owned(), "a\nb".to_owned())];
        assert!(matches!(write(&path, "x join", &broken), Err(Error::Control { .. })));
    }

    #[test]
    fn users_files_are_read_as_systemd_reads_them() {
        let text = "# A=1\n;B=2\n  C = 'x y' \nD=\"p\\\"q\"\nE=a\\ b\nno setting\n";
        let expected = [("C", "x y"), ("D", "p\"q"), ("E", "a b")];
        let expected: Settings =
            expected.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        assert_eq!(parse(text), expected);
        assert!(!is_ours(text));
    }
}
