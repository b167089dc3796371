//! The services of a run: what they ask for, and reading back what there should be.

use std::time::{Duration, Instant};

use cluster_pb::types::v1 as types;
use rand::Rng;

use super::client::{Client, Read};
use super::{EVERYWHERE, PREFIX, WEB};
use crate::check::slots::Wanted;
use crate::error::{Error, Result};

const GRACE_MILLIS: u64 = 2000;
const MONITOR_MILLIS: u64 = 300;
/// So that a program which is killed again and again is back soon.
const BACK_OFF_MAX_MILLIS: u64 = 2000;
const WEB_REPLICAS: u32 = 3;

pub(super) fn service(name: &str, image: &str, replicas: u32) -> types::ServiceSpec {
    let container = types::ContainerSpec {
        image: image.to_owned(),
        stop_grace_period_ms: Some(GRACE_MILLIS),
        ..Default::default()
    };
    let restart =
        types::RestartPolicy { max_delay_ms: Some(BACK_OFF_MAX_MILLIS), ..Default::default() };
    let task = types::TaskSpec {
        container: Some(container),
        restart: Some(restart),
        ..Default::default()
    };
    let update = types::UpdatePolicy {
        parallelism: "1".to_owned(),
        monitor_ms: Some(MONITOR_MILLIS),
        ..Default::default()
    };
    types::ServiceSpec {
        name: name.to_owned(),
        replicas,
        task: Some(task),
        mode: types::service_spec::Mode::Replicated.into(),
        update: Some(update),
        ..Default::default()
    }
}

/// A changed environment makes a new revision, hence a rollout.
pub(super) fn revise(spec: &mut types::ServiceSpec, version: &str) {
    let container = spec.task.as_mut().and_then(|task| task.container.as_mut());
    if let Some(container) = container {
        container.env = vec![format!("WEB_VERSION={version}")];
    }
}

/// Creates what is there all the time; the port that visitors ask.
pub(super) async fn standing(client: &mut Client) -> Result<u16> {
    let image = client.shared.image.clone();
    let mut web = service(WEB, &image, WEB_REPLICAS);
    web.ports = vec![types::PortSpec { published: 0, target: 80, host: false }];
    if let Some(update) = &mut web.update {
        update.order = types::update_policy::Order::StartFirst.into();
    }
    let mut everywhere = service(EVERYWHERE, &image, 0);
    everywhere.mode = types::service_spec::Mode::Global.into();
    create(client, everywhere).await?;
    let made = create(client, web).await?;
    let published = made.ports.first().map(|port| port.published).unwrap_or_default();
    u16::try_from(published).ok().filter(|port| *port != 0).ok_or_else(|| Error::Talk {
        doing: "creating the web service",
        reason: format!("it got port {published}"),
    })
}

/// Before any fault: it must succeed at once.
async fn create(
    client: &mut Client,
    spec: types::ServiceSpec,
) -> Result<cluster_pb::control::v1::CreateServiceResponse> {
    client.create(spec).await.map_err(|failed| Error::Talk {
        doing: "creating a service",
        reason: format!("{failed:?}"),
    })
}

/// Reads all services of ours, one by one, into the history.
pub(super) async fn wanted(client: &mut Client, within: Duration) -> Result<Vec<Wanted>> {
    let names = client.list(within).await?.into_iter().filter_map(|service| service.spec);
    let names: Vec<String> =
        names.map(|spec| spec.name).filter(|name| name.starts_with(PREFIX)).collect();
    let mut wanted = Vec::new();
    for name in names {
        wanted.extend(client.read_surely(&name, within).await?.and_then(of));
    }
    Ok(wanted)
}

fn of(read: Read<types::Service>) -> Option<Wanted> {
    let spec = read.object.spec?;
    Some(Wanted {
        service_id: read.object.id,
        service: spec.name,
        replicas: spec.replicas,
        is_global: spec.mode == i32::from(types::service_spec::Mode::Global),
    })
}

pub(super) async fn remove_all(client: &mut Client, within: Duration) -> Result<()> {
    let deadline = Instant::now() + within;
    loop {
        let all = client.list(within).await?.into_iter();
        let ours: Vec<String> = all
            .filter_map(|service| service.spec)
            .map(|spec| spec.name)
            .filter(|name| name.starts_with(PREFIX))
            .collect();
        if ours.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            let reason = format!("{} are still there", ours.join(", "));
            return Err(Error::Talk { doing: "removing the services", reason });
        }
        for name in ours {
            if let Ok(Some(read)) = client.read(&name).await {
                client.remove(&read).await;
            }
        }
    }
}

/// One of the changes that a writer makes to what it read; `None`: it removes it.
pub(super) fn change(
    client: &mut Client,
    read: &Read<types::Service>,
) -> Option<types::ServiceSpec> {
    let mut spec = read.object.spec.clone()?;
    match client.random.random_range(0..100) {
        0..45 => {}
        45..75 => spec.replicas = client.random.random_range(0..4),
        75..92 => revise(&mut spec, &format!("{}", client.random.random::<u32>())),
        _ => return None,
    }
    Some(spec)
}
