//! A spec is checked with the managers' own rules before it is sent, so that what is wrong can be
//! said with the flag's name. The managers check again.

use cluster_model::validate;
use cluster_pb::types::v1 as pb;
use cluster_wire::spec::service_spec_from_pb;

use crate::error::{Error, Exit};

/// The verb whose flags are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Create,
    Update,
}

/// A new spec.
pub fn new(spec: &pb::ServiceSpec) -> Result<(), Error> {
    check(Verb::Create, spec)
}

/// A changed spec. When the one before breaks the rules that this program knows, the managers are
/// newer or older and have their own: then they alone decide.
pub fn changed(before: &pb::ServiceSpec, after: &pb::ServiceSpec) -> Result<(), Error> {
    if check(Verb::Update, before).is_err() { Ok(()) } else { check(Verb::Update, after) }
}

fn check(verb: Verb, spec: &pb::ServiceSpec) -> Result<(), Error> {
    let refuse = |field: &str, problem: &str| {
        let name = flag(verb, field, spec).unwrap_or_else(|| format!("field `{field}`"));
        Error::usage(format!("{name}: {problem}"))
    };
    let decoded =
        service_spec_from_pb(spec.clone()).map_err(|error| refuse(&error.field, &error.problem))?;
    validate::service(&decoded).map_err(|invalid| refuse(&invalid.field, &invalid.problem))
}

/// What a manager refused, with the flag that the field came from.
pub fn explain(verb: Verb, spec: &pb::ServiceSpec, error: Error) -> Error {
    let named = error.message.strip_prefix("field `").and_then(|rest| rest.split_once("`: "));
    let Some((field, problem)) = named.filter(|_| error.exit == Exit::Refused) else {
        return error;
    };
    match flag(verb, field, spec) {
        Some(flag) => Error { message: format!("{flag}: {problem}"), ..error },
        None => error,
    }
}

/// The flag that fills a field of the spec.
fn flag(verb: Verb, field: &str, spec: &pb::ServiceSpec) -> Option<String> {
    let (path, place) = match field.split_once('[') {
        Some((path, rest)) => {
            (path, rest.split(']').next().and_then(|place| place.parse::<usize>().ok()))
        }
        None => (field, None),
    };
    let list = |flag: &str| match verb {
        Verb::Create => flag.to_owned(),
        Verb::Update => format!("{flag}-add"),
    };
    let (head, tail) = path.split_once('.').unwrap_or((path, ""));
    let dashed = |text: &str| text.replace(['_', '.'], "-");
    Some(match (head, tail) {
        ("image", _) if verb == Verb::Create => "IMAGE".to_owned(),
        ("args", _) if verb == Verb::Create => "ARG".to_owned(),
        ("labels", _) => list("--label"),
        ("env", _) => list("--env"),
        ("container_labels", _) => list("--container-label"),
        ("mounts", _) => list("--mount"),
        ("ports" | "host_ports", _) => list("--publish"),
        ("constraints", _) => list("--constraint"),
        ("spread_over", _) => list("--placement-pref"),
        ("generic", _) => list("--generic-resource"),
        ("affinities", _) => {
            let affinities = spec.task.as_ref().map(|task| task.affinities.as_slice());
            let at = place.and_then(|place| affinities.unwrap_or_default().get(place));
            let anti = at.is_some_and(|affinity| affinity.weight < 0);
            list(if anti { "--anti-affinity" } else { "--affinity" })
        }
        ("limits", what) => format!("--limit-{what}"),
        ("reservations", what) => format!("--reserve-{what}"),
        ("update" | "rollback", "") => format!("--{head}-…"),
        ("update" | "rollback" | "restart", what) => format!("--{head}-{}", dashed(what)),
        ("disconnect", _) => "--on-disconnect".to_owned(),
        ("strategy", _) => "--placement-strategy".to_owned(),
        ("max_per_node", _) => "--replicas-max-per-node".to_owned(),
        ("health", what) => probe_flag(what, spec)?,
        ("job", "schedule" | "schedule.cron") => "--schedule".to_owned(),
        ("job", "schedule.time_zone") => "--schedule-timezone".to_owned(),
        ("job", what) => format!("--{}", dashed(what)),
        (
            "name" | "replicas" | "mode" | "max_concurrent" | "image" | "args" | "workdir" | "user"
            | "hostname" | "stop_signal" | "stop_grace_period" | "drain_timeout" | "priority"
            | "max_unavailable",
            _,
        ) => format!("--{}", dashed(head)),
        _ => return None,
    })
}

fn probe_flag(path: &str, spec: &pb::ServiceSpec) -> Option<String> {
    let (probe, what) = path.split_once('.').unwrap_or((path, ""));
    let health = spec.task.as_ref()?.health.as_ref()?;
    let (prefix, probe) = match probe {
        "startup" => ("startup", &health.startup),
        "liveness" => ("health", &health.liveness),
        "readiness" => ("readiness", &health.readiness),
        _ => return None,
    };
    let what = match (what, probe.as_ref().and_then(|probe| probe.check.as_ref())) {
        ("exec" | "", _) => "cmd".to_owned(),
        ("port", Some(pb::probe::Check::Tcp(_))) => "tcp".to_owned(),
        ("port" | "path", _) => "http".to_owned(),
        (what, _) => what.replace('_', "-"),
    };
    Some(format!("--{prefix}-{what}"))
}

#[cfg(test)]
mod tests {
    use cluster_wire::{Code, Failure};

    use super::*;

    #[test]
    fn fields_are_named_by_their_flags() {
        let spec = pb::ServiceSpec::default();
        for (field, create, update) in [
            ("name", "--name", "--name"),
            ("image", "IMAGE", "--image"),
            ("args", "ARG", "--args"),
            ("constraints[3]", "--constraint", "--constraint-add"),
            ("ports[0].published", "--publish", "--publish-add"),
            ("labels.a", "--label", "--label-add"),
            ("limits.memory", "--limit-memory", "--limit-memory"),
            (
                "update.max_failure_ratio",
                "--update-max-failure-ratio",
                "--update-max-failure-ratio",
            ),
            ("restart.max_attempts", "--restart-max-attempts", "--restart-max-attempts"),
            ("job.schedule.cron", "--schedule", "--schedule"),
            ("job.schedule.time_zone", "--schedule-timezone", "--schedule-timezone"),
            ("job.schedule.keep_failed", "--schedule-keep-failed", "--schedule-keep-failed"),
            ("job.ttl_after_finished", "--ttl-after-finished", "--ttl-after-finished"),
            ("affinities[0].weight", "--affinity", "--affinity-add"),
            ("stop_grace_period", "--stop-grace-period", "--stop-grace-period"),
        ] {
            assert_eq!(flag(Verb::Create, field, &spec).as_deref(), Some(create), "{field}");
            assert_eq!(flag(Verb::Update, field, &spec).as_deref(), Some(update), "{field}");
        }
        assert_eq!(flag(Verb::Create, "unheard_of", &spec), None);
    }

    #[test]
    fn a_managers_refusal_gets_the_flags_name() {
        let told = "field `job.schedule.cron`: `61 * * * *`: minute 61 is not 0-59";
        let error = Error::from_status(&Failure::new(Code::InvalidField, told).into());
        let error = explain(Verb::Create, &pb::ServiceSpec::default(), error);
        assert_eq!(error.message, "--schedule: `61 * * * *`: minute 61 is not 0-59");
        assert_eq!((error.exit, error.code), (Exit::Refused, Some(Code::InvalidField)));
    }
}
