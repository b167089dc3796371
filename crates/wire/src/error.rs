//! What went wrong, as clients see it: a stable code, a gRPC code, a sentence, a hint.
//!
//! One table; each code has a page in docs/errors, and a test pairs the two.

use cluster_model::Refusal;
use cluster_model::validate::Invalid;
use tonic::metadata::MetadataValue;
use tonic::{Code as Grpc, Status};

const CODE_KEY: &str = "cluster-error-code";
const HINT_KEY: &str = "cluster-error-hint";

macro_rules! codes {
    ($($name:ident = $text:literal, $grpc:ident, $retry:literal, $hint:literal;)*) => {
        /// A stable error code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($name,)* }

        impl Code {
            /// All codes, in the order of their numbers.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }

            pub fn grpc(self) -> Grpc {
                match self { $(Code::$name => Grpc::$grpc,)* }
            }

            /// Whether the same request may succeed later without being changed.
            pub fn is_retryable(self) -> bool {
                match self { $(Code::$name => $retry,)* }
            }

            /// What to do next; empty when the message says it all.
            pub fn hint(self) -> &'static str {
                match self { $(Code::$name => $hint,)* }
            }
        }
    };
}

codes! {
    Internal = "E0001", Internal, false, "this is a defect; the manager's log has the details";
    InvalidField = "E0101", InvalidArgument, false, "";
    NotFound = "E0102", NotFound, false, "list what there is with `clusterctl service ls` or `clusterctl node ls`";
    NameTaken = "E0103", AlreadyExists, false, "choose another name, or update or remove the one that has it";
    PortTaken = "E0104", AlreadyExists, false, "publish another port, or let the managers choose with `--publish TARGET`";
    VersionMoved = "E0105", Aborted, true, "read the object again and repeat the change";
    Immutable = "E0106", InvalidArgument, false, "remove the object and create it anew";
    NoFreePort = "E0107", ResourceExhausted, true, "publish a fixed port, or remove services that publish one";
    NodeReady = "E0108", FailedPrecondition, false, "`clusterctl node drain NODE`, stop its worker, then remove it; or use --force";
    Bootstrapped = "E0109", FailedPrecondition, false, "";
    Ambiguous = "E0110", InvalidArgument, false, "give more characters of the id, or the exact name";
    TooLarge = "E0111", InvalidArgument, false, "";
    NotNow = "E0112", FailedPrecondition, false, "`clusterctl service inspect SERVICE` shows where the service stands";
    QuorumAtRisk = "E0113", FailedPrecondition, true, "`clusterctl manager ls` shows which managers are heard";
    NoCertificate = "E0201", Unauthenticated, false, "use a context of this cluster (`clusterctl context ls`)";
    WrongRole = "E0202", PermissionDenied, false, "this certificate's role may not make this call";
    WrongToken = "E0203", Unauthenticated, false, "get the present token with `clusterctl cluster token --role worker|manager`";
    ClockOff = "E0204", FailedPrecondition, false, "set this machine's clock, for example with NTP, and try again";
    Removed = "E0205", PermissionDenied, false, "this node was removed from the cluster; join again with an empty data folder";
    CaNotNow = "E0206", FailedPrecondition, false, "`clusterctl cluster ca info` shows where the change of the CA stands";
    NotLocked = "E0207", FailedPrecondition, false, "`clusterctl cluster autolock on` locks the managers";
    TooLate = "E0208", PermissionDenied, false, "remove the node and join again with an empty data folder and a token";
    NoLeader = "E0301", Unavailable, true, "the managers have no leader: more than half of them must run and reach each other";
    UnknownOutcome = "E0302", DeadlineExceeded, false, "the change may or may not have happened; look before repeating it";
    Stopping = "E0303", Unavailable, true, "this manager is stopping; ask another";
    Busy = "E0304", ResourceExhausted, true, "the manager has too much to do; try again shortly";
    NotUnderstood = "E0310", FailedPrecondition, false, "finish the upgrade of all managers first (docs/upgrades.md), or remove the one that is gone";
}

/// A failure ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub code: Code,
    pub message: String,
}

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub fn not_found(kind: &str, name: &str) -> Self {
        let shown: String = name.chars().take(80).collect();
        Self::new(Code::NotFound, format!("this cluster has no {kind} `{shown}`"))
    }
}

impl From<Invalid> for Failure {
    fn from(invalid: Invalid) -> Self {
        Failure::new(Code::InvalidField, invalid.to_string())
    }
}

impl From<crate::DecodeError> for Failure {
    fn from(error: crate::DecodeError) -> Self {
        Failure::new(Code::InvalidField, error.to_string())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let code = match &refusal {
            Refusal::NotFound { .. } => Code::NotFound,
            Refusal::NameTaken { .. } => Code::NameTaken,
            Refusal::IdTaken(_) => Code::Internal,
            Refusal::PortTaken { .. } => Code::PortTaken,
            Refusal::NoFreePort => Code::NoFreePort,
            Refusal::VersionMoved { .. } => Code::VersionMoved,
            Refusal::Immutable { .. } => Code::Immutable,
            Refusal::Invalid(_) => Code::InvalidField,
            Refusal::NodeReady { .. } => Code::NodeReady,
            Refusal::NotNow(_) => Code::NotNow,
            Refusal::CaNotNow(_) => Code::CaNotNow,
            Refusal::AlreadyBootstrapped | Refusal::NotBootstrapped => Code::Bootstrapped,
        };
        Failure::new(code, refusal.to_string())
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let mut status = Status::new(failure.code.grpc(), failure.message);
        let metadata = status.metadata_mut();
        metadata.insert(CODE_KEY, MetadataValue::from_static(failure.code.as_str()));
        if !failure.code.hint().is_empty() {
            metadata.insert(HINT_KEY, MetadataValue::from_static(failure.code.hint()));
        }
        status
    }
}

/// The stable code that a status carries, if it came from one of our managers.
pub fn code_of(status: &Status) -> Option<Code> {
    let text = status.metadata().get(CODE_KEY)?.to_str().ok()?;
    Code::ALL.iter().copied().find(|code| code.as_str() == text)
}

/// The hint that a status carries.
pub fn hint_of(status: &Status) -> Option<String> {
    status.metadata().get(HINT_KEY)?.to_str().ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_page_and_every_page_its_code() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors");
        for code in Code::ALL {
            let page = format!("{folder}/{}.md", code.as_str());
            let text =
                std::fs::read_to_string(&page).unwrap_or_else(|error| panic!("{page}: {error}"));
            assert!(text.starts_with(&format!("# {}", code.as_str())), "{page} starts otherwise");
        }
        for entry in std::fs::read_dir(folder).expect("docs/errors") {
            let name = entry.expect("entry").file_name().into_string().expect("name");
            let known = Code::ALL.iter().any(|code| name == format!("{}.md", code.as_str()));
            assert!(known || name == "README.md", "{name} has no code");
        }
    }

    #[test]
    fn codes_travel_in_the_status() {
        let status: Status = Failure::new(Code::PortTaken, "taken").into();
        assert_eq!(code_of(&status), Some(Code::PortTaken));
        assert_eq!(status.code(), Grpc::AlreadyExists);
        assert!(hint_of(&status).is_some());
    }
}
