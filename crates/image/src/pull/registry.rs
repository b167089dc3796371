//! One registry, as seen by one pull: the only place that knows oci-client.
//!
//! TLS everywhere, except that hosts the operator listed and loopback may
//! answer plain HTTP. Those are asked first which of the two they speak, without
//! credentials.

use std::error::Error as StdError;
use std::sync::{Arc, Once};
use std::time::Duration;

use futures::stream::BoxStream;
use oci_client::client::{
    BlobResponse, Certificate, CertificateEncoding, ClientConfig, ClientProtocol,
};
use oci_client::errors::{DigestError, OciDistributionError, OciErrorCode};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference as OciReference};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::options::{Auth, RegistryOptions, split_host};
use crate::digest::Digest;
use crate::error::{Cause, Error, Result};
use crate::manifest::{DOCKER_LIST, DOCKER_MANIFEST, Descriptor, INDEX, MANIFEST};
use crate::reference::Reference;

const ACCEPT: [&str; 4] = [MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_LIST];
const MESSAGE_CHARS_MAX: usize = 300;

pub(super) struct Registry {
    client: Client,
    oci: OciReference,
    auth: RegistryAuth,
    reference: Reference,
    /// Longest wait for a manifest, everything included.
    patience: Duration,
}

pub(super) struct Answer {
    pub(super) stream: BoxStream<'static, std::io::Result<bytes::Bytes>>,
    /// Where in the blob the stream begins.
    pub(super) from: u64,
}

impl Registry {
    pub(super) async fn connect(
        reference: &Reference,
        options: &RegistryOptions,
        auth: Option<Auth>,
    ) -> Result<Self> {
        let plain = options.may_use_plain_http(reference.registry());
        let plain = probe(reference, options, plain).await?;
        Self::over(reference, options, auth, plain).await
    }

