//! `cluster ca rotate`

use std::time::{Duration, Instant};

use cluster_pb::control::v1::{CaRotation, GetSecurityRequest, RotateCaRequest};

use crate::Invocation;
use crate::commands::context::renew::renew;
use crate::error::Error;
use crate::values::duration::duration;

const LOOK_PERIOD: Duration = Duration::from_millis(300);
/// Nodes named in a line of progress.
const NAMED_MAX: usize = 5;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Do not wait for nodes that are down: they must join again. Given during a change, it counts
    /// for that one
    #[arg(long, short)]
    force: bool,

    /// Do not wait until it is done
    #[arg(long, short)]
    detach: bool,

    /// Show no progress
    #[arg(long, short)]
    quiet: bool,

    /// How long no node may come forward before the wait is given up
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    wait_timeout: Duration,
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let mut client = invocation.client()?;
    let security = client.get_security(GetSecurityRequest { stale: false }).await?;
    match security.rotation {
        Some(_) if !args.force => {
            invocation.printer.say("a change of the CA is under way already; following it");
        }
        _ => {
            client.rotate_ca(RotateCaRequest { force: args.force }).await?;
        }
    }
    // While both CAs count: afterwards this context would be of no use.
    renew(invocation).await?;
    if !args.detach {
        follow(args, invocation).await?;
        renew(invocation).await?;
    }
    let mut client = invocation.client()?;
    let digest = client.get_security(GetSecurityRequest { stale: false }).await?.ca_digest;
    if !args.quiet && !args.detach {
        invocation.printer.say(
            "done: the old CA counts no more. Join tokens are new (`clusterctl cluster token`); other \
             contexts are imported anew from a manager's admin.json",
        );
    }
    invocation.printer.data(&digest)
}

/// Shows the change until it is done.
async fn follow(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let mut client = invocation.client()?;
    let mut last: Option<CaRotation> = None;
    let mut moved = Instant::now();
    loop {
        let found = client.get_security(GetSecurityRequest { stale: false }).await?;
        let Some(rotation) = found.rotation else { return Ok(()) };
        if last.as_ref() != Some(&rotation) {
            moved = Instant::now();
            if !args.quiet {
                invocation.printer.say(&line(&rotation));
            }
            last = Some(rotation);
        } else if moved.elapsed() > args.wait_timeout {
            let message = format!("the change of the CA waits: {}", line(&rotation));
            return Err(Error::timed_out(message).hint(
                "start the nodes that are down, remove them, or leave them behind with \
                 `clusterctl cluster ca rotate --force`; the change goes on by itself",
            ));
        }
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}

fn line(rotation: &CaRotation) -> String {
    let phase = match rotation.phase.as_str() {
        "reissue" => "new certificates",
        "retire" => "dropping the old CA",
        other => other,
    };
    let waits: Vec<String> = rotation
        .missing
        .iter()
        .filter(|node| node.waited_for)
        .take(NAMED_MAX)
        .map(|node| match node.state.as_str() {
            "" | "ready" => node.name.clone(),
            state => format!("{} ({state})", node.name),
        })
        .collect();
    let waits = match waits.is_empty() {
        true => String::new(),
        false => format!("; waits for {}", waits.join(", ")),
    };
    format!("{phase}: {} of {} nodes{waits}", rotation.done, rotation.nodes)
}

#[cfg(test)]
mod tests {
    use cluster_pb::control::v1::CaMissing;

    use super::*;

    #[test]
    fn a_line_says_how_far_it_is_and_who_holds_it_up() {
        let node = |name: &str, state: &str, waited_for| CaMissing {
            name: name.into(),
            state: state.into(),
            waited_for,
            ..Default::default()
        };
        let rotation = CaRotation {
            phase: "reissue".into(),
            done: 3,
            nodes: 6,
            missing: vec![
                node("w1", "ready", true),
                node("w2", "down", true),
                node("m1", "", true),
                node("w3", "down", false),
            ],
            ..Default::default()
        };
        assert_eq!(line(&rotation), "new certificates: 3 of 6 nodes; waits for w1, w2 (down), m1");
        let over = CaRotation { phase: "retire".into(), done: 6, nodes: 6, ..Default::default() };
        assert_eq!(line(&over), "dropping the old CA: 6 of 6 nodes");
    }
}
