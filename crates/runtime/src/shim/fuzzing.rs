//! What fuzz targets call of the shim: the tables of users in an image. The module exists under
//! the feature `fuzzing` alone.

use super::user;

/// Looks a user up in an image's `/etc/passwd` and `/etc/group`.
pub fn identify(user: &str, passwd: &str, group: &str) -> Result<(u32, u32), String> {
    user::identify(user, passwd, group).map(|identity| (identity.uid, identity.gid))
}
