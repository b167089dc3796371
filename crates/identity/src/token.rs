//! Join tokens: `CLUSTER-1-<role>-<digest of the CA>-<secret>`.
//!
//! The digest lets a joiner recognise the right cluster before it says anything; the secret lets
//! the cluster recognise the joiner. Nothing here prints the secret except `Display` of the token
//! itself, which exists to show it to its owner.

use std::fmt;
use std::str::FromStr;

use rand::TryRngCore;
use rand::rngs::OsRng;
use subtle::ConstantTimeEq;

use crate::base32;
use crate::certificate::CaDigest;
use crate::role::Role;

const PREFIX: &str = "CLUSTER";
const VERSION: &str = "1";
const SECRET_BYTES: usize = 16;
const DIGEST_LETTERS: usize = base32::encoded_len(32);
const SECRET_LETTERS: usize = base32::encoded_len(SECRET_BYTES);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error(
        "this is not a join token: one looks like CLUSTER-1-<worker|manager>-<digest>-<secret>; \
         `clusterctl cluster token --role worker` prints it"
    )]
    NotAToken,
    #[error("the join token is of version {version:?}; this program reads version 1")]
    UnknownVersion { version: String },
    #[error("the join token names the role {role:?}; expected worker or manager")]
    UnknownRole { role: String },
    #[error("the join token is truncated: its {part} has {found} of {expected} characters")]
    Truncated { part: &'static str, found: usize, expected: usize },
    #[error("the join token is too long: its {part} has {found} characters, expected {expected}")]
    TooLong { part: &'static str, found: usize, expected: usize },
    #[error("the join token is damaged: its {part} has characters that a token never has")]
    Damaged { part: &'static str },
    #[error("making a join secret: the system gave no random bytes")]
    NoRandomness,
}

/// The half of a join token that proves the right to join. No `Debug`, no `Display`.
#[derive(Clone)]
pub struct JoinSecret([u8; SECRET_BYTES]);

impl JoinSecret {
    pub fn generate() -> Result<Self, Error> {
        let mut bytes = [0; SECRET_BYTES];
        OsRng.try_fill_bytes(&mut bytes).map_err(|_| Error::NoRandomness)?;
        Ok(Self(bytes))
    }

    pub fn parse(text: &str) -> Result<Self, Error> {
        part(text, "secret", SECRET_LETTERS).map(Self)
    }

    /// The 26 letters of the secret, for the replicated state and for the join request.
    pub fn expose(&self) -> String {
        base32::encode(&self.0)
    }

    /// Equality that takes the same time wherever the difference is.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

#[derive(Clone)]
pub struct JoinToken {
    pub role: Role,
    pub ca_digest: CaDigest,
    pub secret: JoinSecret,
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { role, ca_digest, secret } = self;
        write!(f, "{PREFIX}-{VERSION}-{role}-{ca_digest}-{}", secret.expose())
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("role", &self.role)
            .field("ca_digest", &self.ca_digest)
            .finish_non_exhaustive()
    }
}

impl FromStr for JoinToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut parts = text.trim().split('-');
        if !parts.next().is_some_and(|prefix| prefix.eq_ignore_ascii_case(PREFIX)) {
            return Err(Error::NotAToken);
        }
        match parts.next() {
            Some(VERSION) => {}
            // Only a number is echoed: anything else may be a secret pasted into the wrong place.
            Some(other) if is_short(other, |c| c.is_ascii_digit()) => {
                return Err(Error::UnknownVersion { version: other.into() });
            }
            _ => return Err(Error::NotAToken),
        }
        let role = match parts.next().map(str::to_ascii_lowercase).as_deref() {
            Some("worker") => Role::Worker,
            Some("manager") => Role::Manager,
            Some(other) if is_short(other, |c| c.is_ascii_alphabetic()) => {
                return Err(Error::UnknownRole { role: other.into() });
            }
            _ => return Err(Error::NotAToken),
        };
        let ca_digest = part(parts.next().unwrap_or_default(), "CA digest", DIGEST_LETTERS)?;
        let secret = part(parts.next().unwrap_or_default(), "secret", SECRET_LETTERS)?;
        if parts.next().is_some() {
            return Err(Error::NotAToken);
        }
        Ok(Self { role, ca_digest: CaDigest(ca_digest), secret: JoinSecret(secret) })
    }
}

fn part<const N: usize>(text: &str, part: &'static str, expected: usize) -> Result<[u8; N], Error> {
    let found = text.chars().count();
    if !text.chars().all(base32::is_letter) {
        return Err(Error::Damaged { part });
    }
    if found < expected {
        return Err(Error::Truncated { part, found, expected });
    }
    if found > expected {
        return Err(Error::TooLong { part, found, expected });
    }
    base32::decode(text).ok_or(Error::Damaged { part })
}

fn is_short(text: &str, allowed: impl Fn(char) -> bool) -> bool {
    (1..=12).contains(&text.len()) && text.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        JoinToken {
            role: Role::Worker,
            ca_digest: CaDigest::of_der(b"some root"),
            secret: JoinSecret::generate().unwrap(),
        }
    }

    #[test]
    fn round_trip() {
        let token = token();
        let text = token.to_string();
        let read: JoinToken = format!(" {text}\n").parse().unwrap();
        assert_eq!(read.role, Role::Worker);
        assert_eq!(read.ca_digest, token.ca_digest);
        assert!(read.secret.matches(&token.secret));
        assert!(!read.secret.matches(&JoinSecret::generate().unwrap()));
        assert!(JoinSecret::parse(&token.secret.expose()).unwrap().matches(&token.secret));
        assert_eq!(text.len(), "CLUSTER-1-worker-".len() + 52 + 1 + 26);
    }

    #[test]
    fn each_fault_is_named() {
        let text = token().to_string();
        let read = |text: &str| text.parse::<JoinToken>().unwrap_err();
        assert_eq!(read(""), Error::NotAToken);
        assert_eq!(read("SWMTKN-1-abc-def"), Error::NotAToken);
        assert_eq!(read(&format!("{text}-more")), Error::NotAToken);
        assert_eq!(
            read(&text.replace("-1-", "-2-")),
            Error::UnknownVersion { version: "2".into() }
        );
        assert_eq!(
            read(&text.replace("worker", "admin")),
            Error::UnknownRole { role: "admin".into() }
        );
        assert_eq!(
            read(&text[..text.len() - 3]),
            Error::Truncated { part: "secret", found: 23, expected: 26 }
        );
        assert_eq!(
            read(&text[..text.len() - 40]),
            Error::Truncated { part: "CA digest", found: 39, expected: 52 }
        );
        assert_eq!(
            read(&format!("{text}a")),
            Error::TooLong { part: "secret", found: 27, expected: 26 }
        );
        let bad = format!("{}!", &text[..text.len() - 1]);
        assert_eq!(read(&bad), Error::Damaged { part: "secret" });
    }

    #[test]
    fn neither_debug_nor_errors_show_the_secret() {
        let token = token();
        let secret = token.secret.expose();
        assert!(!format!("{token:?}").contains(&secret));
        for text in [
            format!("CLUSTER-{secret}"),
            format!("CLUSTER-1-{secret}"),
            format!("CLUSTER-1-worker-{secret}"),
            format!("CLUSTER-1-worker-{}-{secret}x", token.ca_digest),
        ] {
            let error = text.parse::<JoinToken>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains(&secret), "{error}");
        }
    }
}
