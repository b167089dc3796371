//! Promoting, demoting and removing a manager, by the leader.
//!
//! *Flow:* any manager takes the request and passes it to the leader, which judges it by whom it
//! hears now. A leader that is to lose its own vote hands over first and lets the next one do it.
//! *Guarantees:* all steps are safe to repeat; a removal that was interrupted is finished by
//! asking again.

use std::time::Duration;

use cluster_daemon::chain;
use cluster_model::{Command, NodeId, State};
use cluster_pb::control::v1 as pb;
use cluster_pb::peer::v1::peer_client::PeerClient;
use cluster_planner::managers::{self as rules, Change};
use cluster_wire::error::code_of;
use cluster_wire::{Code, Failure};
use tonic::Status;

use super::survey;
use crate::api::lookup;
use crate::context::Context;
use crate::raft::MembersError;

/// How long a change looks for a leader that does it, in all.
const PATIENCE: Duration = Duration::from_secs(9);
const PAUSE: Duration = Duration::from_millis(100);

/// Has the leader do it.
pub async fn change(
    context: &Context,
    request: pb::ChangeManagerRequest,
) -> Result<pb::ChangeManagerResponse, Status> {
    // Refused here, so that the reason is the same whoever is asked.
    parse(&request.change, NodeId(0))?;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let failed: Status = match context.raft.leader() {
            Some((id, _)) if id == context.node_id => match here(context, &request).await {
                Ok(done) => return Ok(done),
                Err(failure) => failure.into(),
            },
            Some((_, address)) => {
                let mut client = PeerClient::new(context.manager_channel(&address)?);
                match tokio::time::timeout_at(deadline, client.steer_manager(request.clone())).await
                {
                    Ok(Ok(done)) => return Ok(done.into_inner()),
                    Ok(Err(status)) => status,
                    Err(_) => return Err(no_leader("the leader did not answer in time").into()),
                }
            }
            None => no_leader("no manager leads").into(),
        };
        // Someone else leads now, or will.
        let elsewhere = matches!(code_of(&failed), Some(Code::NoLeader | Code::Stopping))
            || (code_of(&failed).is_none() && failed.code() == tonic::Code::Unavailable);
        if !elsewhere || tokio::time::Instant::now() >= deadline {
            return Err(failed);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn no_leader(text: &str) -> Failure {
    Failure::new(Code::NoLeader, text)
}

fn parse(text: &str, id: NodeId) -> Result<Change, Failure> {
    match text {
        "promote" => Ok(Change::Promote(id)),
        "demote" => Ok(Change::Demote(id)),
        "remove" => Ok(Change::Remove(id)),
        _ => {
            let message = "field `change`: use promote, demote or remove";
            Err(Failure::new(Code::InvalidField, message))
        }
    }
}

/// Does it as the leader, or hands over to one that can.
pub async fn here(
    context: &Context,
    request: &pb::ChangeManagerRequest,
) -> Result<pb::ChangeManagerResponse, Failure> {
    if !context.raft.leadership().borrow().this_node_leads_and_caught_up {
        return Err(no_leader("this manager does not lead"));
    }
    let view = context.read(false).await?;
    let (id, name) = find(context, &view.state, &request.manager)?;
    let change = parse(&request.change, id)?;
    let seats = survey::seats(context).ok_or_else(|| no_leader("this manager does not lead"))?;
    rules::check(&seats, change).map_err(|why| Failure::new(Code::QuorumAtRisk, why))?;
    let seat = seats.iter().find(|seat| seat.id == id);
    let votes = seat.is_some_and(|seat| seat.voter);
    if let (Change::Remove(_), Some(seat)) = (change, seat)
        && seat.voter
        && seat.is_heard()
        && !request.force
    {
        let message = format!(
            "manager {name} votes and is heard: `clusterctl manager demote {name}` first, or use \
             --force"
        );
        return Err(Failure::new(Code::NotNow, message));
    }
    let leaves = matches!(change, Change::Demote(_) | Change::Remove(_)) && votes;
    if id == context.node_id && leaves {
        let to = context.raft.hand_over().await;
        let to = to.ok_or_else(|| {
            Failure::new(Code::NotNow, format!("{name} leads and no voter took over in time"))
        })?;
        tracing::info!(leader = %to, "handed over, in order to give up the vote");
        return Err(no_leader("this manager has handed over"));
    }
    let failed = |error: MembersError| Failure::new(Code::NoLeader, chain(&error));
    let done = match change {
        Change::Promote(_) if votes => format!("{name} votes already"),
        Change::Promote(_) => {
            context.raft.promote_here(id).await.map_err(failed)?;
            format!("{name} votes now")
        }
        Change::Demote(_) if !votes => format!("{name} is a spare already"),
        Change::Demote(_) => {
            context.raft.demote_here(id).await.map_err(failed)?;
            format!("{name} is a spare now: it holds the log and does not vote")
        }
        Change::Remove(_) => {
            context.raft.remove_manager(id).await.map_err(failed)?;
            context.propose(Command::RemoveManager { id }).await?;
            format!("{name} is removed; if it runs, it ends by itself")
        }
    };
    tracing::info!(node_id = %id, name, change = request.change, "manager changed");
    let done = format!("{done}. {}", outlook(context));
    Ok(pb::ChangeManagerResponse { id: id.to_string(), name, done })
}

/// A manager of the state, or a member of the group that never came so far; that one by its id only.
fn find(context: &Context, state: &State, text: &str) -> Result<(NodeId, String), Failure> {
    lookup::manager(state, text).or_else(|failure| {
        let members = context.raft.members();
        let member = members.iter().find(|member| member.id.to_string() == text);
        member.map(|member| (member.id, member.id.to_string())).ok_or(failure)
    })
}

/// What the group bears now.
fn outlook(context: &Context) -> String {
    let seats = survey::seats(context).unwrap_or_default();
    let voters = seats.iter().filter(|seat| seat.voter).count();
    let vote = if voters == 1 { "1 voter".to_owned() } else { format!("{voters} voters") };
    match rules::may_fail(&seats) {
        0 => format!("{vote}; none may fail"),
        1 => format!("{vote}; 1 may fail"),
        more => format!("{vote}; {more} may fail"),
    }
}
