//! `service diff SERVICE [--from N] [--to N]`: what two revisions run differently.

use std::collections::BTreeMap;

use cluster_pb::types::v1::Revision;
use serde::Serialize;
use serde_json::Value;

use super::history::revisions;
use super::rollback::revision;
use crate::Invocation;
use crate::error::Error;
use crate::output::{Format, Table};
use crate::view::TaskSpecView;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name, id or beginning of the id
    service: String,

    /// The older revision (default: the one before the present one)
    #[arg(long, value_name = "REVISION", value_parser = revision, allow_hyphen_values = true)]
    from: Option<u32>,

    /// The newer revision (default: the present one)
    #[arg(long, value_name = "REVISION", value_parser = revision, allow_hyphen_values = true)]
    to: Option<u32>,

    /// How to show it
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    output: Format,

    /// Accept what the asked manager knows, which may be a little old, without asking the leader
    #[arg(long)]
    stale: bool,
}

#[derive(Debug, PartialEq, Serialize)]
struct Difference {
    field: String,
    /// Null: not there.
    from: Option<Value>,
    to: Option<Value>,
}

#[derive(Serialize)]
struct View {
    from: u32,
    to: u32,
    differences: Vec<Difference>,
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let kept = revisions(&mut invocation.client()?, &args.service, args.stale).await?;
    let from = choose(&kept, "--from", args.from, |revision| revision.previous)?;
    let to = choose(&kept, "--to", args.to, |revision| revision.current)?;
    let view = View { from: from.number, to: to.number, differences: differences(from, to)? };
    let printer = &mut invocation.printer;
    if args.output == Format::Json {
        return printer.json(&view);
    }
    printer.say(&format!("from revision {} to revision {}", view.from, view.to));
    if view.differences.is_empty() {
        printer.say("both run the same");
        return Ok(());
    }
    let mut table = Table::new(["FIELD", "FROM", "TO"]);
    let shown = |value: Option<Value>| match value {
        None => "-".to_owned(),
        Some(Value::String(text)) => text,
        Some(other) => other.to_string(),
    };
    for Difference { field, from, to } in view.differences {
        table.row([field, shown(from), shown(to)]);
    }
    printer.table(&table)
}

fn choose<'a>(
    kept: &'a [Revision],
    flag: &str,
    wanted: Option<u32>,
    default: impl Fn(&Revision) -> bool,
) -> Result<&'a Revision, Error> {
    let found = match wanted {
        Some(number) => kept.iter().find(|revision| revision.number == number),
        None => kept.iter().find(|revision| default(revision)),
    };
    let numbers: Vec<String> = kept.iter().map(|revision| revision.number.to_string()).collect();
    found.ok_or_else(|| match wanted {
        Some(number) => Error::refused(format!(
            "{flag}: revision {number} is not kept; there are {}",
            numbers.join(", ")
        )),
        None => Error::refused("the service has no earlier revision")
            .hint("choose two of `clusterctl service history` with --from and --to"),
    })
}

fn differences(from: &Revision, to: &Revision) -> Result<Vec<Difference>, Error> {
    let (before, after) = (fields(from)?, fields(to)?);
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    let mut all = Vec::new();
    for name in names {
        let (from, to) = (before.get(name), after.get(name));
        if from != to {
            let value = |side: Option<&Value>| side.filter(|value| !value.is_null()).cloned();
            all.push(Difference { field: name.clone(), from: value(from), to: value(to) });
        }
    }
    Ok(all)
}

/// Every leaf of a revision's spec under its path; environment variables under their names.
fn fields(revision: &Revision) -> Result<BTreeMap<String, Value>, Error> {
    let view = TaskSpecView::from(revision.task.clone().unwrap_or_default());
    let value = serde_json::to_value(view)
        .map_err(|error| Error::refused("encoding JSON").cause(error.to_string()))?;
    let mut leaves = BTreeMap::new();
    flatten(String::new(), value, &mut leaves);
    Ok(leaves)
}

fn flatten(path: String, value: Value, leaves: &mut BTreeMap<String, Value>) {
    let below = |name: &str| match path.as_str() {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    };
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                flatten(below(&name), member, leaves);
            }
        }
        Value::Array(pairs) if path == "container.env" => {
            for pair in pairs.iter().filter_map(Value::as_str) {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                leaves.insert(below(key), value.into());
            }
        }
        Value::Null => {}
        leaf => {
            leaves.insert(path, leaf);
        }
    }
}

#[cfg(test)]
mod tests {
    use cluster_pb::types::v1 as pb;
    use serde_json::json;

    use super::*;

    fn revision(number: u32, container: pb::ContainerSpec, constraints: &[&str]) -> Revision {
        let constraints = constraints.iter().map(|text| (*text).to_owned()).collect();
        let task = pb::TaskSpec { container: Some(container), constraints, ..Default::default() };
        Revision { number, task: Some(task), ..Default::default() }
    }

    #[test]
    fn only_what_differs_is_told_field_by_field() {
        let env = |pairs: &[&str]| pairs.iter().map(|pair| (*pair).to_owned()).collect();
        let old = pb::ContainerSpec {
            image: "web:1".into(),
            env: env(&["A=1", "B=2"]),
            user: Some("1".into()),
            ..Default::default()
        };
        let new =
            pb::ContainerSpec { image: "web:2".into(), env: env(&["B=3", "C=4"]), ..old.clone() };
        let new = pb::ContainerSpec { user: None, ..new };
        let told =
            differences(&revision(1, old.clone(), &[]), &revision(2, new, &["node.role==worker"]))
                .unwrap();
        let told: Vec<(String, Option<Value>, Option<Value>)> =
            told.into_iter().map(|one| (one.field, one.from, one.to)).collect();
        let row =
            |field: &str, from: Option<Value>, to: Option<Value>| (field.to_owned(), from, to);
        assert_eq!(
            told,
            [
                row("constraints", Some(json!([])), Some(json!(["node.role==worker"]))),
                row("container.env.A", Some(json!("1")), None),
                row("container.env.B", Some(json!("2")), Some(json!("3"))),
                row("container.env.C", None, Some(json!("4"))),
                row("container.image", Some(json!("web:1")), Some(json!("web:2"))),
                row("container.user", Some(json!("1")), None),
            ]
        );
        assert_eq!(
            differences(&revision(1, old.clone(), &[]), &revision(2, old, &[])).unwrap(),
            []
        );
    }

    #[test]
    fn revisions_that_are_not_there_are_said_so() {
        let kept = [Revision { number: 3, current: true, ..Default::default() }];
        let said = choose(&kept, "--from", None, |revision| revision.previous).unwrap_err();
        assert!(said.message.contains("no earlier revision"));
        let said = choose(&kept, "--from", Some(1), |_| true).unwrap_err();
        assert_eq!(said.message, "--from: revision 1 is not kept; there are 3");
    }
}
