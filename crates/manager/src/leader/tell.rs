//! A follower tells the leader which nodes it hears.

use std::time::Duration;

use cluster_pb::peer::v1::HeardNodes;
use cluster_pb::peer::v1::peer_client::PeerClient;
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::ReceiverStream;

use crate::context::Context;

/// Well under a lease, so that telling adds little to the time a lost node is noticed.
const PERIOD: Duration = Duration::from_millis(250);
/// How long acknowledgements are gathered.
const DEBOUNCE: Duration = Duration::from_millis(2);
/// Pause before the stream is opened again.
const RETRY: Duration = Duration::from_millis(100);
/// Nodes in one message.
const NODES_MAX: usize = 5000;
/// Messages waiting for the connection.
const QUEUE: usize = 4;

pub async fn run(context: Context, leader_address: String) -> anyhow::Result<()> {
    loop {
        if let Err(error) = tell(&context, &leader_address).await {
            tracing::debug!(address = leader_address, error = %error, "not telling the leader");
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Speaks and listens beside each other, so that neither side waits for the other to read.
async fn tell(context: &Context, leader_address: &str) -> anyhow::Result<()> {
    let channel = context.manager_channel(leader_address)?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    let mut client = PeerClient::new(channel);
    let listen = async {
        let mut answers = client.hear(ReceiverStream::new(receiver)).await?.into_inner();
        while let Some(heard) = answers.next().await {
            context.dispatch.contact.confirm();
            context.dispatch.raise_withdrawn(heard?.withdrawn_version);
        }
        anyhow::bail!("the stream ended")
    };
    tokio::select! {
        ended = listen => ended,
        ended = speak(context, sender) => ended,
    }
}

async fn speak(context: &Context, sender: mpsc::Sender<HeardNodes>) -> anyhow::Result<()> {
    let mut acknowledged = context.dispatch.hearing.watch_acknowledged();
    let mut period = tokio::time::interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut all = true;
    loop {
        let digest = context.dispatch.hearing.digest(std::mem::take(&mut all));
        // Also when nobody was heard: the answer proves that there is a leader.
        let mut rest = digest.as_slice();
        loop {
            let (nodes, more) = rest.split_at(rest.len().min(NODES_MAX));
            let manager = Some(context.dispatch.wellbeing.own());
            sender.send(HeardNodes { nodes: nodes.to_vec(), manager }).await?;
            if more.is_empty() {
                break;
            }
            rest = more;
        }
        tokio::select! {
            // Stop signals wait for acknowledgements: they do not wait for the period. All workers
            // acknowledge a change at once, so those that come together are told together.
            changed = acknowledged.changed() => {
                changed?;
                tokio::time::sleep(DEBOUNCE).await;
                acknowledged.mark_unchanged();
            }
            _ = period.tick() => {}
        }
    }
}
