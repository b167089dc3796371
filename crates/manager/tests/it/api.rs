//! What users call, and how it is refused.

use cluster_pb::control::v1 as pb;
use cluster_pb::types::v1 as types;
use cluster_wire::Code;

use crate::harness::{Cluster, eventually, refusal, spec};

#[tokio::test]
async fn a_service_lives_and_every_mistake_has_its_code() {
    let cluster = Cluster::new().await;
    let mut api = cluster.control(0);
    let create = |spec| pb::CreateServiceRequest { spec: Some(spec) };

    let web = api.create_service(create(spec("web", 2, 8080))).await.unwrap().into_inner();
    assert_eq!((web.ports[0].published, web.ports[0].target), (8080, 8080));

    let again = refusal(api.create_service(create(spec("web", 1, 0))).await);
    assert_eq!(again, (Code::NameTaken, "service name `web` is already taken".into()));
    let (code, why) = refusal(api.create_service(create(spec("other", 1, 8080))).await);
    assert_eq!((code, why.contains("`web`")), (Code::PortTaken, true), "{why}");
    let (code, why) = refusal(api.create_service(create(spec("a b", 1, 0))).await);
    assert_eq!((code, why.contains("name")), (Code::InvalidField, true), "{why}");
    let nothing = pb::CreateServiceRequest { spec: None };
    assert_eq!(refusal(api.create_service(nothing).await).0, Code::InvalidField);

    let get = |service: &str| pb::GetServiceRequest { service: service.into(), stale: false };
    assert_eq!(refusal(api.get_service(get("nothing")).await).0, Code::NotFound);
    for text in ["web", &web.id, &web.id[..6]] {
        let found = api.get_service(get(text)).await.unwrap().into_inner();
        assert_eq!(found.service.unwrap().id, web.id);
        assert!(found.index >= web.version);
    }

    let update = |version, spec| pb::UpdateServiceRequest {
        id: web.id.clone(),
        version,
        spec: Some(spec),
        remove_tasks: Vec::new(),
    };
    let newer = api.update_service(update(web.version, spec("web", 3, 8080))).await.unwrap();
    let newer = newer.into_inner().version;
    let stale = refusal(api.update_service(update(web.version, spec("web", 4, 8080))).await);
    assert_eq!(stale.0, Code::VersionMoved);
    let renamed = refusal(api.update_service(update(newer, spec("site", 3, 8080))).await);
    assert_eq!(renamed.0, Code::Immutable);

    let remove = pb::RemoveServiceRequest { service: "web".into(), version: None };
    assert_eq!(api.remove_service(remove.clone()).await.unwrap().into_inner().id, web.id);
    assert_eq!(refusal(api.remove_service(remove).await).0, Code::NotFound);
    let list = pb::ListTasksRequest { service: web.id, ..Default::default() };
    assert_eq!(refusal(api.list_tasks(list).await).0, Code::NotFound);
    api.create_service(create(spec("web", 1, 8080))).await.expect("its name and port are free");
}

#[tokio::test]
async fn lists_come_in_pages() {
    let cluster = Cluster::new().await;
    let mut api = cluster.control(0);
    for name in ["e", "c", "a", "d", "b"] {
        cluster.service(name, 2, 0).await;
    }
    let (mut names, mut pages, mut after) = (Vec::new(), 0, String::new());
    loop {
        let request = pb::ListServicesRequest { after, limit: 2, stale: false };
        let page = api.list_services(request).await.unwrap().into_inner();
        names.extend(page.services.into_iter().map(|service| service.spec.unwrap().name));
        pages += 1;
        after = page.next;
        if after.is_empty() {
            break;
        }
    }
    assert_eq!((names.join(""), pages), ("abcde".into(), 3));

    let all = eventually("the tasks", async || {
        let request = pb::ListTasksRequest::default();
        let tasks = cluster.control(0).list_tasks(request).await.unwrap().into_inner().tasks;
        (tasks.len() == 10).then_some(tasks)
    });
    let all: Vec<String> = all.await.into_iter().map(|task| task.id).collect();
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let request = pb::ListTasksRequest { after, limit: 3, ..Default::default() };
        let page = api.list_tasks(request).await.unwrap().into_inner();
        seen.extend(page.tasks.into_iter().map(|task| task.id));
        after = page.next;
        if after.is_empty() {
            break;
        }
    }
    assert_eq!(seen, all);
    let request = pb::ListTasksRequest { after: "?".into(), ..Default::default() };
    assert_eq!(refusal(api.list_tasks(request).await).0, Code::InvalidField);
}

