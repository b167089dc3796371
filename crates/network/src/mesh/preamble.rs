//! The few bytes one worker sends another before a client's bytes flow.
//!
//! Request, always 80 bytes: `CMSH`, format version, length of the task id,
//! target port (big endian), endpoints version (big endian), 64 bytes of task
//! id padded with zeros. Answer: one status byte. A fixed size leaves nothing
//! to bound and nothing to wait for. A request without a task id asks only for
//! the answer; the connection stays ready afterwards.

pub(super) const LEN: usize = 80;
const MAGIC: &[u8; 4] = b"CMSH";
const FORMAT: u8 = 1;
const ID_AT: usize = 16;
const ID_MAX: usize = LEN - ID_AT;

pub(super) const PING: [u8; LEN] = {
    let mut bytes = [0; LEN];
    bytes[0] = MAGIC[0];
    bytes[1] = MAGIC[1];
    bytes[2] = MAGIC[2];
    bytes[3] = MAGIC[3];
    bytes[4] = FORMAT;
    bytes
};

/// Which task a connection is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Preamble {
    pub task_id: String,
    pub target_port: u16,
    /// The snapshot the sender chose the task from.
    pub version: u64,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Connected = 0,
    /// Not one of ours, or not published, or leaving.
    NotHere = 1,
    /// The container does not accept connections.
    Unreachable = 2,
}

impl Preamble {
    /// `None` when the task id does not fit.
    pub fn encode(&self) -> Option<[u8; LEN]> {
        let id = self.task_id.as_bytes();
        let mut bytes = PING;
        bytes[5] = u8::try_from(id.len()).ok().filter(|len| *len > 0)?;
        bytes[6..8].copy_from_slice(&self.target_port.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.version.to_be_bytes());
        bytes.get_mut(ID_AT..ID_AT + id.len())?.copy_from_slice(id);
        Some(bytes)
    }

    /// `None` for anything `encode` does not produce.
    pub fn decode(bytes: &[u8; LEN]) -> Option<Self> {
        let id_len = usize::from(bytes[5]);
        if &bytes[..4] != MAGIC || bytes[4] != FORMAT || id_len == 0 || id_len > ID_MAX {
            return None;
        }
        let (id, padding) = bytes[ID_AT..].split_at(id_len);
        if padding.iter().any(|byte| *byte != 0) {
            return None;
        }
        Some(Preamble {
            task_id: std::str::from_utf8(id).ok()?.to_owned(),
            target_port: u16::from_be_bytes(bytes[6..8].try_into().ok()?),
            version: u64::from_be_bytes(bytes[8..16].try_into().ok()?),
        })
    }
}

impl Status {
    pub fn decode(byte: u8) -> Option<Self> {
        [Status::Connected, Status::NotHere, Status::Unreachable]
            .into_iter()
            .find(|status| *status as u8 == byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preamble(task_id: &str) -> Preamble {
        Preamble { task_id: task_id.to_owned(), target_port: 8080, version: 1 << 40 }
    }

    #[test]
    fn comes_back_as_it_went() {
        for id in ["a", "0123456789abc", &"x".repeat(64)] {
            let bytes = preamble(id).encode().unwrap();
            assert_eq!(Preamble::decode(&bytes), Some(preamble(id)));
        }
        assert_eq!(preamble(&"x".repeat(65)).encode(), None);
        assert_eq!(preamble(&"x".repeat(300)).encode(), None);
    }

    #[test]
    fn refuses_what_is_not_ours() {
        let good = preamble("task").encode().unwrap();
        for (at, byte) in [(0, b'X'), (4, 2), (5, 0), (5, 65), (5, 255), (5, 3), (16, 0xff)] {
            let mut bad = good;
            bad[at] = byte;
            assert_eq!(Preamble::decode(&bad), None, "byte {at} = {byte}");
        }
        assert_eq!(Preamble::decode(&[0; LEN]), None);
    }

    #[test]
    fn knows_its_status_bytes() {
        for status in [Status::Connected, Status::NotHere, Status::Unreachable] {
            assert_eq!(Status::decode(status as u8), Some(status));
        }
        assert_eq!(Status::decode(3), None);
    }
}
