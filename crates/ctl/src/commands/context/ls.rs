//! `context ls`

use serde::Serialize;

use crate::Invocation;
use crate::contexts::Store;
use crate::error::Error;
use crate::output::{Format, Table};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// How to show it
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    output: Format,

    /// Print names only
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Serialize)]
struct Row {
    name: String,
    current: bool,
    cluster_id: String,
    managers: Vec<String>,
    /// Why the file is of no use; empty when it is fine.
    error: String,
}

pub fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let store = Store::of_user()?;
    let current = store.current()?;
    let rows: Vec<Row> =
        store.names()?.into_iter().map(|name| row(&store, name, &current)).collect();
    if args.quiet {
        return rows.iter().try_for_each(|row| invocation.printer.data(&row.name));
    }
    if args.output == Format::Json {
        return invocation.printer.json(&rows);
    }
    let mut table = Table::new(["NAME", "CURRENT", "CLUSTER", "MANAGERS", "ERROR"]);
    for row in rows {
        let mark = if row.current { "*" } else { "" };
        table.row([row.name, mark.to_owned(), row.cluster_id, row.managers.join(","), row.error]);
    }
    invocation.printer.table(&table)
}

fn row(store: &Store, name: String, current: &Option<String>) -> Row {
    let is_current = current.as_ref() == Some(&name);
    match store.load(&name) {
        Ok(context) => Row {
            name,
            current: is_current,
            cluster_id: context.cluster_id,
            managers: context.managers,
            error: String::new(),
        },
        Err(error) => Row {
            name,
            current: is_current,
            cluster_id: String::new(),
            managers: Vec::new(),
            error: error.message,
        },
    }
}
