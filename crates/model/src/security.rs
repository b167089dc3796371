//! What holds of certificates and locks for the whole cluster: how long certificates live, who was
//! removed, the change of the CA, the unlock key.
//!
//! A change of the CA is state: begun by a user, confirmed by node after node, moved on by the
//! leader's planner. The new CA signs from the first moment on. It is trusted by all at once,
//! because the old one signed it too (the cross certificate); what takes time is that every node
//! has a certificate of the new one, so that the old one may go.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cluster::Secret;
use crate::id::NodeId;

/// How long certificates live unless told otherwise, seconds: 90 days.
pub const CERT_VALIDITY_S: u64 = 90 * 24 * 3600;
/// Shorter ones would be renewed all the time.
pub const CERT_VALIDITY_MIN_S: u64 = 10;
pub const CERT_VALIDITY_MAX_S: u64 = 10 * 365 * 24 * 3600;
/// Removed nodes that are remembered; more push out those removed first.
pub const REVOKED_MAX: usize = 4096;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// Log index of the last change of what nodes must know: CAs, validity, removed nodes.
    pub trust_version: u64,
    /// How long a certificate lives, seconds. Written by users.
    pub cert_validity_s: u64,
    /// Managers lock their folders with it. Written by users.
    pub unlock_key: Option<Secret>,
    /// Log index of the last wish for new data keys. Written by users.
    pub data_keys: u64,
    pub rotation: Option<CaRotation>,
    /// When the last change of the CA was complete; 0: never.
    pub ca_rotated_at_ms: u64,
    /// Nodes that were removed and the log index at which: their certificates count no more.
    pub revoked: BTreeMap<NodeId, u64>,
}

impl Default for Security {
    fn default() -> Self {
        Self {
            trust_version: 0,
            cert_validity_s: CERT_VALIDITY_S,
            unlock_key: None,
            data_keys: 0,
            rotation: None,
            ca_rotated_at_ms: 0,
            revoked: BTreeMap::new(),
        }
    }
}

/// A change of the CA under way. The new CA is the cluster's already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaRotation {
    pub started_at_ms: u64,
    pub phase: CaPhase,
    /// PEM of the CA that goes.
    pub old_certificate: String,
    /// PEM of the new CA, signed by the old one.
    pub cross_certificate: String,
    /// Join tokens that count once the old CA is gone: those from before name it.
    pub worker_token: Secret,
    pub manager_token: Secret,
    /// Nodes that are down are not waited for.
    pub force: bool,
    /// How far each node is.
    pub confirmed: BTreeMap<NodeId, CaPhase>,
}

/// In the order in which they come; a node that confirmed one has done what it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CaPhase {
    /// Every node gets a certificate of the new CA, and trusts both.
    Reissue,
    /// Every node drops the old CA.
    Retire,
}

impl CaPhase {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reissue => "reissue",
            Self::Retire => "retire",
        }
    }
}

/// Commands about certificates and locks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Secure {
    /// Counts for certificates made from now on.
    SetCertValidity { seconds: u64 },
    /// Locks all managers' folders with this key, or with none.
    SetUnlockKey { key: Option<Secret> },
    /// Every manager makes a new data key.
    RotateDataKeys,
    /// Refused while one is under way.
    RotateCa(Box<NewCa>),
    /// The change under way waits for nodes that are down no longer. Comes twice: no harm.
    ForceCa,
    /// A node has done what a phase asks. Comes late or twice: no harm.
    ConfirmCa { node: NodeId, started_at_ms: u64, phase: CaPhase },
    /// The phase is over. Refused while a node is missing, or when it is over already.
    AdvanceCa { started_at_ms: u64, phase: CaPhase, at_ms: u64 },
}

/// A CA that takes the place of the present one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewCa {
    /// PEM of the CA that is replaced: refused when it is another by now.
    pub replaces: String,
    pub certificate: String,
    pub key: Secret,
    pub cross_certificate: String,
    pub worker_token: Secret,
    pub manager_token: Secret,
    pub at_ms: u64,
}

/// Reads the last field of something stored, which older releases did not write.
pub(crate) mod tail {
    use std::cell::Cell;
    use std::fmt;
    use std::marker::PhantomData;

    use serde::de::{Deserialize, Deserializer, Visitor};

    /// Nothing there at all is none; something there that does not read is an error.
    pub(crate) fn deserialize<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        D: Deserializer<'de>,
        T: Deserialize<'de>,
    {
        let begun = Cell::new(false);
        match deserializer.deserialize_option(Present { begun: &begun, of: PhantomData }) {
            Err(_) if !begun.get() => Ok(None),
            read => read,
        }
    }

    struct Present<'a, T> {
        begun: &'a Cell<bool>,
        of: PhantomData<T>,
    }

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Present<'_, T> {
        type Value = Option<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an optional value, or the end")
        }

        fn visit_none<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
            self.begun.set(true);
            T::deserialize(d).map(Some)
        }
    }
}
