//! The dispatcher's gRPC service.

use std::pin::Pin;

use cluster_daemon::OnError;
use cluster_pb::dispatcher::v1 as pb;
use cluster_pb::dispatcher::v1::dispatcher_server::Dispatcher;
use futures::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::session;
use crate::api::node_of;
use crate::context::Context;

pub struct DispatcherService {
    pub context: Context,
}

#[tonic::async_trait]
impl Dispatcher for DispatcherService {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<pb::ManagerMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<pb::WorkerMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let node = node_of(&request)?;
        let (sender, receiver) = mpsc::channel(session::QUEUE);
        let session = session::run(self.context.clone(), node, request.into_inner(), sender);
        self.context.dispatch.calls.spawn("session", OnError::Log, session);
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn publish_logs(
        &self,
        request: Request<Streaming<pb::PublishLogsRequest>>,
    ) -> Result<Response<pb::PublishLogsResponse>, Status> {
        let node = node_of(&request)?;
        self.context.dispatch.logs.publish(node, request.into_inner()).await?;
        Ok(Response::new(pb::PublishLogsResponse {}))
    }
}
