//! `context show [NAME]`

use serde::Serialize;

use crate::Invocation;
use crate::contexts::{self, Store};
use crate::error::Error;
use crate::output::{Format, pairs};
use crate::text::moment;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The context to show; the one in use when left out
    name: Option<String>,

    /// How to show it
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

#[derive(Serialize)]
struct View {
    name: String,
    cluster_id: String,
    managers: Vec<String>,
    role: String,
    certificate_id: String,
    expires_at_ms: u64,
}

pub fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let context = match &args.name {
        Some(name) => Store::of_user()?.load(name)?,
        None => contexts::select(&invocation.global)?,
    };
    let identity = context.identity().map_err(|error| Error::caused(&error))?;
    let leaf = identity.leaf().map_err(|error| Error::caused(&error))?;
    let view = View {
        name: context.name,
        cluster_id: context.cluster_id,
        managers: context.managers,
        role: identity.role.to_string(),
        certificate_id: identity.node_id,
        expires_at_ms: leaf.not_after * 1000,
    };
    if args.output == Format::Json {
        return invocation.printer.json(&view);
    }
    let text = pairs(&[
        ("name", view.name),
        ("cluster", view.cluster_id),
        ("managers", view.managers.join(", ")),
        ("role", view.role),
        ("certificate", view.certificate_id),
        ("expires", moment(view.expires_at_ms)),
    ]);
    invocation.printer.raw(text.as_bytes())
}
