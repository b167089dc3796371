//! Image names: parsed by Docker's rules, shown the way people type them.
//!
//! `web:1` means `docker.io/library/web:1`; the first part is a registry only
//! when it has a dot, a colon or is `localhost`. A missing tag is `latest`
//! unless a digest pins the content.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, Result};

const DEFAULT_REGISTRY: &str = "docker.io";
const OFFICIAL: &str = "library/";
const DEFAULT_TAG: &str = "latest";
const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Registry host with its port, `docker.io` by default.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Path in the registry, `library/web` for the official ones.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// `None` only when a digest pins the content without naming a tag.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The full name, one text per image name; what the store files it under.
    #[must_use]
    pub fn canonical(&self) -> String {
        self.text(&self.registry, &self.repository)
    }

    /// A name for content that came without one.
    pub(crate) fn unnamed(digest: &Digest) -> Self {
        Self {
            registry: DEFAULT_REGISTRY.to_owned(),
            repository: format!("{OFFICIAL}imported"),
            tag: None,
            digest: Some(digest.clone()),
        }
    }

    fn text(&self, registry: &str, repository: &str) -> String {
        let mut text = String::new();
        if !registry.is_empty() {
            text.push_str(registry);
            text.push('/');
        }
        text.push_str(repository);
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
        text
    }
}

impl fmt::Display for Reference {
    /// The short form: what a person would type.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.registry != DEFAULT_REGISTRY {
            return f.write_str(&self.canonical());
        }
        let official = self.repository.strip_prefix(OFFICIAL);
        let short = official.filter(|name| !name.contains('/')).unwrap_or(&self.repository);
        // Without the registry in front of it, a first part like `a.b` would pass for one.
        if split_registry(short) != (DEFAULT_REGISTRY, short) {
            return f.write_str(&self.canonical());
        }
        f.write_str(&self.text("", short))
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text).map_err(|reason| Error::InvalidReference {
            text: text.chars().take(100).collect(),
            reason,
        })
    }
}

impl TryFrom<String> for Reference {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.canonical()
    }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > NAME_MAX + TAG_MAX + 80 {
        return Err("it is longer than 463 characters");
    }
    if text.contains("://") {
        return Err("leave out the scheme; an image name has none");
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => {
            let digest = digest
                .parse()
                .map_err(|_| "after `@` comes `sha256:` and 64 lower-case hexadecimal digits")?;
            (rest, Some(digest))
        }
        None => (text, None),
    };
    let (name, tag) = split_tag(rest);
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    let (registry, repository) = split_registry(name);
    check_registry(registry)?;
    check_repository(repository)?;
    let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') {
        format!("{OFFICIAL}{repository}")
    } else {
        repository.to_owned()
    };
    if registry.len() + repository.len() >= NAME_MAX {
        return Err("the name is longer than 255 characters");
    }
    let tag = match (tag, &digest) {
        (Some(tag), _) => Some(tag.to_owned()),
        (None, Some(_)) => None,
        (None, None) => Some(DEFAULT_TAG.to_owned()),
    };
    Ok(Reference { registry: registry.to_owned(), repository, tag, digest })
}

/// A colon after the last slash starts a tag; before it, it belongs to a port.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (text, None),
    }
}

fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((host, rest)) if host == "localhost" || host.contains(['.', ':']) => match host {
            "index.docker.io" | "registry-1.docker.io" => (DEFAULT_REGISTRY, rest),
            _ => (host, rest),
        },
        _ => (DEFAULT_REGISTRY, name),
    }
}

fn check_registry(registry: &str) -> Result<(), &'static str> {
    let (host, port) = match registry.strip_prefix('[') {
        Some(v6) => {
            let (host, port) = v6.split_once(']').ok_or("the registry's `[` is not closed")?;
            host.parse::<std::net::Ipv6Addr>()
                .map_err(|_| "the registry's address in brackets is not IPv6")?;
            return match port.strip_prefix(':') {
                Some(port) => check_port(port),
                None if port.is_empty() => Ok(()),
                None => Err("only `:PORT` may follow the registry's address"),
            };
        }
        None => match registry.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (registry, None),
        },
    };
    let label = |l: &str| {
        !l.is_empty()
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    if !host.split('.').all(label) {
        return Err("the registry is not a host name");
    }
    port.map_or(Ok(()), check_port)
}

