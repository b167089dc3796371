//! What this binary is, for `--version` and the first log line.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildInfo {
    pub version: &'static str,
    /// `unknown` unless CLUSTER_BUILD_COMMIT was set while building.
    pub commit: &'static str,
    pub profile: &'static str,
    pub target: &'static str,
}

pub const fn build_info() -> BuildInfo {
    BuildInfo {
        version: env!("CARGO_PKG_VERSION"),
        commit: match option_env!("CLUSTER_BUILD_COMMIT") {
            Some(commit) => commit,
            None => "unknown",
        },
        profile: if cfg!(debug_assertions) { "debug" } else { "release" },
        target: std::env::consts::ARCH,
    }
}

impl fmt::Display for BuildInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, commit, profile, target } = self;
        write!(f, "{version} (commit {commit}, {profile}, {target})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line() {
        let text = build_info().to_string();
        assert!(text.starts_with(env!("CARGO_PKG_VERSION")) && !text.contains('\n'), "{text}");
    }
}
