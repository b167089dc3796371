//! Talking to a cluster: whichever manager answers first, and the next when it fails.
//!
//! *Flow.* The context's managers are dialled in its order, the next one as soon as the one before
//! fails or is slow; the first whose certificate and first bytes check out serves this process.
//! Nothing is remembered between processes.
//! *Guarantees.* A request is sent again, to another manager, only when it is certain that it
//! changed nothing; a write whose fate is unknown is reported as such.

mod dial;
mod renew;

use std::time::{Duration, Instant};

use cluster_identity::{ChannelOptions, Context, TlsClient, TlsIdentity, find_connect_error};
use cluster_pb::control::v1 as pb;
use cluster_pb::control::v1::control_client::ControlClient;
use cluster_wire::Code;
use cluster_wire::error::code_of;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use crate::error::Error;

type Control = ControlClient<Channel>;

/// Lists are paged, so one answer is never longer than this.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// First wait before a manager that has too much to do is asked again; each is twice as long.
const BUSY_PAUSE: Duration = Duration::from_millis(200);
const LOOK_BEFORE_REPEATING: &str =
    "the change may or may not have happened; look before repeating it";

pub struct Client {
    tls: TlsClient,
    context: String,
    managers: Vec<String>,
    timeout: Duration,
    options: ChannelOptions,
    /// The manager in use, by its place in the list.
    current: Option<(usize, Control)>,
    /// Managers that answered but could not serve.
    useless: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
}

impl Client {
    pub fn new(context: &Context, timeout: Duration) -> Result<Self, Error> {
        let identity = context.identity().map_err(|error| Error::caused(&error))?;
        let identity = TlsIdentity::new(identity).map_err(|error| Error::caused(&error))?;
        Ok(Self {
            tls: TlsClient::manager(&identity),
            context: context.name.clone(),
            managers: context.managers.clone(),
            timeout,
            options: ChannelOptions::default(),
            current: None,
            useless: Vec::new(),
        })
    }

    async fn control(&mut self) -> Result<Control, Error> {
        if let Some((_, control)) = &self.current {
            return Ok(control.clone());
        }
        let (place, channel) = self.dial().await?;
        let control = ControlClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        self.current = Some((place, control.clone()));
        Ok(control)
    }

    /// Forgets the manager in use, so that the next request goes to another.
    pub fn leave_manager(&mut self) {
        if let Some((place, _)) = self.current.take() {
            self.useless.push(place);
        }
    }

    async fn call<Q: Clone, A>(
        &mut self,
        kind: Kind,
        request: Q,
        send: impl AsyncFn(Control, Q) -> Result<Response<A>, Status>,
    ) -> Result<A, Error> {
        let mut last: Option<Error> = None;
        let begun = Instant::now();
        let mut pause = BUSY_PAUSE;
        let mut asked = 0;
        while asked < self.managers.len().max(1) {
            let control = match self.control().await {
                Ok(control) => control,
                // What a manager said tells more than that the others are away.
                Err(error) => return Err(last.unwrap_or(error)),
            };
            let sent = tokio::time::timeout(self.timeout, send(control, request.clone())).await;
            let status = match sent {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => return Err(self.no_answer(kind)),
            };
            // Nothing was done; the others have as much to do.
            if code_of(&status) == Some(Code::Busy) && begun.elapsed() + pause < self.timeout {
                tokio::time::sleep(pause).await;
                pause *= 2;
                continue;
            }
            asked += 1;
            let error = self.describe(kind, &status);
            if !changed_nothing(kind, &status) {
                return Err(error);
            }
            last = Some(error);
            self.leave_manager();
        }
        Err(last.unwrap_or_else(|| Error::unreachable("the context names no manager")))
    }

    fn address(&self) -> &str {
        let place = self.current.as_ref().map(|(place, _)| *place);
        place.and_then(|place| self.managers.get(place)).map_or("the manager", String::as_str)
    }

