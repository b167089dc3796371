//! `service logs [-f] SERVICE|TASK`
//!
//! *On failure* of the manager asked while following, another goes on after the last line of each
//! task.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use cluster_pb::control::v1::logs_response::Item;
use cluster_pb::control::v1::{LogLine, LogsRequest, LogsResponse};
use cluster_wire::Code;
use tonic::Streaming;

use crate::Invocation;
use crate::client::Client;
use crate::error::{Error, Exit};
use crate::output::Printer;
use crate::text::{moment_nanos, one_line};
use crate::values::moment::since;

const BLIND_MAX: Duration = Duration::from_secs(30);
const RETRY_PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A service (name, id or beginning of the id) or a task (id)
    #[arg(value_name = "SERVICE|TASK")]
    object: String,

    /// Go on with lines as they come
    #[arg(long, short)]
    follow: bool,

    /// Only this many lines from the end of each task
    #[arg(long, short = 'n', value_name = "N")]
    tail: Option<u64>,

    /// Only lines since then: 5m (ago), seconds since 1970, or RFC 3339
    #[arg(long, value_name = "MOMENT", value_parser = since)]
    since: Option<u64>,

    /// Put the moment before each line
    #[arg(long, short)]
    timestamps: bool,

    /// Leave task ids out of the prefix
    #[arg(long)]
    no_task_ids: bool,
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let mut client = invocation.client()?;
    let mut request = LogsRequest {
        service: args.object.clone(),
        task: String::new(),
        follow: args.follow,
        tail: args.tail,
        since_ms: args.since.unwrap_or(0),
    };
    let mut stream = open(&mut client, &mut request).await?;
    let mut seen: HashMap<String, u64> = HashMap::new();
    loop {
        let printer = &mut invocation.printer;
        let error = match copy(args, printer, &mut stream, &mut seen).await {
            Ok(()) => return Ok(()),
            Err(error) if args.follow && error.exit == Exit::Unreachable => error,
            Err(error) => return Err(error),
        };
        printer.say(&format!("notice: {error}; asking another manager"));
        request.tail = None;
        // From where the slowest task is; what others said since is known and not printed twice.
        let last = seen.values().min().map_or(request.since_ms, |nanos| nanos / 1_000_000);
        request.since_ms = request.since_ms.max(last);
        stream = reopen(&mut client, &request).await?;
    }
}

/// Tries the object as a service, then as a task.
async fn open(
    client: &mut Client,
    request: &mut LogsRequest,
) -> Result<Streaming<LogsResponse>, Error> {
    let error = match client.logs(request.clone()).await {
        Err(error) if error.code == Some(Code::NotFound) => error,
        answer => return answer,
    };
    request.task = std::mem::take(&mut request.service);
    match client.logs(request.clone()).await {
        Err(second) if second.code == Some(Code::NotFound) => {
            let message =
                format!("this cluster has no service or task `{}`", one_line(&request.task));
            Err(Error { message, ..error })
        }
        answer => answer,
    }
}

async fn reopen(
    client: &mut Client,
    request: &LogsRequest,
) -> Result<Streaming<LogsResponse>, Error> {
    let begin = Instant::now();
    loop {
        client.leave_manager();
        match client.logs(request.clone()).await {
            Err(error) if error.exit == Exit::Unreachable && begin.elapsed() < BLIND_MAX => {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            answer => return answer,
        }
    }
}

/// Prints a stream to its end; `seen` holds the time of the last line printed of each task.
async fn copy(
    args: &Args,
    printer: &mut Printer,
    stream: &mut Streaming<LogsResponse>,
    seen: &mut HashMap<String, u64>,
) -> Result<(), Error> {
    // What was printed before this stream; within it, lines of one moment are all shown.
    let before = seen.clone();
    loop {
        let item = match stream.message().await {
            Ok(Some(response)) => response.item,
            Ok(None) => return Ok(()),
            Err(status) => return Err(Error::from_status(&status)),
        };
        match item {
            Some(Item::Line(line)) => {
                if before.get(&line.task_id).is_some_and(|last| line.unix_nanos <= *last) {
                    continue;
                }
                seen.insert(line.task_id.clone(), line.unix_nanos);
                print(args, printer, &line)?;
            }
            Some(Item::Notice(text)) => printer.say(&format!("notice: {}", one_line(&text))),
            None => {}
        }
    }
}

fn print(args: &Args, printer: &mut Printer, line: &LogLine) -> Result<(), Error> {
    let mut bytes = prefix(args, line).into_bytes();
    bytes.extend_from_slice(&line.text);
    if !bytes.ends_with(b"\n") {
        bytes.push(b'\n');
    }
    if line.stream == "stderr" {
        printer.raw_err(&bytes);
        return Ok(());
    }
    printer.raw(&bytes)
}

fn prefix(args: &Args, line: &LogLine) -> String {
    let mut text = String::new();
    if args.timestamps {
        text.push_str(&moment_nanos(line.unix_nanos));
        text.push(' ');
    }
    text.push_str(&format!("{}.{}", line.service_name, line.slot));
    if !args.no_task_ids {
        text.push_str(&format!(".{}", line.task_id));
    }
    text.push_str(&format!("@{} | ", line.node_name));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_whose_it_is() {
        let mut args = Args {
            object: "web".into(),
            follow: false,
            tail: None,
            since: None,
            timestamps: false,
            no_task_ids: false,
        };
        let line = LogLine {
            task_id: "abc".into(),
            service_name: "web".into(),
            slot: 2,
            node_name: "w1".into(),
            unix_nanos: 1_000_000_001,
            ..Default::default()
        };
        assert_eq!(prefix(&args, &line), "web.2.abc@w1 | ");
        args.no_task_ids = true;
        args.timestamps = true;
        assert_eq!(prefix(&args, &line), "1970-01-01T00:00:01.000000001Z web.2@w1 | ");
    }
}
