//! Measures planning: 50,000 tasks of 500 services on 5,000 nodes, then passes at rest.
//!
//! `cargo run --release -p cluster-planner --example placements [-- spread]`

#![allow(clippy::disallowed_methods, reason = "an example may look at the clock")]

#[path = "shared/world.rs"]
mod world;

use std::collections::BTreeSet;
use std::time::Instant;

use cluster_model::{Change, Command, ServiceId};
use cluster_planner::{Ids, Scope, plan};

use world::{Shape, World};

const NODES: u64 = 5_000;
const SERVICES: u64 = 500;
const REPLICAS: u32 = 100;

fn main() {
    let spread = std::env::args().nth(1).is_some_and(|word| word == "spread");
    let shape = if spread { Shape::Spread } else { Shape::Plain };
    let mut world = World::new(NODES, SERVICES, REPLICAS, shape);
    let mut ids = Ids::new(1);
    let mut placements = 0;
    let (mut planning, mut applying) = (0.0, 0.0);
    loop {
        let begin = Instant::now();
        let pass = plan(&world.state, Scope::All, 2, &mut ids);
        planning += begin.elapsed().as_secs_f64();
        if pass.changes.is_empty() {
            println!("full pass at rest: {:.1} ms", begin.elapsed().as_secs_f64() * 1e3);
            break;
        }
        placements += pass.changes.iter().filter(|c| matches!(c, Change::Assign { .. })).count();
        let begin = Instant::now();
        world.write(Command::Plan { at_ms: 2, changes: pass.changes });
        applying += begin.elapsed().as_secs_f64();
    }
    let one = BTreeSet::from([ServiceId(7)]);
    let begin = Instant::now();
    let scoped = plan(&world.state, Scope::Services(&one), 2, &mut ids);
    println!("scoped pass at rest: {:.2} ms", begin.elapsed().as_secs_f64() * 1e3);
    assert!(scoped.changes.is_empty());
    println!(
        "{placements} placements on {NODES} nodes: planned in {planning:.2} s, applied in {applying:.2} s"
    );
    println!(
        "{:.0} placements/s planned, state written speculatively",
        placements as f64 / planning
    );
}
