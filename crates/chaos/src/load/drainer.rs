//! Draining one worker after the other, and making it usable again.

use std::time::{Duration, Instant};

use rand::seq::IndexedRandom;

use super::client::Client;
use crate::error::{Error, Result};

const PAUSE: Duration = Duration::from_millis(200);

pub(super) async fn run(mut client: Client, nodes: Vec<String>) {
    while !client.shared.is_calm() {
        client.rest(6000..12000).await;
        let Some(name) = nodes.choose(&mut client.random).cloned() else { return };
        if client.shared.is_calm() {
            return;
        }
        set(&mut client, &name, "drain").await;
        client.rest(2000..5000).await;
        // Tried until it works: a forgotten drain would starve the others.
        while !set(&mut client, &name, "active").await && !client.shared.is_calm() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// One try, by the version read just now; whether the node is so afterwards.
async fn set(client: &mut Client, name: &str, availability: &str) -> bool {
    match client.read_node(name).await {
        Ok(Some(read)) if read.object.availability == availability => true,
        Ok(Some(read)) => client.set_availability(&read, availability).await,
        // Nothing to set.
        Ok(None) => true,
        Err(_) => false,
    }
}

/// Makes every worker usable again.
pub(super) async fn undrain_all(client: &mut Client, within: Duration) -> Result<()> {
    let deadline = Instant::now() + within;
    let nodes = client.nodes(within).await?;
    for name in nodes {
        while !set(client, &name, "active").await {
            if Instant::now() > deadline {
                let reason = format!("{name} stays drained");
                return Err(Error::Talk { doing: "making the nodes usable again", reason });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}
