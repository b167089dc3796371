//! `--env KEY=VALUE`, `--env KEY` (taken from this program's own environment), `--env-file`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use cluster_model::validate::ENVIRONMENT_BYTES_MAX;

use super::shown;
use crate::error::Error;

/// A whole environment as `KEY=VALUE`, files first; a key that comes again replaces the earlier.
pub fn collect(
    files: &[impl AsRef<Path>],
    pairs: &[String],
    own: impl Fn(&str) -> Option<String>,
) -> Result<Vec<String>, Error> {
    let mut all: Vec<String> = Vec::new();
    for file in files {
        for line in lines(file.as_ref())? {
            let flag = format!("--env-file {}", file.as_ref().display());
            put(&mut all, resolve(&line, &flag, &own)?);
        }
    }
    for pair in pairs {
        put(&mut all, resolve(pair, "--env", &own)?);
    }
    let bytes: usize = all.iter().map(|pair| pair.len() + 1).sum();
    if bytes > ENVIRONMENT_BYTES_MAX {
        return Err(Error::usage(format!(
            "--env and --env-file: the environment is {bytes} bytes, more than {ENVIRONMENT_BYTES_MAX}"
        ))
        .hint("put large data in a file and mount it with --mount"));
    }
    Ok(all)
}

/// Adds a pair; the key's earlier pair goes, its place stays.
pub fn put(all: &mut Vec<String>, pair: String) {
    let key = key_of(&pair).to_owned();
    match all.iter_mut().find(|other| key_of(other) == key) {
        Some(other) => *other = pair,
        None => all.push(pair),
    }
}

pub fn key_of(pair: &str) -> &str {
    pair.split_once('=').map_or(pair, |(key, _)| key)
}

fn resolve(text: &str, flag: &str, own: &impl Fn(&str) -> Option<String>) -> Result<String, Error> {
    if key_of(text).is_empty() {
        return Err(Error::usage(format!("{flag}: `{}` has no key; write KEY=VALUE", shown(text))));
    }
    if text.contains('=') {
        return Ok(text.to_owned());
    }
    own(text).map(|value| format!("{text}={value}")).ok_or_else(|| {
        Error::usage(format!("{flag}: `{}` is not set in this environment", shown(text)))
            .hint(format!("write {}=VALUE, or set it before", shown(text)))
    })
}

/// The lines of an environment file without comments and empty ones.
fn lines(path: &Path) -> Result<Vec<String>, Error> {
    let flag = format!("--env-file {}", path.display());
    let mut bytes = Vec::new();
    // One byte more than allowed shows that there is too much, whatever the file is.
    let limit = u64::try_from(ENVIRONMENT_BYTES_MAX).unwrap_or(u64::MAX) * 4 + 1;
    File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(
        |error| Error::usage(format!("{flag}: cannot be read")).cause(error.to_string()),
    )?;
    if bytes.len() as u64 == limit {
        return Err(Error::usage(format!("{flag}: is longer than {} bytes", limit - 1))
            .hint("put large data in a file and mount it with --mount"));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::usage(format!("{flag}: is not text in UTF-8")))?;
    let kept = text.lines().map(|line| line.trim_start().trim_end_matches('\r'));
    Ok(kept.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const NO_FILES: &[&str] = &[];

    fn own(key: &str) -> Option<String> {
        (key == "HOME").then(|| "/root".to_owned())
    }

    fn pairs(pairs: &[&str]) -> Result<Vec<String>, Error> {
        let owned: Vec<String> = pairs.iter().map(|pair| (*pair).to_owned()).collect();
        collect(NO_FILES, &owned, own)
    }

    #[test]
    fn keys_alone_come_from_our_own_environment() {
        assert_eq!(pairs(&["A=1", "HOME", "A=2=3"]).unwrap(), ["A=2=3", "HOME=/root"]);
        let error = pairs(&["NOPE"]).unwrap_err();
        assert_eq!(error.exit.code(), 2);
        assert!(error.message.contains("--env") && error.message.contains("NOPE"));
        assert!(pairs(&["=x"]).is_err());
    }

    #[test]
    fn files_come_first_and_may_have_comments() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "# c\n\nA=1\r\n  B=two words\nHOME").unwrap();
        let all = collect(&[file.path()], &["A=3".to_owned()], own).unwrap();
        assert_eq!(all, ["A=3", "B=two words", "HOME=/root"]);
    }

    #[test]
    fn too_much_is_refused_before_it_is_sent() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(format!("A={}", "x".repeat(5 << 20)).as_bytes()).unwrap();
        let error = collect(&[file.path()], &[], own).unwrap_err();
        assert!(error.message.contains("--env-file"), "{error}");
        let error = pairs(&[&format!("A={}", "x".repeat(300 << 10))]).unwrap_err();
        assert!(error.message.contains("more than"), "{error}");
        assert!(collect(&["/nonexistent/env"], &[], own).is_err());
    }
}
