//! Where a manager keeps its data keys: `keys.json` in its data folder.
//!
//! Without a lock the keys stand there as they are, and only root reads the folder. With one they
//! are sealed under the cluster's unlock key, and the manager's own private key is sealed with a
//! key from the same file. Locking, unlocking for good and a new unlock key each make a new data
//! key, so that a copy of the file from before does not open what is written afterwards; older
//! data keys stay for as long as a file needs them.
//!
//! The file is replaced in one step: a crash leaves the old one or the new one, and both open
//! everything that is on disk.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cluster_daemon::fsx;
use cluster_identity::{Identity, IdentityError, UnlockKey};
use serde::{Deserialize, Serialize};

use crate::raft::cipher::{seal_small, unseal_small};
use crate::raft::{DataKey, KEY, Keyring};

const FILE: &str = "keys.json";
const VERSION: u32 = 1;
/// Longer than any file is being written.
const GRACE: Duration = Duration::from_secs(3600);
const RING: &[u8] = b"cluster data keys";
const IDENTITY: &[u8] = b"cluster manager key";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is damaged; put it back from a backup of this manager, or join again with an empty data folder", path.display())]
    Damaged { path: PathBuf },
    #[error("{} has version {found}; this program reads version {VERSION}", path.display())]
    NewerVersion { path: PathBuf, found: u32 },
    #[error("{} is locked", path.display())]
    Locked { path: PathBuf },
    #[error(
        "the unlock key is not the one that {} is locked with; nothing was changed. A manager that \
         was away while the key was rotated needs the one from before",
        path.display()
    )]
    WrongKey { path: PathBuf },
    #[error("cannot keep the manager's certificate")]
    Identity(#[from] IdentityError),
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: fsx::Error,
    },
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    /// The wish of the state for new data keys that was followed last.
    #[serde(default)]
    epoch: u64,
    /// Log index of the state that the lock follows.
    #[serde(default, skip_serializing_if = "is_zero")]
    index: u64,
    /// In the clear, or sealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<Kept>,
    #[serde(skip_serializing_if = "Option::is_none")]
    locked: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    /// The current one first.
    data: Vec<KeptKey>,
    /// What the manager's private key is sealed with.
    identity: String,
    /// What it was sealed with before, while it is being sealed anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity_before: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct KeptKey {
    id: String,
    key: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(index: &u64) -> bool {
    *index == 0
}

/// The keys of one data folder.
pub struct KeyStore {
    dir: PathBuf,
    ring: Keyring,
    now: Mutex<Now>,
}

#[derive(Clone)]
struct Now {
    lock: Option<UnlockKey>,
    identity: [u8; KEY],
    /// Until the private key is sealed with the new one.
    identity_before: Option<[u8; KEY]>,
    epoch: u64,
    index: u64,
    /// Keys that were current in this process, and since when they are not: a file may just be
    /// written with one.
    retired: HashMap<u64, Instant>,
}

