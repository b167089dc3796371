//! Unlock keys: `CLUSTER-UNLOCK-1-<52 letters>`, what a locked manager's data keys are wrapped with.
//!
//! Nothing here prints the key; [`UnlockKey::expose`] shows it to its owner.

use rand::TryRngCore;
use rand::rngs::OsRng;
use subtle::ConstantTimeEq;

use crate::base32;

const PREFIX: &str = "CLUSTER-UNLOCK-1-";
const BYTES: usize = 32;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error(
        "this is not an unlock key: one looks like CLUSTER-UNLOCK-1-<52 letters>; `clusterctl \
         cluster unlock-key` prints it"
    )]
    NotAKey,
    #[error("the unlock key is damaged: a letter is wrong or missing")]
    Damaged,
    #[error("making an unlock key: the system gave no random bytes")]
    NoRandomness,
}

/// 256 random bits. No `Debug`, no `Display`.
#[derive(Clone)]
pub struct UnlockKey([u8; BYTES]);

impl UnlockKey {
    pub fn generate() -> Result<Self, Error> {
        let mut bytes = [0; BYTES];
        OsRng.try_fill_bytes(&mut bytes).map_err(|_| Error::NoRandomness)?;
        Ok(Self(bytes))
    }

    /// Reads what [`UnlockKey::expose`] wrote; spaces around it and upper case do not matter.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let Some((prefix, letters)) = text.split_at_checked(PREFIX.len()) else {
            return Err(Error::NotAKey);
        };
        if !prefix.eq_ignore_ascii_case(PREFIX) {
            return Err(Error::NotAKey);
        }
        base32::decode(letters).map(Self).ok_or(Error::Damaged)
    }

    /// The key as text; whoever calls this answers for where it goes.
    pub fn expose(&self) -> String {
        format!("{PREFIX}{}", base32::encode(&self.0))
    }

    pub fn as_bytes(&self) -> &[u8; BYTES] {
        &self.0
    }

    /// Equality that takes the same time wherever the difference is.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_each_fault() {
        let key = UnlockKey::generate().unwrap();
        let text = key.expose();
        assert!(UnlockKey::parse(&format!(" {text}\n")).unwrap().matches(&key));
        assert!(UnlockKey::parse(&text.to_uppercase()).unwrap().matches(&key));
        assert!(!UnlockKey::generate().unwrap().matches(&key));
        let fault = |text: &str| UnlockKey::parse(text).err();
        assert_eq!(fault(""), Some(Error::NotAKey));
        assert_eq!(fault("CLUSTER-1-worker-abc-def"), Some(Error::NotAKey));
        assert_eq!(fault(&text[..text.len() - 1]), Some(Error::Damaged));
        assert_eq!(fault(&format!("{text}a")), Some(Error::Damaged));
        assert_eq!(fault(&text.replace('-', "é")), Some(Error::NotAKey));
    }
}
