//! As much HTTP/1.1 as curl, a browser and a load generator need: request line and headers in,
//! one response out, keep-alive. Bodies are read past and ignored.
//!
//! Bounds: connections at once, bytes of a request head, idle time between requests.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::routes::App;
use crate::say::say;

const MAX_CONNECTIONS: usize = 512;
const MAX_HEAD_BYTES: u64 = 16 * 1024;
const MAX_BODY_BYTES: u64 = 1024 * 1024;
const IDLE: Duration = Duration::from_secs(30);

/// One parsed request head.
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    keep_alive: bool,
    body_bytes: u64,
}

impl Request {
    /// The value of `name` in the query string, as a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).find_map(|(_, value)| value.parse().ok())
    }
}

/// What a route answers; always plain text.
pub struct Response {
    pub status: u16,
    pub body: String,
}

impl Response {
    pub fn new(status: u16, body: impl Into<String>) -> Self {
        Self { status, body: body.into() }
    }

    fn reason(&self) -> &'static str {
        match self.status {
            200 => "OK",
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            503 => "Service Unavailable",
            _ => "Unknown",
        }
    }
}

/// One of the bounded number of connections.
struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Accepts until the process ends; a thread a connection, above the bound a short refusal.
pub fn serve(listener: &TcpListener, app: &Arc<App>) {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // Out of file descriptors, most likely: give the others a moment to finish.
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        if open.fetch_add(1, Ordering::AcqRel) >= MAX_CONNECTIONS {
            open.fetch_sub(1, Ordering::AcqRel);
            let busy = Response::new(503, "too many connections\n");
            // The client may be gone already; there is nobody else to tell.
            let _ = write_response(&stream, &busy, false, false);
            continue;
        }
        let (app, slot) = (Arc::clone(app), Slot(Arc::clone(&open)));
        // When no thread can be had the closure, and with it slot and stream, is dropped.
        let _ = thread::Builder::new().stack_size(128 * 1024).spawn(move || {
            // A broken connection is the client's business, not an event.
            let _ = connection(&stream, &app);
            drop(slot);
        });
    }
}

fn connection(stream: &TcpStream, app: &App) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        if reader.fill_buf()?.is_empty() {
            return Ok(());
        }
        // From the first byte on the request counts as in flight, so that SIGTERM waits for it.
        let in_flight = app.enter();
        let begin = Instant::now();
        let Some(request) = read_request(&mut reader)? else {
            return write_response(
                stream,
                &Response::new(400, "malformed request\n"),
                false,
                false,
            );
        };
        io::copy(&mut (&mut reader).take(request.body_bytes), &mut io::sink())?;
        let response = app.answer(&request);
        let keep_alive = request.keep_alive && !app.stopping();
        let head_only = request.method == "HEAD";
        write_response(stream, &response, keep_alive, head_only)?;
        say(format_args!(
            "{} {} {} {:.1}ms",
            request.method,
            request.path,
            response.status,
            begin.elapsed().as_secs_f64() * 1000.0
        ));
        drop(in_flight);
        if !keep_alive {
            return Ok(());
        }
    }
}

/// Reads one head; `None` when it is not HTTP, or larger than we care to read.
fn read_request(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<Request>> {
    let mut head = reader.take(MAX_HEAD_BYTES);
    let mut line = String::new();
    read_line(&mut head, &mut line)?;
    let mut words = line.split_ascii_whitespace();
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next())
    else {
        return Ok(None);
    };
    if !version.starts_with("HTTP/1.") {
        return Ok(None);
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        keep_alive: version != "HTTP/1.0",
        body_bytes: 0,
    };
    loop {
        line.clear();
        if read_line(&mut head, &mut line)? == 0 {
            return Ok(None);
        }
        let header = line.trim_end();
        if header.is_empty() {
            return Ok((request.body_bytes <= MAX_BODY_BYTES).then_some(request));
        }
        let Some((name, value)) = header.split_once(':') else {
            return Ok(None);
        };
        let value = value.trim();
        if name.eq_ignore_ascii_case("connection") {
            request.keep_alive = !value.eq_ignore_ascii_case("close")
                && (request.keep_alive || value.eq_ignore_ascii_case("keep-alive"));
        } else if name.eq_ignore_ascii_case("content-length") {
            let Ok(bytes) = value.parse() else {
                return Ok(None);
            };
            request.body_bytes = bytes;
        }
    }
}

/// Like `read_line`, but garbage bytes are a malformed line rather than an I/O error.
fn read_line(head: &mut impl BufRead, line: &mut String) -> io::Result<usize> {
    let mut bytes = Vec::new();
    let count = head.read_until(b'\n', &mut bytes)?;
    line.push_str(&String::from_utf8_lossy(&bytes));
    Ok(count)
}

fn write_response(
    mut stream: &TcpStream,
    response: &Response,
    keep_alive: bool,
    head_only: bool,
) -> io::Result<()> {
    let connection = if keep_alive { "keep-alive" } else { "close" };
    let mut text = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n",
        response.status,
        response.reason(),
        response.body.len(),
    );
    if !head_only {
        text.push_str(&response.body);
    }
    stream.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    /// A server on a port of the system's choosing; answers what it sent back to `bytes`.
    fn exchange(bytes: &[u8]) -> String {
        let app = Arc::new(App::new(Settings::from_env().unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        thread::spawn(move || serve(&listener, &app));
        stream.write_all(bytes).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn two_requests_fit_on_one_connection_and_close_ends_it() {
        let answer = exchange(
            b"GET /health HTTP/1.1\r\n\r\nPOST /health HTTP/1.1\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
        );
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
        assert!(answer.contains("Connection: keep-alive") && answer.contains("Connection: close"));
    }

    #[test]
    fn garbage_is_refused() {
        for bytes in
            [b"\x16\x03\x01\x02\x00\n".as_slice(), b"GET / SPDY/9\r\n\r\n", &[b'x'; 16 * 1024]]
        {
            assert!(exchange(bytes).starts_with("HTTP/1.1 400"), "{:?}", &bytes[..4]);
        }
    }

    #[test]
    fn a_head_without_body_tells_the_length() {
        let answer = exchange(b"HEAD /health HTTP/1.0\r\n\r\n");
        assert!(answer.contains("Content-Length: 8") && answer.ends_with("\r\n\r\n"), "{answer}");
        assert!(exchange(b"GET /nowhere HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 404"));
    }

    #[test]
    fn a_page_that_turns_unhealthy_says_so() {
        let answer = exchange(
            b"GET /unhealthy HTTP/1.1\r\n\r\nGET /health HTTP/1.1\r\nConnection: close\r\n\r\n",
        );
        assert!(answer.contains("HTTP/1.1 503"), "{answer}");
    }
}