impl KeyStore {
    /// Opens the folder's keys, making them if there are none; new ones are written down by
    /// [`KeyStore::keep`]. A locked file needs its key.
    pub fn open(dir: &Path, unlock: Option<&UnlockKey>) -> Result<Self, Error> {
        let path = dir.join(FILE);
        let damaged = || Error::Damaged { path: path.clone() };
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::make(dir));
            }
            Err(source) => return Err(Error::Read { path, source }),
        };
        let file: File = serde_json::from_slice(&text).map_err(|_| damaged())?;
        if file.version != VERSION {
            return Err(Error::NewerVersion { path, found: file.version });
        }
        let (kept, lock) = match (file.keys, file.locked) {
            (Some(kept), None) => (kept, None),
            (None, Some(sealed)) => {
                let Some(key) = unlock else { return Err(Error::Locked { path }) };
                let sealed = hex::decode(sealed).map_err(|_| damaged())?;
                let opened = unseal_small(key.as_bytes(), RING, &sealed);
                let opened = opened.ok_or_else(|| Error::WrongKey { path: path.clone() })?;
                let kept = serde_json::from_slice(&opened).map_err(|_| damaged())?;
                (kept, Some(key.clone()))
            }
            _ => return Err(damaged()),
        };
        let key = |text: &str| -> Option<[u8; KEY]> { hex::decode(text).ok()?.try_into().ok() };
        let mut keys = Vec::with_capacity(kept.data.len());
        for KeptKey { id, key: text } in &kept.data {
            let id = u64::from_str_radix(id, 16).map_err(|_| damaged())?;
            keys.push(DataKey::new(id, key(text).ok_or_else(damaged)?));
        }
        if keys.is_empty() {
            return Err(damaged());
        }
        let identity = key(&kept.identity).ok_or_else(damaged)?;
        let before = kept.identity_before.as_deref();
        let identity_before = before.map(|text| key(text).ok_or_else(damaged)).transpose()?;
        let current = keys.remove(0);
        let ring = Keyring::new(current, keys);
        let File { epoch, index, .. } = file;
        let retired = HashMap::new();
        let now = Now { lock, identity, identity_before, epoch, index, retired };
        Ok(Self { dir: dir.to_owned(), ring, now: Mutex::new(now) })
    }

    fn make(dir: &Path) -> Self {
        let identity = *DataKey::generate().expose();
        let retired = HashMap::new();
        let now = Now { lock: None, identity, identity_before: None, epoch: 0, index: 0, retired };
        let ring = Keyring::new(DataKey::generate(), Vec::new());
        Self { dir: dir.to_owned(), ring, now: Mutex::new(now) }
    }

    /// Whether the folder has keys: one of an older program has none, and its files are in the clear.
    pub fn is_kept(&self) -> bool {
        self.dir.join(FILE).exists()
    }

    /// Writes keys that were made down, before anything is encrypted with them.
    pub fn keep(&self) -> Result<(), Error> {
        let now = self.now();
        if self.is_kept() {
            return Ok(());
        }
        self.write(&now, &self.ring.all())
    }

    /// What log and snapshots are encrypted with; follows changes made here.
    pub fn ring(&self) -> Keyring {
        self.ring.clone()
    }

    /// Whether the folder is locked with exactly this.
    pub fn has_lock(&self, wanted: Option<&UnlockKey>) -> bool {
        match (&self.now().lock, wanted) {
            (Some(ours), Some(wanted)) => ours.matches(wanted),
            (None, None) => true,
            _ => false,
        }
    }

    /// The wish for new data keys that was followed last.
    pub fn epoch(&self) -> u64 {
        self.now().epoch
    }

    /// What the folder is locked with.
    pub fn lock(&self) -> Option<UnlockKey> {
        self.now().lock.clone()
    }

    /// Log index of the state that the lock follows: an older state's wish is old news.
    pub fn index(&self) -> u64 {
        self.now().index
    }

    /// Locks the folder with a key, or with none, as the state of a log index wants it; makes a new
    /// data key, and a new one for the manager's private key, since copies of the old ones may exist.
    /// The lock is complete once [`KeyStore::store_identity`] has sealed the private key with it.
    pub fn set_lock(&self, lock: Option<UnlockKey>, epoch: u64, index: u64) -> Result<(), Error> {
        let mut now = self.now();
        let next = Now {
            lock,
            identity: *DataKey::generate().expose(),
            identity_before: Some(now.identity),
            epoch,
            index,
            retired: now.retired.clone(),
        };
        *now = self.renew(next)?;
        Ok(())
    }

    /// Whether the private key is kept as the lock wants it.
    pub fn is_complete(&self) -> bool {
        self.now().identity_before.is_none()
    }

    /// Makes a new data key; what is written from now on uses it.
    pub fn rotate(&self, epoch: u64) -> Result<(), Error> {
        let mut now = self.now();
        let next = Now { epoch, ..now.clone() };
        *now = self.renew(next)?;
        Ok(())
    }

    /// On disk first: a file under a key that nobody has would be lost.
    fn renew(&self, mut next: Now) -> Result<Now, Error> {
        let mut keys = vec![DataKey::generate()];
        keys.extend(self.ring.all());
        self.write(&next, &keys)?;
        next.retired.insert(keys[1].id(), Instant::now());
        let current = keys.remove(0);
        self.ring.replace(current, keys);
        Ok(next)
    }

    /// Forgets data keys that no file needs any more; answers how many.
    pub fn forget_unneeded(&self, needed: &BTreeSet<Option<u64>>) -> Result<usize, Error> {
        let now = self.now();
        let current = self.ring.current();
        let mut older = self.ring.all();
        older.remove(0);
        let before = older.len();
        let may_be_used = |id| now.retired.get(&id).is_some_and(|at| at.elapsed() < GRACE);
        older.retain(|key| needed.contains(&Some(key.id())) || may_be_used(key.id()));
        let forgotten = before - older.len();
        if forgotten > 0 {
            let all: Vec<_> = std::iter::once(&current).chain(&older).cloned().collect();
            self.write(&now, &all)?;
            self.ring.replace(current, older);
        }
        Ok(forgotten)
    }

    /// The manager's identity, whatever its age.
    pub fn load_identity(&self) -> Result<Identity, IdentityError> {
        let Now { identity, identity_before, .. } = self.now().clone();
        Identity::load_sealed(&self.dir, |sealed| {
            let sealed = hex::decode(sealed).ok()?;
            let mut secrets = std::iter::once(identity).chain(identity_before);
            let opened = secrets.find_map(|secret| unseal_small(&secret, IDENTITY, &sealed))?;
            String::from_utf8(opened).ok()
        })
    }

    /// Keeps the manager's identity, its key sealed while the folder is locked.
    pub fn store_identity(&self, identity: &Identity) -> Result<(), Error> {
        let mut now = self.now();
        match now.lock {
            None => identity.store(&self.dir)?,
            Some(_) => identity.store_sealed(&self.dir, |pem| {
                hex::encode(seal_small(&now.identity, IDENTITY, pem.as_bytes()))
            })?,
        }
        if now.identity_before.is_some() {
            let next = Now { identity_before: None, ..now.clone() };
            self.write(&next, &self.ring.all())?;
            *now = next;
        }
        Ok(())
    }

    fn write(&self, now: &Now, keys: &[DataKey]) -> Result<(), Error> {
        let kept = Kept {
            data: keys
                .iter()
                .map(|key| KeptKey {
                    id: format!("{:016x}", key.id()),
                    key: hex::encode(key.expose()),
                })
                .collect(),
            identity: hex::encode(now.identity),
            identity_before: now.identity_before.map(hex::encode),
        };
        let path = self.dir.join(FILE);
        let unwritable = |_| Error::Damaged { path: path.clone() };
        let (version, epoch, index) = (VERSION, now.epoch, now.index);
        let file = match &now.lock {
            None => File { version, epoch, index, keys: Some(kept), locked: None },
            Some(key) => {
                let bytes = serde_json::to_vec(&kept).map_err(unwritable)?;
                let sealed = hex::encode(seal_small(key.as_bytes(), RING, &bytes));
                File { version, epoch, index, keys: None, locked: Some(sealed) }
            }
        };
        let bytes = serde_json::to_vec_pretty(&file).map_err(unwritable)?;
        fsx::write_atomic(&path, &bytes, 0o600).map_err(|source| Error::Write { path, source })
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(store: &KeyStore) -> Vec<u64> {
        store.ring().all().iter().map(DataKey::id).collect()
    }

    #[test]
    fn keys_are_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let store = KeyStore::open(dir.path(), None).unwrap();
        assert!(!dir.path().join(FILE).exists(), "nothing is left of a start that is refused");
        store.keep().unwrap();
        let made = ids(&store);
        assert_eq!(ids(&KeyStore::open(dir.path(), None).unwrap()), made);
        let mode = std::os::unix::fs::MetadataExt::mode(
            &std::fs::metadata(dir.path().join(FILE)).unwrap(),
        );
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(dir.path().join(FILE), b"{}").unwrap();
        assert!(matches!(
            KeyStore::open(dir.path(), None),
            Err(Error::NewerVersion { .. }) | Err(Error::Damaged { .. })
        ));
    }

    #[test]
    fn a_lock_hides_the_keys_and_a_wrong_key_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (key, wrong) = (UnlockKey::generate().unwrap(), UnlockKey::generate().unwrap());
        let store = KeyStore::open(dir.path(), None).unwrap();
        let before = store.ring().current();
        store.set_lock(Some(key.clone()), 0, 0).unwrap();
        assert!(
            store.has_lock(Some(&key)) && !store.has_lock(None) && !store.has_lock(Some(&wrong))
        );
        let current = store.ring().current();
        assert_ne!(current.id(), before.id(), "what stood there in the clear is used no more");
        let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert!(!text.contains(&hex::encode(current.expose())));
        assert!(!text.contains(&hex::encode(before.expose())));
        assert!(matches!(KeyStore::open(dir.path(), None), Err(Error::Locked { .. })));
        assert!(matches!(KeyStore::open(dir.path(), Some(&wrong)), Err(Error::WrongKey { .. })));
        let again = KeyStore::open(dir.path(), Some(&key)).unwrap();
        assert_eq!(ids(&again), [current.id(), before.id()]);
        again.set_lock(Some(wrong.clone()), 0, 0).unwrap();
        assert!(matches!(KeyStore::open(dir.path(), Some(&key)), Err(Error::WrongKey { .. })));
        let again = KeyStore::open(dir.path(), Some(&wrong)).unwrap();
        again.set_lock(None, 0, 0).unwrap();
        assert_eq!(KeyStore::open(dir.path(), None).unwrap().ring().all().len(), 4);
    }

    #[test]
    fn keys_that_no_file_needs_are_forgotten_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let store = KeyStore::open(dir.path(), None).unwrap();
        store.rotate(7).unwrap();
        store.rotate(9).unwrap();
        assert_eq!(store.forget_unneeded(&[None].into()).unwrap(), 0, "may be in use");
        let store = KeyStore::open(dir.path(), None).unwrap();
        assert_eq!(store.epoch(), 9);
        let [current, middle, oldest] = ids(&store)[..] else { panic!("three keys") };
        assert_eq!(store.forget_unneeded(&[None, Some(middle), Some(oldest)].into()).unwrap(), 0);
        assert_eq!(store.forget_unneeded(&[None, Some(middle)].into()).unwrap(), 1);
        assert_eq!(ids(&store), [current, middle]);
        assert_eq!(ids(&KeyStore::open(dir.path(), None).unwrap()), [current, middle]);
    }

    #[test]
    fn the_managers_private_key_is_sealed_while_locked() {
        use cluster_identity::{Ca, Role, Subject, now_unix};
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::create("0000000000001", now_unix()).unwrap();
        let subject = Subject {
            role: Role::Manager,
            node_id: "0000000000002".into(),
            cluster_id: "0000000000001".into(),
        };
        let day = std::time::Duration::from_secs(86_400);
        let identity = ca.issue(&subject, now_unix(), day).unwrap();
        let store = KeyStore::open(dir.path(), None).unwrap();
        let text = || std::fs::read_to_string(Identity::path(dir.path())).unwrap();
        store.store_identity(&identity).unwrap();
        assert!(text().contains("PRIVATE KEY"));
        let key = UnlockKey::generate().unwrap();
        store.set_lock(Some(key.clone()), 0, 0).unwrap();
        // As after a crash before the identity was sealed.
        assert!(store.load_identity().is_ok());
        store.store_identity(&identity).unwrap();
        assert!(!text().contains("PRIVATE KEY"));
        assert!(matches!(Identity::load(dir.path()), Err(IdentityError::Sealed { .. })));
        let store = KeyStore::open(dir.path(), Some(&key)).unwrap();
        let read = store.load_identity().unwrap();
        assert_eq!(read.key_pem.expose(), identity.key_pem.expose());
    }

    /// Frozen files: what this release writes, every later one opens. `UPDATE_GOLDEN=1` writes them anew.
    #[test]
    fn files_are_read_as_ever() {
        let unlock = UnlockKey::parse(&format!("CLUSTER-UNLOCK-1-{}", "a".repeat(52))).unwrap();
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        for (name, lock) in [("keys-open.json", None), ("keys-locked.json", Some(&unlock))] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(FILE);
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                let store = KeyStore::open(dir.path(), None).unwrap();
                store.set_lock(lock.cloned(), 41, 0).unwrap();
                std::fs::copy(&path, golden.join(name)).unwrap();
            }
            std::fs::copy(golden.join(name), &path).unwrap();
            let store = KeyStore::open(dir.path(), lock).unwrap();
            assert_eq!((store.epoch(), ids(&store).len()), (41, 2), "{name}");
            assert!(store.has_lock(lock), "{name}");
        }
    }
}
