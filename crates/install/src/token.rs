//! Where a join token comes from. Better not from the command line: other users see it there.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Far more than a token has.
const BYTES_MAX: u64 = 4096;
/// Stands for standard input.
const STDIN: &str = "-";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "a join token is needed: --token TOKEN, --token - (from standard input), --token-file FILE, \
         or CLUSTER_JOIN_TOKEN; `clusterctl cluster token --role {role}` prints it"
    )]
    Missing { role: &'static str },
    #[error("cannot read the join token from {}", from.display())]
    Read {
        from: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// What the options say.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub given: Option<&'a str>,
    pub file: Option<&'a Path>,
    /// What the token makes of the machine that shows it.
    pub role: &'static str,
}

impl Source<'_> {
    /// The token's text.
    pub fn read(self) -> Result<String, Error> {
        let failed = |from: &Path, source| Error::Read { from: from.to_owned(), source };
        let mut text = String::new();
        match (self.file, self.given) {
            (Some(path), _) => {
                let read =
                    File::open(path).and_then(|f| f.take(BYTES_MAX).read_to_string(&mut text));
                read.map_err(|source| failed(path, source))?;
            }
            (None, Some(STDIN)) => {
                let read = io::stdin().lock().take(BYTES_MAX).read_to_string(&mut text);
                read.map_err(|source| failed(Path::new("standard input"), source))?;
            }
            (None, Some(given)) => text.push_str(given),
            (None, None) => {}
        }
        match text.trim() {
            "" => Err(Error::Missing { role: self.role }),
            token => Ok(token.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_wins_and_nothing_at_all_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "  from-file\n").unwrap();
        let read = |given, file| Source { given, file, role: "worker" }.read();
        assert_eq!(read(Some("given"), Some(path.as_path())).unwrap(), "from-file");
        assert_eq!(read(Some("given"), None).unwrap(), "given");
        assert!(read(None, None).unwrap_err().to_string().contains("--role worker"));
        let missing = read(None, Some(&folder.path().join("no"))).unwrap_err();
        assert!(missing.to_string().ends_with("/no"), "{missing}");
    }
}
