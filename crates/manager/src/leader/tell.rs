//! A follower tells the leader which nodes it hears.

use std::time::Duration;

use cluster_pb::peer::v1::HeardNodes;
use cluster_pb::peer::v1::peer_client::PeerClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::context::Context;

/// Well under a lease, so that telling adds little to the time a lost node is noticed.
const PERIOD: Duration = Duration::from_millis(250);
/// Pause before the stream is opened again.
const RETRY: Duration = Duration::from_millis(100);
/// Nodes in one message.
const NODES_MAX: usize = 5000;

pub async fn run(context: Context, leader_address: String) -> anyhow::Result<()> {
    loop {
        if let Err(error) = tell(&context, &leader_address).await {
            tracing::debug!(address = leader_address, error = %error, "not telling the leader");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn tell(context: &Context, leader_address: &str) -> anyhow::Result<()> {
    let channel = context.manager_channel(leader_address)?;
    let (sender, receiver) = mpsc::channel(4);
    let mut acknowledged = context.dispatch.hearing.watch_acknowledged();
    let mut all = true;
    send(context, &sender, &mut all).await?;
    let outbound = ReceiverStream::new(receiver);
    let mut answers = PeerClient::new(channel).hear(outbound).await?.into_inner();
    let mut period = tokio::time::interval(PERIOD);
    loop {
        tokio::select! {
            answer = answers.message() => match answer? {
                Some(heard) => context.dispatch.raise_withdrawn(heard.withdrawn_version),
                None => return Ok(()),
            },
            // Stop signals wait for acknowledgements: they do not wait for the period.
            changed = acknowledged.changed() => {
                changed?;
                send(context, &sender, &mut all).await?;
            }
            _ = period.tick() => send(context, &sender, &mut all).await?,
        }
    }
}

async fn send(context: &Context, sender: &mpsc::Sender<HeardNodes>, all: &mut bool) -> anyhow::Result<()> {
    let digest = context.dispatch.hearing.digest(std::mem::take(all));
    for nodes in digest.chunks(NODES_MAX) {
        sender.send(HeardNodes { nodes: nodes.to_vec() }).await?;
    }
    Ok(())
}