#[tokio::test]
async fn a_watch_shows_changes_and_ends_with_its_service() {
    let cluster = Cluster::new().await;
    let worker = cluster.worker("worker-1").await;
    let mut session = worker.ready(&cluster.managers[0]).await;
    let id = cluster.service("web", 1, 0).await;
    let watch = pb::WatchServiceRequest { service: "web".into() };
    let mut watch = cluster.control(0).watch_service(watch).await.unwrap().into_inner();
    session.run(1).await;
    let mut last = 0;
    loop {
        let seen = watch.message().await.unwrap().expect("the watch goes on");
        assert!(seen.index >= last);
        last = seen.index;
        let service = seen.service.unwrap();
        if service.running == 1 {
            assert_eq!(seen.tasks[0].observed_state, "running");
            assert_eq!(seen.tasks[0].node_name, "worker-1");
            break;
        }
    }
    let remove = pb::RemoveServiceRequest { service: id, version: None };
    cluster.control(0).remove_service(remove).await.unwrap();
    while watch.message().await.unwrap().is_some() {}
}

#[tokio::test]
async fn a_task_that_waits_for_its_silent_node_says_so_as_long_as_it_does() {
    let cluster = Cluster::new().await;
    let worker = cluster.worker("worker-1").await;
    let mut session = worker.ready(&cluster.managers[0]).await;
    let waits = types::disconnect::Policy::Wait.into();
    let disconnect = Some(types::Disconnect { policy: waits, after_ms: 0 });
    let patient = types::ServiceSpec { disconnect, ..spec("web", 1, 0) };
    let create = pb::CreateServiceRequest { spec: Some(patient) };
    let id = cluster.control(0).create_service(create).await.unwrap().into_inner().id;
    session.run(1).await;
    let watch = pb::WatchServiceRequest { service: "web".into() };
    let mut watch = cluster.control(0).watch_service(watch).await.unwrap().into_inner();
    let mut until = async |said: &str| {
        loop {
            let seen = watch.message().await.unwrap().expect("the watch goes on");
            if seen.tasks[0].observed_state == "running" && seen.tasks[0].message == said {
                break;
            }
        }
    };
    let why = "node worker-1 is down; waits for it (--on-disconnect wait)";
    until("").await;
    session.fall_silent();
    until(why).await;
    assert_eq!(cluster.tasks(0, &id).await[0].message, why);
    // Nothing of the task itself changes when the node is back.
    session.speak_again();
    session.acknowledge(0).await;
    until("").await;
    assert_eq!(cluster.tasks(0, &id).await[0].message, "");
}

#[tokio::test]
async fn nodes_are_found_changed_and_removed() {
    let cluster = Cluster::new().await;
    let worker = cluster.worker("worker-1").await;
    let mut session = worker.ready(&cluster.managers[0]).await;
    let mut api = cluster.control(0);
    let node = eventually("the node to be ready", async || {
        Some(cluster.node(0, "worker-1").await).filter(|node| node.state == "ready")
    });
    let node = node.await;
    assert_eq!((node.id.as_str(), node.role.as_str()), (worker.id.as_str(), "worker"));
    let manager = cluster.node(0, "manager-1").await;
    assert_eq!((manager.role.as_str(), manager.manager_status.as_str()), ("manager", "leader"));

    let update = |availability: &str, version| pb::UpdateNodeRequest {
        id: node.id.clone(),
        version,
        availability: availability.into(),
        ..Default::default()
    };
    assert_eq!(refusal(api.update_node(update("away", node.version)).await).0, Code::InvalidField);
    api.update_node(update("drain", node.version)).await.unwrap();
    assert_eq!(refusal(api.update_node(update("pause", node.version)).await).0, Code::VersionMoved);

    // Relabelling keeps a drain's deadline; draining again replaces it.
    let now = async || cluster.node(0, "worker-1").await;
    let bounded = |version, deadline_ms, force| pb::UpdateNodeRequest {
        drain_deadline_ms: deadline_ms,
        drain_force: force,
        ..update("drain", version)
    };
    let version = now().await.version;
    let endless = bounded(version, Some(u64::MAX), Some(false));
    assert_eq!(refusal(api.update_node(endless).await).0, Code::InvalidField);
    api.update_node(bounded(version, Some(600_000), Some(false))).await.unwrap();
    let drained = now().await;
    assert_ne!(drained.drain_deadline_ms, 0);
    api.update_node(update("drain", drained.version)).await.unwrap();
    assert_eq!(now().await.drain_deadline_ms, drained.drain_deadline_ms);
    api.update_node(bounded(now().await.version, None, Some(false))).await.unwrap();
    assert_eq!(now().await.drain_deadline_ms, 0);

    let remove = |node: &str, force| pb::RemoveNodeRequest { node: node.into(), force };
    assert_eq!(refusal(api.remove_node(remove("worker-1", false)).await).0, Code::NodeReady);
    assert_eq!(refusal(api.remove_node(remove("manager-1", true)).await).0, Code::QuorumAtRisk);
    api.remove_node(remove("worker-1", true)).await.unwrap();
    let status = session.end().await;
    assert_eq!(cluster_wire::error::code_of(&status), Some(Code::Removed));
}
