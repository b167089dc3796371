//! Chaos on real processes and containers: a short run, as CI can afford it.
//!
//! Long ones are `cargo xtask chaos --minutes 30`. What judges the run has tests of its own in
//! `crates/chaos`, with bad histories that it must object to; here it meets a real cluster.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use cluster_chaos::{Fault, Options};
use cluster_tests::{Cluster, install};

/// Room for an image, its containers and the log.
const DISK: u64 = 512 << 20;
/// Fixed, so that the same faults meet the same nodes in every run.
const SEED: u64 = 5;

#[test]
fn a_minute_of_chaos() {
    let cluster = Cluster::bare("chaos", 3, 3, |options| options.disk = Some(DISK));
    cluster.lab().load_image(&install::web_archive()).expect("the image loads");
    let options = Options::new(SEED, Duration::from_secs(60));
    let mut story = String::new();
    let verdict =
        cluster_chaos::run(cluster.lab(), &options, &AtomicBool::new(false), &mut |line| {
            eprintln!("{line}");
            story.push_str(line);
        });
    let verdict = verdict.expect("the run is carried out");
    eprintln!("{verdict}");
    assert!(verdict.is_good(), "{verdict}\n{}", cluster.story());
    // A judge who saw nothing has nothing to object to.
    assert!(verdict.faults() >= 6, "{verdict}");
    for (noun, least) in [("create", 5), ("update", 50), ("remove", 5), ("read", 200), ("drain", 2)]
    {
        assert!(verdict.acknowledged(noun) >= least, "{noun}: {verdict}");
    }
    assert!(verdict.visits() > 200, "{verdict}");
    assert!(verdict.judged_samples() > 20, "{verdict}");
    for kind in ["power off", "kill -9"] {
        assert!(story.contains(kind), "the seed brings no {kind}: {story}");
    }
}

/// Faults that are asked for come, and no others.
#[test]
fn a_leader_that_dies_again_and_again() {
    let cluster = Cluster::up("chaos", 3, 1);
    let mut options = Options::new(SEED, Duration::from_secs(20));
    options.faults = vec![Fault::Leader];
    let mut story = Vec::new();
    let verdict =
        cluster_chaos::run(cluster.lab(), &options, &AtomicBool::new(false), &mut |line| {
            story.push(line.to_owned());
        });
    let verdict = verdict.expect("the run is carried out");
    assert!(verdict.is_good(), "{verdict}\n{story:#?}\n{}", cluster.story());
    assert!(verdict.faults() >= 2, "{story:#?}");
    let others = ["worker-1", "power", "disk", "links"];
    assert!(!story.iter().any(|line| others.iter().any(|word| line.contains(word))), "{story:#?}");
}
