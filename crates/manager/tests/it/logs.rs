//! Lines from workers to readers.

use cluster_pb::control::v1 as control;
use cluster_pb::control::v1::logs_response::Item;
use cluster_pb::dispatcher::v1 as pb;
use tonic::Streaming;

use crate::harness::{Cluster, PATIENCE, Session, eventually};

fn lines(request: &pb::LogRequest, texts: &[(u64, &str)]) -> pb::PublishLogsRequest {
    let line = |(unix_nanos, text): &(u64, &str)| pb::LogLine {
        task_id: request.task_ids[0].clone(),
        stream: "stdout".into(),
        unix_nanos: *unix_nanos,
        text: text.as_bytes().to_vec(),
    };
    pb::PublishLogsRequest {
        request_id: request.request_id.clone(),
        lines: texts.iter().map(line).collect(),
    }
}

async fn asked(session: &mut Session) -> pb::LogRequest {
    session.until("a log request", |known| !known.log_requests.is_empty()).await;
    session.heard.log_requests.remove(0)
}

async fn next(stream: &mut Streaming<control::LogsResponse>) -> Option<String> {
    let message = tokio::time::timeout(PATIENCE, stream.message()).await;
    match message.expect("no line came").unwrap()?.item? {
        Item::Line(line) => Some(format!(
            "{}.{} {} {}",
            line.service_name,
            line.slot,
            line.node_name,
            String::from_utf8(line.text).unwrap()
        )),
        Item::Notice(text) => Some(format!("! {text}")),
    }
}

#[tokio::test]
async fn lines_of_all_workers_come_in_order_through_any_manager() {
    let cluster = Cluster::of(3).await;
    let (one, two) = (cluster.worker("worker-1").await, cluster.worker("worker-2").await);
    let mut first = one.ready(&cluster.managers[0]).await;
    let mut second = two.ready(&cluster.managers[1]).await;
    for name in ["worker-1", "worker-2"] {
        eventually("ready nodes", async || {
            (cluster.node(0, name).await.state == "ready").then_some(())
        })
        .await;
    }
    cluster.service("web", 2, 0).await;
    first.run(1).await;
    second.run(1).await;

    let request = control::LogsRequest { service: "web".into(), ..Default::default() };
    let mut reader = cluster.control(2).logs(request).await.unwrap().into_inner();
    for (session, texts) in
        [(&mut first, [(1, "a"), (3, "c")]), (&mut second, [(2, "b"), (4, "d")])]
    {
        let request = asked(session).await;
        assert!(!request.follow);
        session.publish().send(lines(&request, &texts)).await.unwrap();
    }
    let mut texts = String::new();
    while let Some(line) = next(&mut reader).await {
        texts.push_str(line.split(' ').next_back().unwrap());
    }
    assert_eq!(texts, "abcd");
}

#[tokio::test]
async fn following_goes_on_to_the_next_task_and_to_a_worker_that_is_back() {
    let cluster = Cluster::new().await;
    let worker = cluster.worker("worker-1").await;
    let mut session = worker.ready(&cluster.managers[0]).await;
    cluster.service("web", 1, 0).await;
    let task = session.run(1).await.remove(0);

    let request =
        control::LogsRequest { service: "web".into(), follow: true, ..Default::default() };
    let mut reader = cluster.control(0).logs(request).await.unwrap().into_inner();
    let request = asked(&mut session).await;
    let stream = session.publish();
    stream.send(lines(&request, &[(1, "first")])).await.unwrap();
    assert_eq!(next(&mut reader).await.as_deref(), Some("web.1 worker-1 first"));
    stream.send(lines(&request, &[(2, "second")])).await.unwrap();
    assert_eq!(next(&mut reader).await.as_deref(), Some("web.1 worker-1 second"));

    // The successor is followed from its first line on.
    session.becomes(&task, "failed").await;
    let request = asked(&mut session).await;
    assert_ne!(request.task_ids, [task]);
    assert_eq!(request.tail, None);
    session.publish().send(lines(&request, &[(3, "third")])).await.unwrap();
    assert_eq!(next(&mut reader).await.as_deref(), Some("web.1 worker-1 third"));

    // A new session of the worker is asked for what comes from now on.
    drop((stream, session));
    let mut session = worker.ready(&cluster.managers[0]).await;
    let request = asked(&mut session).await;
    assert_eq!(request.tail, Some(0));
    let stream = session.publish();
    stream.send(lines(&request, &[(4, "fourth")])).await.unwrap();
    loop {
        let line = next(&mut reader).await.expect("following goes on");
        if !line.starts_with('!') {
            assert_eq!(line, "web.1 worker-1 fourth");
            break;
        }
    }

    // The reader goes: the worker's stream ends.
    drop(reader);
    tokio::time::timeout(PATIENCE, stream.closed()).await.expect("nobody reads any more");
}

#[tokio::test]
async fn a_worker_that_does_not_answer_is_named() {
    let cluster = Cluster::new().await;
    let worker = cluster.worker("worker-1").await;
    let mut session = worker.ready(&cluster.managers[0]).await;
    cluster.service("web", 1, 0).await;
    session.run(1).await;
    let request = control::LogsRequest { service: "web".into(), ..Default::default() };
    let mut reader = cluster.control(0).logs(request).await.unwrap().into_inner();
    let notice = next(&mut reader).await.unwrap();
    assert_eq!(notice, "! worker worker-1 did not answer: its lines are missing");
    assert_eq!(next(&mut reader).await, None);
}