    fn no_answer(&self, kind: Kind) -> Error {
        let message = format!("{} gave no answer within {:?}", self.address(), self.timeout);
        let error = Error::timed_out(message);
        match kind {
            Kind::Write => error.hint(LOOK_BEFORE_REPEATING),
            Kind::Read => error.hint("allow more time with --timeout, or read with --stale"),
        }
    }

    /// A status from a manager, or from the connection when it carries none of our codes.
    fn describe(&self, kind: Kind, status: &Status) -> Error {
        let broken = code_of(status).is_none()
            && matches!(status.code(), tonic::Code::Unavailable | tonic::Code::Unknown);
        if let Some(cause) = find_connect_error(status) {
            return Error { exit: crate::Exit::Unreachable, ..Error::caused(cause) };
        }
        if !broken {
            return Error::from_status(status);
        }
        let error = Error::unreachable(format!("the connection to {} broke", self.address()))
            .cause(status.message().to_owned());
        if kind == Kind::Write { error.hint(LOOK_BEFORE_REPEATING) } else { error }
    }
}

/// Whether another manager may be asked the same without doing anything twice.
fn changed_nothing(kind: Kind, status: &Status) -> bool {
    if find_connect_error(status).is_some() {
        return true;
    }
    match code_of(status) {
        Some(Code::NoLeader | Code::Stopping) => true,
        Some(_) => false,
        None => kind == Kind::Read && status.code() == tonic::Code::Unavailable,
    }
}

macro_rules! calls {
    ($($kind:ident $name:ident: $request:ident -> $answer:ty;)*) => {
        impl Client {
            $(pub async fn $name(&mut self, request: pb::$request) -> Result<$answer, Error> {
                // Requests carry whole specs: on the heap, commands stay small.
                Box::pin(self.call(Kind::$kind, request, async |mut control: Control, request| {
                    control.$name(request).await
                }))
                .await
            })*
        }
    };
}

calls! {
    Write create_service: CreateServiceRequest -> pb::CreateServiceResponse;
    Write update_service: UpdateServiceRequest -> pb::UpdateServiceResponse;
    Write remove_service: RemoveServiceRequest -> pb::RemoveServiceResponse;
    Read get_service: GetServiceRequest -> pb::GetServiceResponse;
    Read list_services: ListServicesRequest -> pb::ListServicesResponse;
    Read list_tasks: ListTasksRequest -> pb::ListTasksResponse;
    Read watch_service: WatchServiceRequest -> Streaming<pb::WatchServiceResponse>;
    Read list_nodes: ListNodesRequest -> pb::ListNodesResponse;
    Read get_node: GetNodeRequest -> pb::GetNodeResponse;
    Write update_node: UpdateNodeRequest -> pb::UpdateNodeResponse;
    Write remove_node: RemoveNodeRequest -> pb::RemoveNodeResponse;
    Read get_cluster: GetClusterRequest -> pb::GetClusterResponse;
    Write get_token: GetTokenRequest -> pb::GetTokenResponse;
    Write roll_back_service: RollBackServiceRequest -> pb::RollBackServiceResponse;
    Write steer_rollout: SteerRolloutRequest -> pb::SteerRolloutResponse;
    Read list_revisions: ListRevisionsRequest -> pb::ListRevisionsResponse;
    Write update_cluster: UpdateClusterRequest -> pb::UpdateClusterResponse;
    Read explain: ExplainRequest -> pb::ExplainResponse;
    Read forecast: ForecastRequest -> pb::ForecastResponse;
    Read logs: LogsRequest -> Streaming<pb::LogsResponse>;
    Read list_managers: ListManagersRequest -> pb::ListManagersResponse;
    Write change_manager: ChangeManagerRequest -> pb::ChangeManagerResponse;
    Read save_snapshot: SaveSnapshotRequest -> Streaming<pb::SaveSnapshotResponse>;
    Read get_security: GetSecurityRequest -> pb::GetSecurityResponse;
    Write update_security: UpdateSecurityRequest -> pb::UpdateSecurityResponse;
    Write get_unlock_key: GetUnlockKeyRequest -> pb::GetUnlockKeyResponse;
    Write rotate_ca: RotateCaRequest -> pb::RotateCaResponse;
}

#[cfg(test)]
mod tests;
