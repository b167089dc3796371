//! Whose a data folder is, told without its key: the key may be sealed, and who asks may only want to
//! know whether the folder is free.

use std::io;
use std::path::Path;

use super::{Error, Identity, Stored};
use crate::certificate::{self, CaDigest};
use crate::file;
use crate::role::Role;

/// What the identity file of a folder says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub cluster_id: String,
    pub node_id: String,
    pub role: Role,
    /// Digests of the CAs that are trusted or once were.
    cas: Vec<String>,
}

impl Owner {
    /// The owner of a folder, if it has one.
    pub fn of(dir: &Path) -> Result<Option<Self>, Error> {
        let path = Identity::path(dir);
        let text = match file::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Read { path, source }),
        };
        let stored: Stored =
            serde_json::from_str(&text).map_err(|source| Error::Damaged { path, source })?;
        let present = certificate::chain_der(&stored.ca).unwrap_or_default();
        let present = present.iter().map(|der| CaDigest::of_der(der).to_string());
        let cas = present.chain(stored.former_cas).collect();
        let Stored { cluster_id, node_id, role, .. } = stored;
        Ok(Some(Self { cluster_id, node_id, role, cas }))
    }

    /// Whether a join token with this digest is of the owner's cluster.
    pub fn knew_ca(&self, digest: &CaDigest) -> bool {
        self.cas.contains(&digest.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn a_folder_says_whose_it_is() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Owner::of(folder.path()).unwrap(), None);
        let ca = testing::ca("c1");
        let identity = testing::member(&ca, Role::Worker, "n1");
        identity.store_sealed(folder.path(), |_| "sealed".into()).unwrap();
        let owner = Owner::of(folder.path()).unwrap().expect("an owner");
        assert_eq!((owner.node_id.as_str(), owner.role), ("n1", Role::Worker));
        assert!(owner.knew_ca(&CaDigest::of_pem(&identity.ca_pem).unwrap()));
        let other = testing::member(&testing::ca("c2"), Role::Worker, "n1");
        assert!(!owner.knew_ca(&CaDigest::of_pem(&other.ca_pem).unwrap()));
        std::fs::write(Identity::path(folder.path()), "{").unwrap();
        assert!(Owner::of(folder.path()).is_err());
    }
}
