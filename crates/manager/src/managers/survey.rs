//! Who the managers are and how each is doing.
//!
//! The leader knows best; any other manager asks it. Without a leader, or when a stale answer will
//! do, the asked manager tells what it finds out by itself: whose port answers.

use std::time::Duration;

use cluster_model::{Cluster, Manager, NodeId};
use cluster_pb::control::v1 as pb;
use cluster_pb::peer::v1::SurveyManagersRequest;
use cluster_pb::peer::v1::peer_client::PeerClient;
use cluster_planner::managers::{self as rules, Seat};

use crate::context::Context;

/// How long the leader may take to tell.
const LEADER_PATIENCE: Duration = Duration::from_secs(2);
/// How long another manager's port may take to answer before the manager is taken as silent.
const REACH_TIMEOUT: Duration = Duration::from_millis(300);

/// The best answer there is now.
pub async fn survey(context: &Context, stale: bool) -> pb::ListManagersResponse {
    if !stale && let Some(told) = from_leader(context).await {
        return told;
    }
    by_trying(context).await
}

async fn from_leader(context: &Context) -> Option<pb::ListManagersResponse> {
    if let Some(told) = as_leader(context) {
        return Some(told);
    }
    let (id, address) = context.raft.leader()?;
    if id == context.node_id {
        return None;
    }
    let mut client = PeerClient::new(context.manager_channel(&address).ok()?);
    let asking = client.survey_managers(SurveyManagersRequest {});
    match tokio::time::timeout(LEADER_PATIENCE, asking).await {
        Ok(Ok(told)) => Some(told.into_inner()),
        _ => None,
    }
}

/// The group's seats with names, as the leader judges them; `None` unless this manager leads.
pub fn seats(context: &Context) -> Option<Vec<Seat>> {
    let since = context.dispatch.wellbeing.leads_since()?;
    let state = context.raft.view().state;
    let cluster = state.cluster();
    // Whoever has not answered in this term is silent since it began, at least.
    let unheard = since.elapsed();
    let seats = context.raft.seats()?.into_iter().map(|seat| {
        let silent = seat.silent.unwrap_or(unheard).as_millis();
        Seat {
            id: seat.member.id,
            name: name_of(cluster, seat.member.id),
            voter: seat.member.voter,
            silent_ms: u64::try_from(silent).unwrap_or(u64::MAX),
            lag: seat.lag,
        }
    });
    Some(seats.collect())
}

fn name_of(cluster: Option<&Cluster>, id: NodeId) -> String {
    let known = cluster.and_then(|cluster| cluster.managers.get(&id));
    known.map_or_else(|| id.to_string(), |manager| manager.name.clone())
}

/// What the leader tells; `None` unless this manager leads.
pub fn as_leader(context: &Context) -> Option<pb::ListManagersResponse> {
    let seats = seats(context)?;
    let members = context.raft.members();
    let view = context.raft.view();
    let cluster = view.state.cluster()?;
    let wellbeing = &context.dispatch.wellbeing;
    let mut managers: Vec<pb::ManagerStatus> = seats
        .iter()
        .map(|seat| {
            let own = seat.id == context.node_id;
            let doing = if own { wellbeing.own() } else { wellbeing.of(seat.id) };
            let member = members.iter().find(|member| member.id == seat.id);
            let address = member.map(|member| member.address.clone()).unwrap_or_default();
            pb::ManagerStatus {
                id: seat.id.to_string(),
                name: seat.name.clone(),
                address,
                leader: own,
                voter: seat.voter,
                matched: member.and_then(|member| member.matched).unwrap_or(0),
                answering: own,
                role: role(own, seat.voter).to_owned(),
                heard: seat.is_heard(),
                silent_ms: if seat.is_heard() { 0 } else { seat.silent_ms },
                lag: Some(seat.lag),
                version: doing.version,
                snapshot_at_ms: doing.snapshot_at_ms,
                snapshot_failure: doing.snapshot_failure,
            }
        })
        .collect();
    let outside = cluster.managers.iter().filter(|(id, _)| !seats.iter().any(|s| s.id == **id));
    managers.extend(outside.map(|(id, manager)| left_over(*id, manager)));
    let mut warnings = warnings(&managers);
    warnings.extend(Some(wellbeing.held()).filter(|held| !held.is_empty()));
    let may_fail = u32::try_from(rules::may_fail(&seats)).unwrap_or(u32::MAX);
    sort(&mut managers);
    Some(pb::ListManagersResponse { managers, from_leader: true, warnings, may_fail })
}

