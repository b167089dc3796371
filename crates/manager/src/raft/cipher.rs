//! Encryption of a manager's own files: data keys, the key of one file, and how bytes are sealed.
//!
//! Every file has a key of its own, derived (HKDF-SHA256) from a data key and 32 random bytes in
//! the file's header, so no nonce is ever shared between files. Within a log segment each record
//! takes a random 96-bit nonce, because a cut tail is written again at the same offset; a segment
//! holds far fewer than 2^20 records, so two are equal with a chance below 2^-56. Within a
//! snapshot, which is written once, the nonce is the block's number. What is sealed is bound to
//! its place (segment, offset; block), so bytes cannot be moved.
//!
//! Nothing here knows files; where data keys are kept is the business of `crate::keys`.

use std::sync::{Arc, PoisonError, RwLock};

use rand::RngCore as _;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};

/// Bytes of a data key.
pub const KEY: usize = 32;
pub(crate) const NONCE: usize = 12;
pub(crate) const TAG: usize = 16;
/// What sealing with a random nonce adds.
pub(crate) const OVERHEAD: usize = NONCE + TAG;
const SALT: usize = 32;
/// AES-256-GCM; the only suite so far.
const SUITE: u8 = 1;
/// What an encrypted file's header says of its key: suite, data key, salt, and a seal of the
/// header, which also tells a wrong key from damage.
pub(crate) const KEY_BLOCK: usize = 1 + 8 + SALT + OVERHEAD;

/// A key that files are encrypted with. Has no `Debug`.
#[derive(Clone)]
pub struct DataKey {
    id: u64,
    secret: [u8; KEY],
}

impl DataKey {
    /// A fresh key.
    pub fn generate() -> Self {
        let mut rng = rand::rng();
        let mut secret = [0; KEY];
        rng.fill_bytes(&mut secret);
        // Zero stands for no key.
        Self { id: rng.next_u64().max(1), secret }
    }

    /// A key that was kept.
    pub fn new(id: u64, secret: [u8; KEY]) -> Self {
        Self { id, secret }
    }

    /// What files name it by.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The key itself; whoever calls this answers for where it goes.
    pub fn expose(&self) -> &[u8; KEY] {
        &self.secret
    }
}

struct Keys {
    current: DataKey,
    older: Vec<DataKey>,
}

/// The data keys of a manager: one for what is written now, older ones for what was. Clones share
/// them.
#[derive(Clone)]
pub struct Keyring(Arc<RwLock<Keys>>);

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keyring(current {:016x})", self.current().id)
    }
}

impl Keyring {
    /// A ring of these keys.
    pub fn new(current: DataKey, older: Vec<DataKey>) -> Self {
        Self(Arc::new(RwLock::new(Keys { current, older })))
    }

    /// The key for new files.
    pub fn current(&self) -> DataKey {
        self.0.read().unwrap_or_else(PoisonError::into_inner).current.clone()
    }

    /// All keys, the current one first.
    pub fn all(&self) -> Vec<DataKey> {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        std::iter::once(&keys.current).chain(&keys.older).cloned().collect()
    }

    /// Replaces the ring; files that are open keep the key they were opened with.
    pub fn replace(&self, current: DataKey, older: Vec<DataKey>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Keys { current, older };
    }

    fn find(&self, id: u64) -> Option<DataKey> {
        self.all().into_iter().find(|key| key.id == id)
    }
}

/// The key of one file.
pub(crate) struct FileCipher {
    key_id: u64,
    salt: [u8; SALT],
    key: LessSafeKey,
}

struct KeyLen;

impl KeyType for KeyLen {
    fn len(&self) -> usize {
        KEY
    }
}

fn derive(data_key: &DataKey, salt: &[u8; SALT], purpose: &[&[u8]]) -> Option<LessSafeKey> {
    let mut secret = [0; KEY];
    let derived = Salt::new(HKDF_SHA256, salt).extract(&data_key.secret);
    derived.expand(purpose, KeyLen).and_then(|okm| okm.fill(&mut secret)).ok()?;
    UnboundKey::new(&AES_256_GCM, &secret).ok().map(LessSafeKey::new)
}

