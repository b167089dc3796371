//! A watch shows a service going forward: no older index, and no older version, after a newer one.

use crate::client::What;

use super::{Look, Violation, broken};

pub(super) fn check(look: &Look<'_>) -> Result<(), Violation> {
    for call in look.calls {
        let What::Watch { id, seen } = &call.what else { continue };
        for pair in seen.windows(2) {
            let ((index, version), (next_index, next_version)) = (pair[0], pair[1]);
            if next_index <= index || next_version < version {
                let text = format!(
                    "a watch of {id} showed version {version} at index {index} and then \
                     {next_version} at {next_index}"
                );
                return broken("watches go forward", text);
            }
        }
    }
    Ok(())
}
