//! A registry that answers what it is told to, right or wrong.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use cluster_image::Digest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::fixture::TestImage;

#[derive(Clone)]
pub enum Reply {
    Body(Vec<u8>),
    Status(u16, &'static str),
    /// The first answer breaks off after so many bytes; the next go on.
    BreaksAt(usize, Vec<u8>),
    /// Accepts and says nothing.
    Silence,
}

pub struct Liar {
    pub address: String,
    pub replies: Arc<Mutex<HashMap<String, Reply>>>,
    pub blob_requests: Arc<AtomicUsize>,
    pub ranges: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Liar {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let replies: Arc<Mutex<HashMap<String, Reply>>> = Arc::default();
        let blob_requests: Arc<AtomicUsize> = Arc::default();
        let ranges: Arc<Mutex<Vec<String>>> = Arc::default();
        let shared = (replies.clone(), blob_requests.clone(), ranges.clone());
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (replies, count, ranges) = shared.clone();
                tokio::spawn(async move {
                    let _ = answer(stream, &replies, &count, &ranges).await;
                });
            }
        });
        Self { address, replies, blob_requests, ranges, task }
    }

    /// Serves an image honestly as `web:1`.
    pub fn serve(&self, image: &TestImage) {
        self.set("/v2/web/manifests/1", Reply::Body(image.manifest.clone()));
        let path = format!("/v2/web/manifests/{}", image.digest());
        self.set(&path, Reply::Body(image.manifest.clone()));
        for blob in image.blobs() {
            self.set(&blob_path(blob), Reply::Body(blob.clone()));
        }
    }

    pub fn set(&self, path: &str, reply: Reply) {
        self.replies.lock().unwrap().insert(path.to_owned(), reply);
    }
}

pub fn blob_path(blob: &[u8]) -> String {
    format!("/v2/web/blobs/{}", Digest::of(blob))
}

async fn answer(
    mut stream: TcpStream,
    replies: &Mutex<HashMap<String, Reply>>,
    blob_requests: &AtomicUsize,
    ranges: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let byte = stream.read_u8().await?;
        request.push(byte);
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let mut words = request.split_whitespace();
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    if method == "GET" && path.contains("/blobs/") {
        blob_requests.fetch_add(1, Ordering::SeqCst);
    }
    let range = request.lines().find_map(|line| line.strip_prefix("range: bytes="));
    if let Some(range) = range {
        ranges.lock().unwrap().push(range.to_owned());
    }
    let reply = replies.lock().unwrap().get(path).cloned();
    let reply = reply.unwrap_or(match path {
        "/v2/" => Reply::Body(b"{}".to_vec()),
        _ => Reply::Status(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no"}]}"#),
    });
    let from = range.and_then(|r| r.trim_end_matches('-').parse::<usize>().ok());
    let (status, body, length) = match reply {
        Reply::Silence => {
            let _ = stream.read_u8().await;
            return Ok(());
        }
        Reply::Status(code, text) => (code, text.as_bytes().to_vec(), text.len()),
        Reply::Body(body) => {
            let length = body.len();
            (200, body, length)
        }
        Reply::BreaksAt(at, body) => match from {
            Some(from) => (206, body[from..].to_vec(), body.len() - from),
            None => (200, body[..at].to_vec(), body.len()),
        },
    };
    let body = if method == "HEAD" { Vec::new() } else { body };
    let head =
        format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await
}