    async fn over(
        reference: &Reference,
        options: &RegistryOptions,
        auth: Option<Auth>,
        plain: bool,
    ) -> Result<Self> {
        install_crypto();
        let certificates = options.extra_ca.iter().flat_map(|pem| certificates(pem));
        let config = ClientConfig {
            protocol: if plain { ClientProtocol::Http } else { ClientProtocol::Https },
            extra_root_certificates: certificates.collect(),
            connect_timeout: Some(options.connect_timeout),
            read_timeout: Some(options.read_timeout),
            user_agent: concat!("cluster-image/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        // Reads the system's certificates. oci-client panics when there are none.
        let client = tokio::task::spawn_blocking(move || Client::try_from(config)).await;
        let name = || reference.to_string();
        let client = client.map_err(|e| Error::RegistryUnreachable {
            reference: name(),
            registry: reference.registry().to_owned(),
            reason: "no TLS client can be made; is `ca-certificates` installed?".to_owned(),
            source: Some(Arc::new(e)),
        })?;
        let client = client.map_err(|e| Error::RegistryUnreachable {
            reference: name(),
            registry: reference.registry().to_owned(),
            reason: "the trusted certificates cannot be used".to_owned(),
            source: Some(Arc::new(e)),
        })?;
        Ok(Self {
            client,
            oci: oci_reference(reference, None),
            auth: match auth {
                None => RegistryAuth::Anonymous,
                Some(Auth::Basic { username, password }) => RegistryAuth::Basic(username, password),
                Some(Auth::Bearer(token)) => RegistryAuth::Bearer(token),
            },
            reference: reference.clone(),
            patience: options.connect_timeout + options.read_timeout,
        })
    }

    pub(super) async fn manifest(&self, digest: Option<&Digest>) -> Result<Vec<u8>> {
        let oci = oci_reference(&self.reference, digest);
        let ask = self.client.pull_manifest_raw(&oci, &self.auth, &ACCEPT);
        let action = "fetching the manifest";
        match timeout(self.patience, ask).await {
            Ok(Ok((bytes, _))) => Ok(bytes.to_vec()),
            Ok(Err(e)) => Err(self.error(action, e)),
            Err(_) => Err(self.unreachable("it stopped answering".to_owned(), None)),
        }
    }

    pub(super) async fn blob(&self, descriptor: &Descriptor, from: u64) -> Result<Answer> {
        let layer =
            OciDescriptor { digest: descriptor.digest.to_string(), ..OciDescriptor::default() };
        let fail = |e| self.error("downloading a blob", e);
        if from == 0 {
            let sized = self.client.pull_blob_stream(&self.oci, &layer);
            let stream = sized.await.map_err(fail)?.stream;
            return Ok(Answer { stream, from: 0 });
        }
        let ask = self.client.pull_blob_stream_partial(&self.oci, &layer, from, None);
        Ok(match ask.await.map_err(fail)? {
            BlobResponse::Full(sized) => Answer { stream: sized.stream, from: 0 },
            BlobResponse::Partial(sized) => Answer { stream: sized.stream, from },
        })
    }

    pub(super) fn name_blob(&self, descriptor: &Descriptor) -> String {
        format!("blob {} of `{}`", descriptor.digest, self.reference)
    }

    /// What an error in the middle of a blob means.
    pub(super) fn blob_error(&self, descriptor: &Descriptor, error: std::io::Error) -> Error {
        let inner = error.get_ref().and_then(|e| e.downcast_ref());
        if let Some(DigestError::VerificationError { expected, actual }) = inner {
            return Error::DigestMismatch {
                what: self.name_blob(descriptor),
                expected: expected.clone(),
                actual: actual.clone(),
            };
        }
        self.unreachable("the connection broke during a download".to_owned(), Some(Arc::new(error)))
    }

    fn unreachable(&self, reason: String, source: Option<Cause>) -> Error {
        unreachable(&self.reference, reason, source)
    }

    fn error(&self, action: &'static str, error: OciDistributionError) -> Error {
        use OciDistributionError as E;
        let reference = self.reference.to_string();
        let registry = self.reference.registry().to_owned();
        match verdict(&error) {
            Verdict::Missing => Error::NotInRegistry { reference, registry },
            Verdict::Refused => Error::Unauthorized {
                reference,
                registry,
                source: Some(Arc::new(shortened(error))),
            },
            Verdict::Broken { permanent } => match error {
                E::DigestError(DigestError::VerificationError { expected, actual }) => {
                    Error::DigestMismatch {
                        what: format!("the manifest of `{reference}`"),
                        expected,
                        actual,
                    }
                }
                E::RequestError(e) => self.unreachable(root_cause(&e), Some(Arc::new(e))),
                error => Error::Registry {
                    reference,
                    registry,
                    action,
                    permanent,
                    source: Arc::new(shortened(error)),
                },
            },
        }
    }
}

enum Verdict {
    Missing,
    Refused,
    Broken { permanent: bool },
}

fn verdict(error: &OciDistributionError) -> Verdict {
    use OciDistributionError as E;
    match error {
        E::UnauthorizedError { .. } | E::AuthenticationFailure(_) => Verdict::Refused,
        E::ImageManifestNotFoundError(_) => Verdict::Missing,
        E::ServerError { code, .. } => match code {
            401 | 403 => Verdict::Refused,
            404 => Verdict::Missing,
            408 | 429 | 500.. => Verdict::Broken { permanent: false },
            _ => Verdict::Broken { permanent: true },
        },
        E::RegistryError { envelope, .. } => {
            let has = |code: &OciErrorCode| envelope.errors.iter().any(|e| e.code == *code);
            use OciErrorCode as C;
            if has(&C::Unauthorized) || has(&C::Denied) {
                Verdict::Refused
            } else if has(&C::ManifestUnknown) || has(&C::NameUnknown) || has(&C::NotFound) {
                Verdict::Missing
            } else {
                let busy = has(&C::Toomanyrequests);
                Verdict::Broken { permanent: !busy }
            }
        }
        E::RequestError(_) | E::IoError(_) | E::GenericError(_) => {
            Verdict::Broken { permanent: false }
        }
        _ => Verdict::Broken { permanent: true },
    }
}

/// A server may send a whole page as its message.
fn shortened(error: OciDistributionError) -> OciDistributionError {
    match error {
        OciDistributionError::ServerError { code, url, message } => {
            let message = message.chars().take(MESSAGE_CHARS_MAX).collect();
            OciDistributionError::ServerError { code, url, message }
        }
        OciDistributionError::AuthenticationFailure(message) => {
            let message = message.chars().take(MESSAGE_CHARS_MAX).collect();
            OciDistributionError::AuthenticationFailure(message)
        }
        other => other,
    }
}

fn unreachable(reference: &Reference, reason: String, source: Option<Cause>) -> Error {
    Error::RegistryUnreachable {
        reference: reference.to_string(),
        registry: reference.registry().to_owned(),
        reason,
        source,
    }
}

/// Tells in a few seconds, and in plain words, whether anybody is there; the
/// client itself would try twice and say less. Gives whether to go on without
/// TLS, where that is allowed. Not done through a proxy.
async fn probe(reference: &Reference, options: &RegistryOptions, plain: bool) -> Result<bool> {
    if has_proxy() {
        return Ok(plain);
    }
    let oci = oci_reference(reference, None);
    let (host, port) = split_host(oci.resolve_registry());
    let port = port.unwrap_or(if plain { 80 } else { 443 });
    let patience = options.connect_timeout;
    let fail = |reason: String, e: Option<std::io::Error>| {
        unreachable(reference, reason, e.map(|e| Arc::new(e) as Cause))
    };
    let found = match timeout(patience, tokio::net::lookup_host((host, port))).await {
        Ok(Ok(found)) => found.collect::<Vec<_>>(),
        Ok(Err(e)) => return Err(fail(format!("the name `{host}` cannot be resolved"), Some(e))),
        Err(_) => return Err(fail(format!("resolving `{host}` takes too long"), None)),
    };
    match timeout(patience, TcpStream::connect(&found[..])).await {
        // No answer at all is for the real request to find out.
        Ok(Ok(stream)) if plain => {
            let asked = timeout(patience, speaks_http(stream, host)).await;
            Ok(!matches!(asked, Ok(Ok(false))))
        }
        Ok(Ok(_)) => Ok(false),
        Ok(Err(e)) => Err(fail(format!("connecting to `{host}:{port}`: {e}"), None)),
        Err(_) => Err(fail(format!("`{host}:{port}` does not answer"), None)),
    }
}

/// A TLS server answers plain HTTP with an alert, with nothing, or (Go) with 400.
async fn speaks_http(mut stream: TcpStream, host: &str) -> std::io::Result<bool> {
    let question = format!("GET /v2/ HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(question.as_bytes()).await?;
    let mut answer = Vec::new();
    let most = "HTTP/1.1 200".len() as u64;
    stream.take(most).read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.") && !answer.ends_with(b" 400"))
}

fn has_proxy() -> bool {
    let names = ["http_proxy", "https_proxy", "all_proxy"];
    names.iter().any(|name| {
        [name.to_string(), name.to_uppercase()]
            .iter()
            .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
    })
}

fn oci_reference(reference: &Reference, digest: Option<&Digest>) -> OciReference {
    let registry = reference.registry().to_owned();
    let repository = reference.repository().to_owned();
    match (digest.or(reference.digest()), reference.tag()) {
        (Some(digest), _) => OciReference::with_digest(registry, repository, digest.to_string()),
        (None, tag) => {
            OciReference::with_tag(registry, repository, tag.unwrap_or("latest").to_owned())
        }
    }
}

/// A PEM file may hold several certificates; the client takes one at a time.
fn certificates(pem: &[u8]) -> Vec<Certificate> {
    const END: &str = "-----END CERTIFICATE-----";
    let text = String::from_utf8_lossy(pem);
    text.split_inclusive(END)
        .filter(|part| part.contains(END))
        .map(|part| Certificate {
            encoding: CertificateEncoding::Pem,
            data: part.as_bytes().to_vec(),
        })
        .collect()
}

fn root_cause(error: &dyn StdError) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

/// The client is built without a crypto provider and takes the process's.
fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error means that somebody chose already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
