//! Work of which `cargo xtask bench check` counts the instructions: one case a run.
//!
//! A case is the world alone, or the world and something done in it; the difference is what counts.
//! Nothing here looks at a clock, so that the same build counts the same.

#[path = "shared/world.rs"]
mod world;

use std::collections::BTreeSet;

use cluster_model::{
    Change, Command, NodeId, Observed, ServiceId, State, StatusReport, TaskId, apply,
};
use cluster_planner::{Ids, Scope, plan};

use world::{Shape, World};

const NODES: u64 = 1_000;
const SERVICES: u64 = 100;
const REPLICAS: u32 = 100;

fn main() {
    let case = std::env::args().nth(1).unwrap_or_default();
    let done = match case.as_str() {
        "world" => world(Shape::Plain).index as usize,
        "world-spread" => world(Shape::Spread).index as usize,
        "place" => place(&mut world(Shape::Plain)),
        "place-spread" => place(&mut world(Shape::Spread)),
        "rest" => {
            let mut world = world(Shape::Plain);
            place(&mut world);
            rest(&world)
        }
        "one" => {
            let mut world = world(Shape::Plain);
            place(&mut world);
            one(&world)
        }
        "report" => {
            let mut world = world(Shape::Plain);
            place(&mut world);
            report(&mut world)
        }
        "compare" => {
            let mut world = world(Shape::Plain);
            place(&mut world);
            compare(&mut world)
        }
        _ => {
            eprintln!(
                "error: `{case}` is no case; use world, world-spread, place, place-spread, rest, one, \
                 report or compare"
            );
            std::process::exit(2);
        }
    };
    println!("{case}: {done}");
}

fn world(shape: Shape) -> World {
    World::new(NODES, SERVICES, REPLICAS, shape)
}

/// Plans and applies until nothing is left; answers how many tasks were placed.
fn place(world: &mut World) -> usize {
    let mut ids = Ids::new(1);
    let mut placed = 0;
    loop {
        let pass = plan(&world.state, Scope::All, 2, &mut ids);
        if pass.changes.is_empty() {
            return placed;
        }
        placed += pass.changes.iter().filter(|c| matches!(c, Change::Assign { .. })).count();
        world.write(Command::Plan { at_ms: 2, changes: pass.changes });
    }
}

/// A pass over everything that finds nothing.
fn rest(world: &World) -> usize {
    plan(&world.state, Scope::All, 2, &mut Ids::new(1)).changes.len()
}

/// A pass over one service that finds nothing, a hundred times.
fn one(world: &World) -> usize {
    let one = BTreeSet::from([ServiceId(7)]);
    let pass = |_| plan(&world.state, Scope::Services(&one), 2, &mut Ids::new(1)).changes.len();
    (0..100).map(pass).sum()
}

/// All tasks say that they run.
fn report(world: &mut World) -> usize {
    let say =
        |(task, node): (TaskId, NodeId)| (node, StatusReport::new(task, Observed::Running, 3));
    let tasks = world.state.tasks().filter_map(|task| Some((task.id, task.node?)));
    let reports: Vec<_> = tasks.map(say).collect();
    let count = reports.len();
    world.write(Command::RecordStatus { reports });
    count
}

/// Views before and after one report, compared a hundred times.
fn compare(world: &mut World) -> usize {
    let mut changed = 0;
    let tasks: Vec<_> =
        world.state.tasks().take(100).filter_map(|task| Some((task.id, task.node?))).collect();
    for (task, node) in tasks {
        let before: State = world.state.clone();
        let report = StatusReport::new(task, Observed::Running, 3);
        let command = Command::RecordStatus { reports: vec![(node, report)] };
        world.index += 1;
        assert!(apply(&mut world.state, world.index, &command).reply.is_ok());
        changed += world.state.changes(&before).tasks.len();
    }
    changed
}
