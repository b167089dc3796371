//! The managers to join through: whether they can be reached, and what their clocks say.
//!
//! A manager's time is read from the `date` of its answer to a call that it refuses: HTTP servers
//! state it, to the second. The manager is recognised by its CA before anything is believed, and is
//! shown neither token nor certificate.

use std::time::{Duration, Instant, SystemTime};

use cluster_identity::{CaDigest, ChannelOptions, ConnectError, TlsClient, connect};
use cluster_pb::control::v1::GetClusterRequest;
use cluster_pb::control::v1::control_client::ControlClient;
use futures::future::join_all;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::Options;
use crate::facts::{Clock, ClockRead, Reached};

const CONNECT_MAX: Duration = Duration::from_secs(3);
const ANSWER_MAX: Duration = Duration::from_secs(5);

pub(super) async fn ask(options: &Options) -> (Vec<Reached>, Vec<Clock>) {
    let reached = join_all(options.managers.iter().map(|address| reach(address))).await;
    let Some(ca) = options.ca else { return (reached, Vec::new()) };
    let asked = reached.into_iter().map(|mut manager| async move {
        if manager.outcome.is_err() {
            return (manager, None);
        }
        let read = match timeout(ANSWER_MAX, date(&manager.address, ca)).await {
            Ok(Ok(read)) => read,
            // Somebody listens, but no manager of this cluster.
            Ok(Err(problem)) => {
                manager.outcome = Err(problem);
                return (manager, None);
            }
            Err(_) => ClockRead::Unknown(format!("no answer within {} s", ANSWER_MAX.as_secs())),
        };
        let clock = Clock { address: manager.address.clone(), read };
        (manager, Some(clock))
    });
    let (reached, clocks): (Vec<Reached>, Vec<Option<Clock>>) =
        join_all(asked).await.into_iter().unzip();
    (reached, clocks.into_iter().flatten().collect())
}

async fn reach(address: &str) -> Reached {
    let outcome = match timeout(CONNECT_MAX, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", CONNECT_MAX.as_secs())),
    };
    Reached { address: address.to_owned(), outcome }
}

/// What its clock says; an error when it is no manager of the cluster with that CA.
async fn date(address: &str, ca: CaDigest) -> Result<ClockRead, String> {
    let tls = TlsClient::pinned(ca).map_err(|error| error.to_string())?;
    let options = ChannelOptions { request_timeout: Some(ANSWER_MAX), ..Default::default() };
    let channel = match connect(address, &tls, &options).await {
        Ok(channel) => channel,
        Err(error @ (ConnectError::PeerNotYetValid { .. } | ConnectError::PeerExpired { .. })) => {
            return Ok(ClockRead::Dates(error.to_string()));
        }
        Err(error) => return Err(error.to_string()),
    };
    let asked = Instant::now();
    let refused = ControlClient::new(channel).get_cluster(GetClusterRequest::default()).await;
    let (took, ours) = (asked.elapsed(), SystemTime::now());
    let metadata = match &refused {
        Ok(answer) => answer.metadata(),
        Err(status) => status.metadata(),
    };
    let stated = metadata.get("date").and_then(|date| date.to_str().ok());
    let theirs = stated.and_then(|date| httpdate::parse_http_date(date).ok());
    Ok(match theirs {
        Some(theirs) => skew(theirs, ours, took),
        None => ClockRead::Unknown("it states no time".to_owned()),
    })
}

