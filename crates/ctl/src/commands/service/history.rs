//! `service history SERVICE`

use cluster_pb::control::v1::ListRevisionsRequest;
use cluster_pb::types::v1::Revision;

use crate::Invocation;
use crate::client::Client;
use crate::error::Error;
use crate::output::{Format, Show, Table};
use crate::text::{ago, now_ms};
use crate::view::RevisionView;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name, id or beginning of the id
    service: String,

    #[command(flatten)]
    show: Show,
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let mut client = invocation.client()?;
    let revisions = revisions(&mut client, &args.service, args.show.stale).await?;
    let rows: Vec<RevisionView> = revisions.into_iter().map(RevisionView::from).collect();
    let printer = &mut invocation.printer;
    if args.show.quiet {
        return rows.iter().try_for_each(|row| printer.data(&row.revision.to_string()));
    }
    if args.show.output == Format::Json {
        return printer.json(&rows);
    }
    let mut table = Table::new(["REVISION", "CREATED", "IMAGE", "TASKS", ""]);
    let now = now_ms();
    for row in rows {
        let mark = match (row.current, row.previous) {
            (true, _) => "current",
            (false, true) => "previous",
            (false, false) => "",
        };
        table.row([
            row.revision.to_string(),
            ago(row.created_at_ms, now),
            row.spec.container.image,
            row.tasks.to_string(),
            mark.to_owned(),
        ]);
    }
    printer.table(&table)
}

/// The newest first.
pub async fn revisions(
    client: &mut Client,
    service: &str,
    stale: bool,
) -> Result<Vec<Revision>, Error> {
    let request = ListRevisionsRequest { service: service.to_owned(), stale };
    Ok(client.list_revisions(request).await?.revisions)
}
