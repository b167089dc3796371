//! What a probe does: `--health-cmd`, `--health-http PORT[/path]`, `--health-tcp PORT`. An empty
//! value takes the probe back.

use cluster_pb::types::v1::probe::{Check, Exec, Http, Tcp};

use super::port::port;
use super::shown;

/// None: no probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted(pub Option<Check>);

/// As Docker: a text is for the container's shell; a JSON array is a program and its arguments.
pub fn command(text: &str) -> Result<Wanted, String> {
    if text.trim().is_empty() {
        return Ok(Wanted(None));
    }
    let command = match text.trim_start().starts_with('[') {
        false => vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()],
        true => serde_json::from_str::<Vec<String>>(text).map_err(|error| {
            format!(
                "`{}` is no JSON array of texts ({error}); write for example [\"/check\", \"-q\"], \
                 or a command for the shell",
                shown(text)
            )
        })?,
    };
    if command.first().is_none_or(String::is_empty) {
        return Err("names no program; write for example [\"/check\", \"-q\"]".to_owned());
    }
    Ok(Wanted(Some(Check::Exec(Exec { command }))))
}

pub fn http(text: &str) -> Result<Wanted, String> {
    if text.is_empty() {
        return Ok(Wanted(None));
    }
    if text.contains("://") {
        return Err(format!(
            "`{}` is a URL; the container itself is asked: write PORT/path, such as 8080/healthz",
            shown(text)
        ));
    }
    let (number, path) = match text.find('/') {
        Some(at) => text.split_at(at),
        None => (text, "/"),
    };
    let port = port(number).map_err(|error| format!("{error}, such as 8080/healthz"))?;
    if path.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(format!(
            "path `{}` contains white space; write for example 8080/healthz",
            shown(path)
        ));
    }
    Ok(Wanted(Some(Check::Http(Http { port, path: path.to_owned() }))))
}

pub fn tcp(text: &str) -> Result<Wanted, String> {
    if text.is_empty() {
        return Ok(Wanted(None));
    }
    let port = port(text).map_err(|error| format!("{error}, such as 5432"))?;
    Ok(Wanted(Some(Check::Tcp(Tcp { port }))))
}

/// Failures in a row.
pub fn retries(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(count @ 1..=1000) => Ok(count),
        _ => Err(format!("`{}` is not 1 to 1000 failures; write for example 3", shown(text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_for_the_shell_and_an_array_is_not() {
        let words = |text: &str| match command(text).unwrap().0 {
            Some(Check::Exec(exec)) => exec.command,
            other => panic!("{other:?}"),
        };
        assert_eq!(words("curl -f localhost || exit 1")[..2], ["/bin/sh", "-c"]);
        assert_eq!(words(r#"["/check", "a b"]"#), ["/check", "a b"]);
        assert_eq!(command("").unwrap(), Wanted(None));
        assert!(command("[]").unwrap_err().contains("no program"));
        assert!(command("[1]").unwrap_err().contains("JSON"));
    }

    #[test]
    fn ports_and_paths() {
        let wanted =
            |port, path: &str| Ok(Wanted(Some(Check::Http(Http { port, path: path.to_owned() }))));
        assert_eq!(http("8080/healthz?x=1"), wanted(8080, "/healthz?x=1"));
        assert_eq!(http("8080"), wanted(8080, "/"));
        assert_eq!(tcp("5432"), Ok(Wanted(Some(Check::Tcp(Tcp { port: 5432 })))));
        assert_eq!(tcp(""), Ok(Wanted(None)));
        for text in ["/healthz", "0/x", "70000/x", "http://localhost:80/", "80/a b", "-1"] {
            assert!(http(text).unwrap_err().contains("8080/healthz"), "{text}");
        }
        assert!(tcp("0").unwrap_err().contains("1-65535"));
        assert!(retries("0").unwrap_err().contains("for example 3"));
    }
}
