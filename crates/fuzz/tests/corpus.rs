//! Gives every kept input to its target, as a fuzzer would, and holds the lists together: targets
//! in code, binaries of `fuzz/`, folders of inputs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cluster_fuzz::{Bounded, TARGETS, Target};

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

/// An input for which a target takes longer is refused like one that makes it panic; on a busy
/// machine they take some milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// A kept input is small.
const BYTES_MAX: u64 = 64 << 10;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn inputs(target: &Target) -> Vec<PathBuf> {
    let folder = fuzz().join("corpus").join(target.name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

fn replay(target: &Target) {
    let inputs = inputs(target);
    assert!(!inputs.is_empty(), "{} has no inputs", target.name);
    for path in inputs {
        let bytes = fs::read(&path).expect("a kept input");
        // The last line before a panic says which input it was.
        println!("{}", path.display());
        assert!(bytes.len() as u64 <= BYTES_MAX, "{} is too large to keep", path.display());
        let begin = Instant::now();
        (target.run)(&bytes);
        assert!(begin.elapsed() < PATIENCE, "{}: {:?}", path.display(), begin.elapsed());
    }
}

macro_rules! replays {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                replay(cluster_fuzz::find(stringify!($name)).expect("a target"));
            }
        )*

        const REPLAYED: &[&str] = &[$(stringify!($name)),*];
    };
}

replays![
    spec,
    session,
    raft_messages,
    commands,
    log_records,
    snapshot,
    state_file,
    documents,
    layer,
    archive,
    reference,
    constraint,
    cron,
    flags,
    command_line,
    token,
    certificate,
    identity,
    worker_files,
    container,
    mesh,
];

/// What no input of a corpus holds: nothing, and a lot of the same.
#[test]
fn nothing_and_monotony_are_survived() {
    for target in TARGETS {
        (target.run)(&[]);
        for byte in [0, b'(', b'[', b'{', 0x80, 0xff] {
            (target.run)(&vec![byte; 4096]);
        }
    }
}

#[test]
fn every_target_is_replayed_has_a_binary_and_inputs() {
    let targets: BTreeSet<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(targets.len(), TARGETS.len(), "two targets have one name");
    assert_eq!(REPLAYED.iter().copied().collect::<BTreeSet<_>>(), targets, "replays");
    let names = |folder: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(fuzz().join(folder)).unwrap();
        let name = |path: PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
        entries.map(|entry| name(entry.unwrap().path())).collect()
    };
    let targets: BTreeSet<String> = targets.into_iter().map(str::to_owned).collect();
    assert_eq!(names("fuzz_targets"), targets, "fuzz/fuzz_targets");
    assert_eq!(names("corpus"), targets, "fuzz/corpus");
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for name in targets {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "fuzz/Cargo.toml lacks {name}");
    }
}
