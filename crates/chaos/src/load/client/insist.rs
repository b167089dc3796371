//! Questions that are asked until they are answered, since asking twice does no harm.

use std::time::{Duration, Instant};

use cluster_pb::control::v1 as pb;
use cluster_pb::types::v1 as types;

use super::{Client, Control, Failed, Read, outcome};
use crate::error::{Error, Result};
use crate::history::{Outcome, Refusal};

const PAUSE: Duration = Duration::from_millis(200);

impl Client {
    /// As [`Client::read`], again and again until there is an answer.
    pub async fn read_surely(
        &mut self,
        name: &str,
        within: Duration,
    ) -> Result<Option<Read<types::Service>>> {
        let deadline = Instant::now() + within;
        loop {
            match self.read(name).await {
                Ok(read) => return Ok(read),
                Err(failed) if Instant::now() > deadline => {
                    let reason = format!("{failed:?}");
                    return Err(Error::Talk { doing: "reading a service", reason });
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    pub async fn list(&mut self, within: Duration) -> Result<Vec<types::Service>> {
        let answer = self.insist(within, "listing the services", async |client| {
            let request = pb::ListServicesRequest::default();
            client
                .ask(request, async |mut control: Control, request| {
                    control.list_services(request).await
                })
                .await
        });
        Ok(answer.await?.services)
    }

    /// Names of the workers.
    pub async fn nodes(&mut self, within: Duration) -> Result<Vec<String>> {
        let answer = self.insist(within, "listing the nodes", async |client| {
            let request = pb::ListNodesRequest::default();
            client
                .ask(request, async |mut control: Control, request| {
                    control.list_nodes(request).await
                })
                .await
        });
        let workers = answer.await?.nodes.into_iter().filter(|node| node.role == "worker");
        Ok(workers.map(|node| node.name).collect())
    }

    async fn info(&mut self, within: Duration) -> Result<pb::GetClusterResponse> {
        self.insist(within, "asking who leads", async |client| {
            let request = pb::GetClusterRequest::default();
            client
                .ask(request, async |mut control: Control, request| {
                    control.get_cluster(request).await
                })
                .await
        })
        .await
    }

    pub async fn leader(&mut self, within: Duration) -> Result<String> {
        let info = self.info(within).await?;
        let leader = info.managers.into_iter().find(|manager| manager.leader);
        leader.map(|leader| leader.name).ok_or_else(|| Error::Talk {
            doing: "asking who leads",
            reason: "nobody does".to_owned(),
        })
    }

    pub async fn voters(&mut self, within: Duration) -> Result<Vec<String>> {
        let managers = self.info(within).await?.managers;
        Ok(managers.into_iter().filter(|one| one.voter).map(|one| one.name).collect())
    }

    pub async fn remove_node(&mut self, name: &str, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            let request = pb::RemoveNodeRequest { node: name.to_owned(), force: true };
            let answer = Box::pin(self.ask(request, async |mut control: Control, request| {
                control.remove_node(request).await
            }))
            .await;
            match answer {
                Ok(_) => return Ok(()),
                // An attempt before this one may have done it.
                Err(failed) if outcome(&failed) == Outcome::Refused(Refusal::NotFound) => {
                    return Ok(());
                }
                Err(failed) if Instant::now() > deadline => {
                    let reason = format!("{failed:?}");
                    return Err(Error::Talk { doing: "removing a node", reason });
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Asks again until there is an answer: for what may be asked twice.
    pub async fn insist<T>(
        &mut self,
        within: Duration,
        doing: &'static str,
        mut ask: impl AsyncFnMut(&mut Self) -> Result<T, Failed>,
    ) -> Result<T> {
        let deadline = Instant::now() + within;
        loop {
            match ask(self).await {
                Ok(answer) => return Ok(answer),
                Err(failed) if Instant::now() > deadline => {
                    return Err(Error::Talk { doing, reason: format!("{failed:?}") });
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}
