//! What a state of a million tasks takes in memory, made by commands and read back from its bytes:
//! `cargo run --release -p cluster-growth --example memory`.

#![allow(clippy::print_stdout, reason = "the output of this program")]

use std::collections::HashMap;

use cluster_model::{Change, Command, NodeId, Observed, State, StatusReport, Task, TaskId};
use cluster_planner::{Ids, Scope, plan};
use world::{Shape, World};

#[path = "../../planner/examples/shared/world.rs"]
mod world;

const NODES: u64 = 5_000;
const SERVICES: u64 = 100;
const REPLICAS: u32 = 10_000;

fn main() {
    println!("a task alone: {} bytes", size_of::<Task>());
    let begun = resident();
    let world = run_all();
    let tasks = world.state.task_count();
    let per_task = |bytes: u64| bytes / tasks as u64;
    let made = resident();
    println!("made by commands: {} bytes a task", per_task(made - begun));
    let bytes = postcard::to_allocvec(&world.state).expect("a state that can be encoded");
    println!("encoded: {} bytes a task", per_task(bytes.len() as u64));
    let before = resident();
    let read: State = postcard::from_bytes(&bytes).expect("what was just encoded");
    println!("read back: {} bytes a task", per_task(resident() - before));
    assert_eq!(read.task_count(), tasks, "tasks were lost");
}

/// Service after service, as it is with users: all tasks of one run before the next is placed.
fn run_all() -> World {
    let mut world = World::new(NODES, SERVICES, REPLICAS, Shape::Plain);
    let mut ids = Ids::new(1);
    loop {
        let changes = plan(&world.state, Scope::All, 2, &mut ids).changes;
        if changes.is_empty() {
            return world;
        }
        let assigned: HashMap<TaskId, NodeId> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Assign { task, node, .. } => Some((*task, *node)),
                _ => None,
            })
            .collect();
        world.write(Command::Plan { at_ms: 2, changes });
        let run = |(id, _): (&TaskId, &NodeId)| StatusReport::new(*id, Observed::Running, 3);
        let reports = assigned.iter().map(|entry| (*entry.1, run(entry))).collect();
        world.write(Command::RecordStatus { reports });
    }
}

/// Bytes of memory this process has.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux's /proc");
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("the second number is the pages held") * 4096
}