fn check_port(port: &str) -> Result<(), &'static str> {
    match port.parse::<u16>() {
        Ok(1..) => Ok(()),
        _ => Err("the registry's port must be 1 to 65535"),
    }
}

fn check_repository(repository: &str) -> Result<(), &'static str> {
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("a repository name must be lower-case");
    }
    if repository.split('/').all(is_component) {
        Ok(())
    } else {
        Err("a repository name is made of lower-case letters and digits, \
             joined by `.`, `_`, `__`, `-` or `/`")
    }
}

/// Alphanumeric runs joined by one `.`, one or two `_`, or any number of `-`.
fn is_component(text: &str) -> bool {
    let alnum = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    if !alnum(first) || !alnum(last) {
        return false;
    }
    bytes
        .split(alnum)
        .filter(|separator| !separator.is_empty())
        .all(|s| matches!(s, b"." | b"_" | b"__") || s.iter().all(|b| *b == b'-'))
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    let body = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if tag.is_empty() {
        return Err("nothing follows the `:`");
    }
    if tag.len() > TAG_MAX {
        return Err("the tag is longer than 128 characters");
    }
    if tag.starts_with(['.', '-']) || !tag.bytes().all(body) {
        return Err(
            "a tag is made of letters, digits, `_`, `.` and `-`, and starts with neither `.` nor `-`",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        text.parse::<Reference>().unwrap().canonical()
    }

    #[test]
    fn short_names_get_dockers_defaults() {
        assert_eq!(canonical("web:1"), "docker.io/library/web:1");
        assert_eq!(canonical("web"), "docker.io/library/web:latest");
        assert_eq!(canonical("team/web"), "docker.io/team/web:latest");
        assert_eq!(canonical("localhost/web"), "localhost/web:latest");
        assert_eq!(canonical("127.0.0.1:5000/a/b:2"), "127.0.0.1:5000/a/b:2");
        assert_eq!(canonical("[::1]:5000/web"), "[::1]:5000/web:latest");
        assert_eq!(canonical("index.docker.io/library/web:1"), "docker.io/library/web:1");
        assert_eq!(canonical("docker.io/web"), "docker.io/library/web:latest");
    }

    #[test]
    fn a_digest_pins_and_suppresses_the_default_tag() {
        let hex = "a".repeat(64);
        let pinned: Reference = format!("web@sha256:{hex}").parse().unwrap();
        assert_eq!(pinned.tag(), None);
        assert_eq!(pinned.digest().unwrap().hex(), hex);
        assert_eq!(pinned.to_string(), format!("web@sha256:{hex}"));
        assert_eq!(
            canonical(&format!("r.example:1/web:2@sha256:{hex}")),
            format!("r.example:1/web:2@sha256:{hex}")
        );
    }

    #[test]
    fn shown_as_typed_and_read_back_the_same() {
        for text in ["web:1", "team/web:1", "r.example/web:1", "localhost:5000/x:y"] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), text);
            assert_eq!(reference.canonical().parse::<Reference>().unwrap(), reference);
        }
    }

    #[test]
    fn what_short_names_would_change_is_shown_in_full() {
        for (text, shown) in [
            ("docker.io/library/team/web:1", "library/team/web:1"),
            ("docker.io/a.b/c:1", "docker.io/a.b/c:1"),
            ("docker.io/localhost/c:1", "docker.io/localhost/c:1"),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), shown);
            assert_eq!(shown.parse::<Reference>().unwrap(), reference);
        }
        // With `library/` in front it would be too long to be read again.
        assert!("a".repeat(240).parse::<Reference>().is_err());
    }

    #[test]
    fn nonsense_is_refused_with_the_text_and_a_reason() {
        let long = "a".repeat(300);
        for text in [
            "",
            "Web",
            "web:",
            "web:a b",
            "web name",
            "web\n",
            "../web",
            "web/../x",
            "/web",
            "web//x",
            "https://r.example/web",
            "r.example:0/web",
            "r.example:70000/web",
            "web@sha256:12",
            "web@md5:aa",
            "a..b",
            "-a",
            "web:-x",
            "[::1/web",
            &long,
        ] {
            let error = text.parse::<Reference>().unwrap_err();
            assert!(error.is_permanent(), "{text}: {error}");
        }
    }
}
