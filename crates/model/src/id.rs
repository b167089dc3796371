//! Ids: one newtype per kind of object, 64 random bits, shown as 13 base32 characters.
//!
//! Ids are minted outside (by the manager that admits a request, or as a random base plus an
//! ordinal inside a plan); `apply` refuses an id that is already in use.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Lower-case Crockford alphabet: no `i`, `l`, `o`, `u`, so that ids survive being read aloud.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// 13 * 5 = 65 bits, enough for 64.
const LENGTH: usize = 13;

/// The text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an id: an id is 13 characters of 0-9 and a-z without i, l, o, u")]
pub struct ParseIdError(String);

fn encode(value: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut text = [0u8; LENGTH];
    let mut rest = value;
    for place in text.iter_mut().rev() {
        *place = ALPHABET[(rest & 31) as usize];
        rest >>= 5;
    }
    f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
}

fn decode(text: &str) -> Result<u64, ParseIdError> {
    let refuse = || ParseIdError(text.chars().take(40).collect());
    if text.len() != LENGTH {
        return Err(refuse());
    }
    let mut value: u64 = 0;
    for (place, byte) in text.bytes().enumerate() {
        let digit = ALPHABET.iter().position(|c| *c == byte).ok_or_else(refuse)? as u64;
        // The first character carries only the top 4 bits.
        if place == 0 && digit > 15 {
            return Err(refuse());
        }
        value = (value << 5) | digit;
    }
    Ok(value)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                encode(self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                encode(self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                decode(text).map($name)
            }
        }
    };
}

id!(
    /// The cluster, fixed at bootstrap.
    ClusterId
);
id!(
    /// A machine's identity, whether it runs a manager or a worker; the common name of its certificate.
    NodeId
);
id!(
    /// A service.
    ServiceId
);
id!(
    /// One attempt to fill one slot. Never reused.
    TaskId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_and_keep_their_order() {
        for value in [0, 1, 31, 32, u64::MAX, u64::MAX / 3] {
            let id = TaskId(value);
            assert_eq!(id.to_string().len(), 13);
            assert_eq!(id.to_string().parse::<TaskId>(), Ok(id));
        }
        assert!(TaskId(5).to_string() < TaskId(1 << 40).to_string());
    }

    #[test]
    fn texts_that_are_not_ids_are_refused() {
        for text in ["", "abc", "iiiiiiiiiiiii", "zzzzzzzzzzzzz", "00000000000001"] {
            assert!(text.parse::<ServiceId>().is_err(), "{text}");
        }
    }
}
