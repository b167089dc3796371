//! Which of our crates may depend on which, read from `cargo metadata`.

use crate::cargo::{Metadata, Package};

use super::Findings;

/// Every crate and what of ours it may use. A crate that is not listed is a problem: adding one
/// means deciding where it belongs.
const LAYERS: &[(&str, &[&str])] = &[
    // Pure: values in, values out.
    ("cluster-mutants", &[]),
    ("cluster-model", &["cluster-mutants"]),
    ("cluster-planner", &["cluster-model"]),
    // The wire.
    ("cluster-pb", &[]),
    ("cluster-wire", &["cluster-model", "cluster-pb"]),
    // The state as a file: managers write it, clusterctl reads it.
    ("cluster-archive", &["cluster-model"]),
    // Parts that know nothing of the cluster's state.
    ("cluster-identity", &[]),
    ("cluster-daemon", &[]),
    ("cluster-image", &[]),
    ("cluster-runtime", &["cluster-image"]),
    ("cluster-network", &["cluster-identity"]),
    ("cluster-lab", &[]),
    // Putting a daemon on a machine: settings and systemd, checks of the machine.
    ("cluster-install", &["cluster-daemon"]),
    ("cluster-preflight", &["cluster-model", "cluster-pb", "cluster-identity", "cluster-network"]),
    ("cluster-vmlab", &[]),
    // Breaks labs and judges them, as a client of the API.
    ("cluster-chaos", &["cluster-lab", "cluster-pb", "cluster-wire", "cluster-identity"]),
    // Speaks as thousands of workers do.
    ("cluster-scale", &["cluster-model", "cluster-pb", "cluster-wire", "cluster-identity"]),
    // Benches, and nothing else.
    ("cluster-growth", &["cluster-model", "cluster-planner", "cluster-wire"]),
    // Programs, on top and never on each other.
    (
        "cluster-manager",
        &[
            "cluster-mutants",
            "cluster-model",
            "cluster-archive",
            "cluster-planner",
            "cluster-pb",
            "cluster-wire",
            "cluster-identity",
            "cluster-daemon",
            "cluster-install",
            "cluster-preflight",
        ],
    ),
    (
        "cluster-worker",
        &[
            "cluster-mutants",
            "cluster-model",
            "cluster-pb",
            "cluster-wire",
            "cluster-identity",
            "cluster-daemon",
            "cluster-install",
            "cluster-preflight",
            "cluster-image",
            "cluster-runtime",
            "cluster-network",
        ],
    ),
    (
        "cluster-ctl",
        &[
            "cluster-model",
            "cluster-archive",
            "cluster-pb",
            "cluster-wire",
            "cluster-identity",
            "cluster-lab",
            "cluster-preflight",
            "cluster-chaos",
        ],
    ),
    // What packages say about them.
    ("cluster-manual", &["cluster-manager", "cluster-worker", "cluster-ctl"]),
    ("cluster-example-web", &[]),
    ("xtask", &["cluster-lab", "cluster-vmlab"]),
];

/// May see everything.
const TESTS: &[&str] = &["cluster-tests", "cluster-fuzz", "cluster-sim"];

/// Replicated history and leader's opinion must not depend on clock, chance or I/O.
const PURE: &[&str] = &["cluster-model", "cluster-planner"];
const IMPURE: &[&str] = &[
    "async-trait",
    "chrono",
    "futures",
    "getrandom",
    "hyper",
    "log",
    "mio",
    "nix",
    "openraft",
    "prost",
    "rand",
    "rand_core",
    "reqwest",
    "rustls",
    "socket2",
    "tempfile",
    "time",
    "tokio",
    "tokio-stream",
    "tokio-util",
    "tonic",
    "tower",
    "tracing",
    "tracing-subscriber",
];

pub(super) fn check(metadata: &Metadata, findings: &mut Findings) {
    let ours: Vec<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    for package in
        metadata.packages.iter().filter(|package| !TESTS.contains(&package.name.as_str()))
    {
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == package.name) else {
            findings.problems.push(format!(
                "{}: new crate; give it a place in xtask's layer table",
                package.name
            ));
            continue;
        };
        for used in shipped(package).filter(|used| ours.contains(used)) {
            if !allowed.contains(&used) {
                findings.problems.push(format!("{} must not depend on {used}", package.name));
            }
        }
        if PURE.contains(&package.name.as_str()) {
            for used in shipped(package).filter(|used| IMPURE.contains(used)) {
                findings
                    .problems
                    .push(format!("{} is pure and must not depend on {used}", package.name));
            }
        }
    }
}

/// What ends up in the crate; what only its tests use is free.
fn shipped(package: &Package) -> impl Iterator<Item = &str> {
    let dependencies = package.dependencies.iter();
    dependencies.filter(|used| used.kind.as_deref() != Some("dev")).map(|used| used.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cargo::{self, Dependency};

    fn problems(packages: &[(&str, &[&str])]) -> Vec<String> {
        let packages = packages.iter().map(|(name, uses)| Package {
            name: (*name).to_owned(),
            version: "0.0.0".to_owned(),
            manifest_path: "/Cargo.toml".into(),
            dependencies: uses
                .iter()
                .map(|name| Dependency { name: (*name).to_owned(), kind: None })
                .collect(),
            targets: Vec::new(),
        });
        let metadata = Metadata {
            packages: packages.collect(),
            target_directory: "/t".into(),
            workspace_root: "/".into(),
        };
        let mut findings = Findings::default();
        check(&metadata, &mut findings);
        findings.problems
    }

    #[test]
    fn the_workspace_keeps_its_layers() {
        let mut findings = Findings::default();
        check(&cargo::metadata().unwrap(), &mut findings);
        assert_eq!(findings.problems, Vec::<String>::new());
    }

    #[test]
    fn a_clock_or_a_runtime_in_a_pure_crate_is_found() {
        for impure in ["tokio", "tonic", "rand", "time"] {
            let found = problems(&[("cluster-model", &["serde", impure])]);
            assert_eq!(found, [format!("cluster-model is pure and must not depend on {impure}")]);
        }
    }

    #[test]
    fn programs_do_not_use_each_other() {
        let found = problems(&[("cluster-worker", &["cluster-manager"]), ("cluster-manager", &[])]);
        assert_eq!(found, ["cluster-worker must not depend on cluster-manager"]);
    }

    #[test]
    fn a_new_crate_needs_a_place() {
        assert_eq!(problems(&[("cluster-misc", &[])]).len(), 1);
        assert_eq!(
            problems(&[("cluster-tests", &["cluster-lab"]), ("cluster-lab", &[])]),
            Vec::<String>::new()
        );
    }
}