/// Seals something small under a key that is used for many: `salt | nonce | sealed | tag`.
pub(crate) fn seal_small(secret: &[u8; KEY], purpose: &[u8], bytes: &[u8]) -> Vec<u8> {
    let keys = Keyring::new(DataKey::new(1, *secret), Vec::new());
    let mut out = Vec::new();
    // The derivation cannot fail for this length; empty output opens as nothing.
    if let Some(cipher) = FileCipher::create(&keys, &[purpose]) {
        out.extend_from_slice(&cipher.salt);
        cipher.seal(purpose, &mut out, |out| out.extend_from_slice(bytes));
    }
    out
}

/// What `seal_small` sealed; none under another key or for another purpose.
pub(crate) fn unseal_small(secret: &[u8; KEY], purpose: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (salt, rest) = sealed.split_first_chunk::<SALT>()?;
    let key = derive(&DataKey::new(1, *secret), salt, &[purpose])?;
    FileCipher { key_id: 1, salt: *salt, key }.unseal(purpose, rest)
}

/// Why a file cannot be read with the keys that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// No such data key.
    NoKey(u64),
    /// A newer release used another suite.
    Suite(u8),
    /// The header is not what was written under that key.
    Header,
}

impl FileCipher {
    /// A key for a new file; `purpose` tells kinds and owners of files apart.
    pub(crate) fn create(keys: &Keyring, purpose: &[&[u8]]) -> Option<Self> {
        let data_key = keys.current();
        let mut salt = [0; SALT];
        rand::rng().fill_bytes(&mut salt);
        let key = derive(&data_key, &salt, purpose)?;
        Some(Self { key_id: data_key.id, salt, key })
    }

    /// Which data key it comes from.
    pub(crate) fn key_id(&self) -> u64 {
        self.key_id
    }

    /// The key block for a header that says `stated`.
    pub(crate) fn key_block(&self, stated: &[u8]) -> [u8; KEY_BLOCK] {
        let mut block = Vec::with_capacity(KEY_BLOCK);
        block.push(SUITE);
        block.extend_from_slice(&self.key_id.to_le_bytes());
        block.extend_from_slice(&self.salt);
        let bound = [stated, &block[..]].concat();
        self.seal(&bound, &mut block, |_| {});
        let mut out = [0; KEY_BLOCK];
        out.copy_from_slice(&block);
        out
    }

    /// The key that `block` names, if it sealed this header.
    pub(crate) fn open(
        keys: Option<&Keyring>,
        purpose: &[&[u8]],
        stated: &[u8],
        block: &[u8; KEY_BLOCK],
    ) -> Result<Self, Unreadable> {
        if block[0] != SUITE {
            return Err(Unreadable::Suite(block[0]));
        }
        let (mut id, mut salt) = ([0; 8], [0; SALT]);
        id.copy_from_slice(&block[1..9]);
        salt.copy_from_slice(&block[9..9 + SALT]);
        let key_id = u64::from_le_bytes(id);
        let data_key = keys.and_then(|keys| keys.find(key_id)).ok_or(Unreadable::NoKey(key_id))?;
        let key = derive(&data_key, &salt, purpose).ok_or(Unreadable::Header)?;
        let cipher = Self { key_id, salt, key };
        let bound = [stated, &block[..9 + SALT]].concat();
        match cipher.unseal(&bound, &block[9 + SALT..]) {
            Some(_) => Ok(cipher),
            None => Err(Unreadable::Header),
        }
    }

    /// Appends `nonce | sealed bytes | tag` to `out`; `fill` writes the bytes to be sealed.
    pub(crate) fn seal(&self, bound: &[u8], out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
        let mut nonce = [0; NONCE];
        rand::rng().fill_bytes(&mut nonce);
        out.extend_from_slice(&nonce);
        let start = out.len();
        fill(out);
        self.seal_at(nonce, bound, out, start);
    }

    /// What `seal` wrote, opened; none when it is not that.
    pub(crate) fn unseal(&self, bound: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE>()?;
        let mut bytes = rest.to_vec();
        self.unseal_at(*nonce, bound, &mut bytes)?;
        Some(bytes)
    }

    /// Seals block `number` of a file that is written once: `block[start..]` in place, tag behind.
    pub(crate) fn seal_block(&self, number: u64, block: &mut Vec<u8>, start: usize) {
        self.seal_at(block_nonce(number), &[], block, start);
    }

