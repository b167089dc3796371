//! The simulation as a test: it repeats itself exactly, and a few seeds hold.

use cluster_sim::sim::{Options, run};

#[test]
fn the_same_seed_gives_the_same_run() {
    let first = run(Options::seed(7));
    let other = run(Options::seed(8));
    let again = run(Options::seed(7));
    assert_eq!(first.hash, again.hash, "{:#?}\n{:#?}", first.story, again.story);
    assert_ne!(first.hash, other.hash);
}
