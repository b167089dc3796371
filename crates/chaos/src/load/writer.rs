//! Writers: read, then create, change or remove by the version that was read.

use std::collections::HashMap;

use cluster_pb::types::v1 as types;
use rand::Rng;
use rand::seq::IndexedRandom;

use super::client::{Client, Read};
use super::spec;

/// Works on a few objects together with the other writers, until the run calms down.
pub(super) async fn run(mut client: Client, names: Vec<String>) {
    let mut known: HashMap<String, Read<types::Service>> = HashMap::new();
    while !client.shared.is_calm() {
        let Some(name) = names.choose(&mut client.random).cloned() else { return };
        step(&mut client, &name, &mut known).await;
        client.pause(40..160).await;
    }
}

async fn step(client: &mut Client, name: &str, known: &mut HashMap<String, Read<types::Service>>) {
    // Now and then by what was read long ago, which must be refused.
    let from_memory = known.contains_key(name) && client.random.random_ratio(1, 6);
    if !from_memory {
        match client.read(name).await {
            Ok(Some(read)) => known.insert(name.to_owned(), read),
            Ok(None) => known.remove(name),
            Err(_) => return,
        };
    }
    if client.random.random_ratio(1, 4) {
        return;
    }
    let Some(read) = known.get(name).cloned() else {
        let image = client.shared.image.clone();
        let replicas = client.random.random_range(1..4);
        // Its outcome is in the history.
        let _ = client.create(spec::service(name, &image, replicas)).await;
        return;
    };
    match spec::change(client, &read) {
        Some(changed) => client.update(&read, changed).await,
        None => client.remove(&read).await,
    }
}

/// Rolls one service from revision to revision.
pub(super) async fn roll(mut client: Client, name: String) {
    let mut revision = 0u32;
    while !client.shared.is_calm() {
        if let Ok(Some(read)) = client.read(&name).await
            && let Some(mut changed) = read.object.spec.clone()
        {
            revision += 1;
            spec::revise(&mut changed, &revision.to_string());
            client.update(&read, changed).await;
        }
        client.rest(3000..7000).await;
    }
}