/// Their time was cut to the second, some time between the question and its answer.
fn skew(theirs: SystemTime, ours: SystemTime, took: Duration) -> ClockRead {
    let middle = theirs + Duration::from_millis(500) + took / 2;
    let ms = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    let ms = match middle.duration_since(ours) {
        Ok(ahead) => ms(ahead),
        Err(behind) => -ms(behind.duration()),
    };
    let within_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).saturating_add(1000);
    ClockRead::Skew { ms, within_ms }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::{Ready, ready};
    use std::task::{Context, Poll};

    use cluster_identity::{Ca, Protocol, Role, Subject, TlsIdentity, TlsServer, serve_tls};
    use tonic::body::Body;
    use tonic::server::NamedService;
    use tower_service::Service;

    use super::*;

    #[test]
    fn the_difference_has_a_sign() {
        let ours = SystemTime::UNIX_EPOCH + Duration::from_secs(10_000);
        let hour = Duration::from_secs(3600);
        let took = Duration::from_millis(20);
        let read = |theirs| match skew(theirs, ours, took) {
            ClockRead::Skew { ms, within_ms } => (ms, within_ms),
            other => panic!("{other:?}"),
        };
        assert_eq!(read(ours + hour), (3_600_510, 1020));
        assert_eq!(read(ours - hour), (-3_599_490, 1020));
    }

    /// Refuses every call, at a moment of the test's choice.
    #[derive(Clone)]
    struct Refusing(SystemTime);

    impl NamedService for Refusing {
        const NAME: &'static str = "cluster.control.v1.Control";
    }

    impl Service<http::Request<Body>> for Refusing {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: http::Request<Body>) -> Self::Future {
            let mut answer = tonic::Status::unauthenticated("no certificate").into_http();
            let date = httpdate::fmt_http_date(self.0).parse().expect("a header");
            answer.headers_mut().insert("date", date);
            ready(Ok(answer))
        }
    }

    /// A manager with a certificate of that age and a clock that says `now`.
    async fn manager(now: SystemTime, signed: SystemTime) -> (String, CaDigest) {
        let unix = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let ca = Ca::create("c1", unix(signed)).unwrap();
        let subject =
            Subject { role: Role::Manager, node_id: "m1".into(), cluster_id: "c1".into() };
        let identity = ca.issue(&subject, unix(signed), Duration::from_secs(86_400)).unwrap();
        let digest = CaDigest::of_pem(&identity.ca_pem).unwrap();
        let identity = TlsIdentity::new(identity).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let incoming = serve_tls(listener, TlsServer::new(&identity, Protocol::Grpc));
        let server = tonic::transport::Server::builder().add_service(Refusing(now));
        tokio::spawn(server.serve_with_incoming(incoming));
        (address, digest)
    }

    async fn asked(address: String, ca: CaDigest) -> (Reached, Option<ClockRead>) {
        let options =
            Options { managers: vec![address], ca: Some(ca), ..Options::new(crate::Role::Worker) };
        let (mut reached, mut clocks) = ask(&options).await;
        (reached.remove(0), clocks.pop().map(|clock| clock.read))
    }

    #[tokio::test]
    async fn a_managers_clock_is_read_from_its_refusal() {
        let now = SystemTime::now();
        let hour = Duration::from_secs(3600);
        let (address, ca) = manager(now + hour, now).await;
        let (reached, read) = asked(address, ca).await;
        assert!(reached.outcome.is_ok(), "{reached:?}");
        match read {
            Some(ClockRead::Skew { ms, within_ms }) => {
                assert!((ms - 3_600_000).unsigned_abs() <= within_ms, "{ms} within {within_ms}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_certificate_of_the_future_tells_of_a_clock_that_is_behind() {
        // Certificates are backdated an hour: this one begins an hour from now.
        let ahead = SystemTime::now() + Duration::from_secs(2 * 3600);
        let (address, ca) = manager(ahead, ahead).await;
        let (_, read) = asked(address, ca).await;
        assert!(
            matches!(&read, Some(ClockRead::Dates(text)) if text.contains("behind")),
            "{read:?}"
        );
    }

    #[tokio::test]
    async fn a_manager_of_another_cluster_is_none_to_join_through() {
        let now = SystemTime::now();
        let (address, _) = manager(now, now).await;
        let (reached, read) = asked(address, CaDigest::of_der(b"another")).await;
        let error = reached.outcome.unwrap_err();
        assert!(error.contains("another cluster than the join token"), "{error}");
        assert_eq!(read, None);
    }

    #[tokio::test]
    async fn nobody_is_waited_for_for_long() {
        let begun = Instant::now();
        let found = reach("127.0.0.1:1").await;
        assert!(found.outcome.is_err() && begun.elapsed() < CONNECT_MAX);
    }
}
