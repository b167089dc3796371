//! `manager ls`

use cluster_pb::control::v1::ListManagersRequest;

use crate::Invocation;
use crate::error::Error;
use crate::output::{Format, Show, Table};
use crate::text::{ago, now_ms, span};
use crate::view::ManagerView;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    show: Show,
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let request = ListManagersRequest { stale: args.show.stale };
    let told = invocation.client()?.list_managers(request).await?;
    let rows: Vec<ManagerView> = told.managers.into_iter().map(ManagerView::from).collect();
    let printer = &mut invocation.printer;
    if args.show.quiet {
        return rows.iter().try_for_each(|row| printer.data(&row.id));
    }
    if args.show.output == Format::Json {
        return printer.json(&rows);
    }
    let mut table =
        Table::new(["NAME", "ID", "ADDRESS", "ROLE", "HEARD", "LAG", "VERSION", "SNAPSHOT"]);
    for row in rows {
        let snapshot = match (row.snapshot_failure.is_empty(), row.snapshot_at_ms) {
            (false, _) => "failed".to_owned(),
            (true, 0) => String::new(),
            (true, ms) => ago(ms, now_ms()),
        };
        let answering = if row.answering { " (answering)" } else { "" };
        table.row([
            row.name.clone(),
            row.id.clone(),
            row.address.clone(),
            format!("{}{answering}", row.role),
            heard(&row),
            row.lag.map(|lag| lag.to_string()).unwrap_or_default(),
            row.version.clone(),
            snapshot,
        ]);
    }
    printer.table(&table)?;
    if !told.from_leader {
        printer.say("no leader told this: it is what the asked manager finds out by itself");
    }
    for warning in &told.warnings {
        printer.say(&format!("warning: {warning}"));
    }
    Ok(())
}

pub fn heard(manager: &ManagerView) -> String {
    match (manager.heard, manager.silent_ms) {
        (true, _) => "yes".to_owned(),
        (false, 0) => "no".to_owned(),
        // Whole seconds: nobody reads more.
        (false, ms) => format!("not for {}", span(ms / 1000 * 1000)),
    }
}
