//! `--entrypoint` and `--args`: a command line in one value, split as a shell would.

use super::shown;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words(pub Vec<String>);

pub fn words(text: &str) -> Result<Words, String> {
    shlex::split(text)
        .map(Words)
        .ok_or_else(|| format!("`{}` has an unfinished quote or escape", shown(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_does() {
        assert_eq!(words("/bin/sh -c 'a b'").unwrap().0, ["/bin/sh", "-c", "a b"]);
        assert_eq!(words("").unwrap().0, Vec::<String>::new());
        assert!(words("it's").is_err());
    }
}
