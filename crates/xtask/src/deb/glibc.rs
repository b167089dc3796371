//! Which C library the programs need: the packages promise Debian 12 and Ubuntu 22.04 or later.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::BINARIES;

/// Ubuntu 22.04 has it; Debian 12 has 2.36.
const NEWEST: Version = Version(2, 35);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32);

/// Fails when one needs a newer one, and says what they need.
pub fn check(folder: &Path) -> Result<()> {
    for binary in BINARIES {
        let path = folder.join(binary);
        let output =
            Command::new("objdump").arg("-p").arg(&path).output().context("running objdump")?;
        if !output.status.success() {
            bail!("objdump cannot read {} ({})", path.display(), output.status);
        }
        let Some(needed) = needed(&String::from_utf8_lossy(&output.stdout)) else {
            bail!("{} names no version of the C library", path.display());
        };
        println!("    {binary} needs glibc {}.{}", needed.0, needed.1);
        if needed > NEWEST {
            bail!(
                "{binary} needs glibc {}.{}, and packages promise {}.{} (Ubuntu 22.04): build them on \
                 Debian 12 or Ubuntu 22.04",
                needed.0,
                needed.1,
                NEWEST.0,
                NEWEST.1
            );
        }
    }
    Ok(())
}

/// The newest that is referred to.
fn needed(headers: &str) -> Option<Version> {
    let words = headers.split_ascii_whitespace();
    words.filter_map(|word| parse(word.strip_prefix("GLIBC_")?)).max()
}

/// `2.34`, and `2.2.5` as 2.2.
fn parse(text: &str) -> Option<Version> {
    let mut numbers = text.split('.').map(str::parse);
    Some(Version(numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_counts_as_a_number() {
        let headers = "Version References:\n  required from libc.so.6:\n\
                       0x09691a75 0x00 17 GLIBC_2.2.5\n    0x06969194 0x00 14 GLIBC_2.34\n\
                       0x069691b3 0x00 06 GLIBC_2.4\n  required from libgcc_s.so.1:\n\
                       0x0b792650 0x00 08 GCC_3.0\n 0x1 0x00 02 GLIBC_PRIVATE\n";
        assert_eq!(needed(headers), Some(Version(2, 34)));
        assert!(Version(2, 36) > NEWEST && Version(2, 4) < NEWEST);
        assert_eq!(needed("nothing"), None);
    }
}