fn role(leads: bool, votes: bool) -> &'static str {
    match (leads, votes) {
        (true, _) => "leader",
        (false, true) => "voter",
        (false, false) => "spare",
    }
}

/// Named in the state, not in the group: a change that was begun and not finished.
fn left_over(id: NodeId, manager: &Manager) -> pb::ManagerStatus {
    pb::ManagerStatus {
        id: id.to_string(),
        name: manager.name.clone(),
        address: manager.address.clone(),
        role: "leaving".to_owned(),
        ..Default::default()
    }
}

fn sort(managers: &mut [pb::ManagerStatus]) {
    managers.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
}

/// What an operator should look at.
fn warnings(managers: &[pb::ManagerStatus]) -> Vec<String> {
    let mut warnings = Vec::new();
    for manager in managers {
        let name = &manager.name;
        match manager.role.as_str() {
            "leaving" => warnings.push(format!(
                "manager {name} is no longer in the group and still listed; finish with \
                 `clusterctl manager rm {name}`"
            )),
            _ if !manager.heard && manager.silent_ms > 0 => {
                let seconds = manager.silent_ms / 1000;
                warnings.push(format!(
                    "manager {name} ({}) is not heard for {seconds} s; start it, or, if it is gone \
                     for good, `clusterctl manager rm {name}` and join another",
                    manager.role
                ));
            }
            _ => {}
        }
        if !manager.snapshot_failure.is_empty() {
            let why = &manager.snapshot_failure;
            warnings.push(format!("manager {name} could not write its last snapshot: {why}"));
        }
    }
    warnings
}

/// What this manager finds out by itself.
async fn by_trying(context: &Context) -> pb::ListManagersResponse {
    let members = context.raft.members();
    let state = context.raft.view().state;
    let leader = context.raft.leader().map(|(id, _)| id);
    let looks = members.iter().map(|member| reaches(context, member.id, &member.address));
    let reached = futures::future::join_all(looks).await;
    // A leader that does not answer leads no more, whatever is remembered of it.
    let status = |(member, heard): (&crate::raft::Member, bool)| {
        let own = member.id == context.node_id;
        let leads = leader == Some(member.id) && heard && (!own || leads_now(context));
        pb::ManagerStatus {
            id: member.id.to_string(),
            name: name_of(state.cluster(), member.id),
            address: member.address.clone(),
            leader: leads,
            voter: member.voter,
            matched: member.matched.unwrap_or(0),
            answering: own,
            role: role(leads, member.voter).to_owned(),
            heard,
            version: if own { env!("CARGO_PKG_VERSION").to_owned() } else { String::new() },
            ..Default::default()
        }
    };
    let mut managers: Vec<_> = members.iter().zip(reached).map(status).collect();
    sort(&mut managers);
    let silent: Vec<&str> =
        managers.iter().filter(|m| !m.heard).map(|manager| manager.name.as_str()).collect();
    let mut warnings = Vec::new();
    if !silent.is_empty() {
        let text = format!("managers that do not answer this one: {}", silent.join(", "));
        warnings.push(text);
    }
    let (voters, heard) = managers
        .iter()
        .filter(|manager| manager.voter)
        .fold((0, 0), |(voters, heard), manager| (voters + 1, heard + usize::from(manager.heard)));
    if 2 * heard <= voters {
        warnings.push(format!(
            "{heard} of {voters} voters answer, fewer than a majority: nothing can be changed. \
             Start the others; if they are lost for good: `cluster-manager recover`"
        ));
    }
    pb::ListManagersResponse { managers, from_leader: false, warnings, may_fail: 0 }
}

fn leads_now(context: &Context) -> bool {
    context.raft.leadership().borrow().this_node_leads_and_caught_up
}

/// Whether a manager's port answers this one, now.
pub async fn reaches(context: &Context, id: NodeId, address: &str) -> bool {
    if id == context.node_id {
        return true;
    }
    let connect = context.identity.net().connect(address);
    matches!(tokio::time::timeout(REACH_TIMEOUT, connect).await, Ok(Ok(_)))
}