    /// Opens a block in place and takes its tag away; none when it is not that block.
    pub(crate) fn unseal_block(&self, number: u64, block: &mut Vec<u8>) -> Option<()> {
        self.unseal_at(block_nonce(number), &[], block)
    }

    fn seal_at(&self, nonce: [u8; NONCE], bound: &[u8], out: &mut Vec<u8>, start: usize) {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed =
            self.key.seal_in_place_separate_tag(nonce, Aad::from(bound), &mut out[start..]);
        match sealed {
            Ok(tag) => out.extend_from_slice(tag.as_ref()),
            // Only more than 64 GiB at once are refused; unreadable rather than in the clear.
            Err(_) => out[start..].fill(0),
        }
    }

    fn unseal_at(&self, nonce: [u8; NONCE], bound: &[u8], bytes: &mut Vec<u8>) -> Option<()> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let len = self.key.open_in_place(nonce, Aad::from(bound), bytes).ok()?.len();
        bytes.truncate(len);
        Some(())
    }
}

/// The header's seal has a random nonce; that it equals a block's is as likely as guessing one.
fn block_nonce(number: u64) -> [u8; NONCE] {
    let mut nonce = [0; NONCE];
    nonce[..8].copy_from_slice(&number.to_le_bytes());
    nonce[8..].copy_from_slice(b"blck");
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    const PURPOSE: &[&[u8]] = &[b"test"];

    #[test]
    fn a_header_opens_with_its_key_and_purpose_only() {
        let keys = Keyring::new(DataKey::generate(), Vec::new());
        let cipher = FileCipher::create(&keys, PURPOSE).unwrap();
        let block = cipher.key_block(b"header");
        let open = |keys: &Keyring, purpose: &[&[u8]], stated: &[u8], block: &[u8; KEY_BLOCK]| {
            FileCipher::open(Some(keys), purpose, stated, block).map(|_| ())
        };
        assert_eq!(open(&keys, PURPOSE, b"header", &block), Ok(()));
        assert_eq!(open(&keys, &[b"other"], b"header", &block), Err(Unreadable::Header));
        assert_eq!(open(&keys, PURPOSE, b"heades", &block), Err(Unreadable::Header));
        let other = Keyring::new(DataKey::generate(), Vec::new());
        let missing = Err(Unreadable::NoKey(cipher.key_id()));
        assert_eq!(open(&other, PURPOSE, b"header", &block), missing);
        other.replace(DataKey::generate(), keys.all());
        assert_eq!(open(&other, PURPOSE, b"header", &block), Ok(()), "an older key reads");
        let impostor = Keyring::new(DataKey::new(cipher.key_id(), [7; KEY]), Vec::new());
        assert_eq!(open(&impostor, PURPOSE, b"header", &block), Err(Unreadable::Header));
        for at in 0..KEY_BLOCK {
            let mut bad = block;
            bad[at] ^= 1;
            assert!(open(&keys, PURPOSE, b"header", &bad).is_err(), "byte {at}");
        }
    }

    #[test]
    fn sealed_bytes_open_in_their_place_only_and_never_look_alike() {
        let keys = Keyring::new(DataKey::generate(), Vec::new());
        let cipher = FileCipher::create(&keys, PURPOSE).unwrap();
        let (mut one, mut two) = (Vec::new(), Vec::new());
        cipher.seal(b"here", &mut one, |out| out.extend_from_slice(b"secret"));
        cipher.seal(b"here", &mut two, |out| out.extend_from_slice(b"secret"));
        assert_ne!(one, two);
        assert_eq!(one.len(), 6 + OVERHEAD);
        assert_eq!(cipher.unseal(b"here", &one).unwrap(), b"secret");
        assert!(cipher.unseal(b"there", &one).is_none());
        one[NONCE] ^= 1;
        assert!(cipher.unseal(b"here", &one).is_none());
        let mut block = b"headpayload".to_vec();
        cipher.seal_block(3, &mut block, 4);
        let mut body = block.split_off(4);
        assert!(cipher.unseal_block(4, &mut body.clone()).is_none());
        cipher.unseal_block(3, &mut body).unwrap();
        assert_eq!(body, b"payload");
    }
}
