//! Power cuts: nobody is told, nothing is shut down.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use cluster_vmlab::Machine;

use super::super::form;
use super::{Drill, REPLICAS, SERVICE, ensure_untouched};

pub(super) fn worker(drill: &Drill<'_>) -> Result<()> {
    let victim = drill.occupied()?;
    let begin = Instant::now();
    drill.lab.power_off(&victim)?;
    println!("    {victim} is without power");
    let replicas = drill.wait_replicas(|node| node != victim)?;
    let nodes: Vec<_> = replicas.iter().map(|replica| replica.node.as_str()).collect();
    drill.tell(begin, &format!("two replicas answer elsewhere ({})", nodes.join(", ")));

    let begin = Instant::now();
    drill.lab.power_on(&victim)?;
    form::wait_ready(drill.lab, drill.patience())?;
    drill.tell(begin, &format!("{victim} has power again and is a ready node"));
    Ok(())
}

pub(super) fn leader(drill: &Drill<'_>) -> Result<()> {
    let managers = form::managers(drill.lab).count();
    if managers < 3 {
        println!("    left out: a lab of {managers} managers cannot lose one (`--managers 3`)");
        return Ok(());
    }
    let before = drill.running_tasks(SERVICE)?;
    let victim = leading(drill)?;
    let begin = Instant::now();
    drill.lab.power_off(&victim)?;
    println!("    {victim}, the leader, is without power");
    let more = format!("{SERVICE}={}", REPLICAS + 1);
    drill.retry("a write", || {
        form::ctl_output(drill.lab, &["service", "scale", "--detach", &more])
    })?;
    drill.tell(begin, "a write is accepted and durable");
    let successor = drill.retry("a leader", || leading(drill))?;
    ensure!(successor != victim, "{victim} is without power and said to lead");
    drill.retry("a third replica", || {
        let running = drill.running_tasks(SERVICE)?.len();
        ensure!(running == REPLICAS + 1, "{running} replicas run");
        Ok(())
    })?;
    drill.tell(begin, &format!("{successor} leads; a third replica runs"));
    let after = drill.running_tasks(SERVICE)?;
    let stayed: Vec<String> = after.into_iter().filter(|task| before.contains(task)).collect();
    ensure_untouched(&before, &stayed, "the loss of the leader")?;

    let begin = Instant::now();
    drill.lab.power_on(&victim)?;
    form::wait_ready(drill.lab, drill.patience())?;
    drill.tell(begin, &format!("{victim} has power again and is one of the group"));
    form::ctl_output(drill.lab, &["service", "scale", &format!("{SERVICE}={REPLICAS}")])?;
    Ok(())
}

fn leading(drill: &Drill<'_>) -> Result<String> {
    let info = form::ctl_json(drill.lab, &["cluster", "info"])?;
    let managers = info["managers"].as_array().context("cluster info lists no managers")?;
    let leader = managers.iter().find(|manager| manager["leader"] == true);
    let name = leader.and_then(|leader| leader["name"].as_str());
    Ok(name.context("no manager leads")?.to_owned())
}

pub(super) fn blackout(drill: &Drill<'_>) -> Result<()> {
    let begin = Instant::now();
    for machine in drill.lab.machines() {
        drill.lab.power_off(&machine.name())?;
    }
    drill.tell(begin, "no machine has power");
    let begin = Instant::now();
    for machine in drill.lab.machines() {
        drill.lab.power_on(&machine.name())?;
    }
    // From here on nobody does anything but visit port 80.
    let replicas = drill.wait_replicas(|_| true)?;
    drill.tell(begin, &format!("{} replicas answer, by themselves", replicas.len()));
    form::wait_ready(drill.lab, drill.patience())?;
    drill.tell(begin, "all nodes are ready");
    let names: Vec<String> = drill.lab.machines().iter().map(Machine::name).collect();
    for name in names {
        drill.lab.wait(&name)?;
        let failed = drill.lab.script(&name, "systemctl --failed --plain --no-legend")?;
        ensure!(failed.trim().is_empty(), "after its boot {name} has failed units:\n{failed}");
    }
    Ok(())
}
