//! Every `--help` as it was when somebody last looked: `UPDATE=1 cargo test -p cluster-ctl help`
//! writes the pages anew, and the difference is read in review.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use clap::CommandFactory;

use super::Cli;

const WIDTH: usize = 100;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/help")
}

/// All commands, as the words that call them.
fn paths(command: &clap::Command, before: &[String], all: &mut Vec<Vec<String>>) {
    for sub in command.get_subcommands() {
        let path: Vec<String> = before.iter().cloned().chain([sub.get_name().to_owned()]).collect();
        paths(sub, &path, all);
        all.push(path);
    }
}

fn help(path: &[String]) -> String {
    let words = std::iter::once("clusterctl").chain(path.iter().map(String::as_str));
    let error = Cli::command()
        .term_width(WIDTH)
        .try_get_matches_from(words.chain(["--help"]))
        .expect_err("help is not a match");
    error.to_string()
}

#[test]
fn help_pages_are_as_recorded() {
    let mut all = vec![Vec::new()];
    paths(&Cli::command(), &[], &mut all);
    let update = std::env::var_os("UPDATE").is_some();
    let mut names = BTreeSet::new();
    for path in all {
        let name =
            format!("{}.txt", [&["clusterctl".to_owned()], path.as_slice()].concat().join("-"));
        let (file, page) = (folder().join(&name), help(&path));
        names.insert(name);
        if update {
            fs::create_dir_all(folder()).unwrap();
            fs::write(&file, &page).unwrap();
        }
        let recorded = fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(page, recorded, "{} differs; UPDATE=1 records it", file.display());
    }
    for entry in fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(names.contains(&name), "{name} describes no command");
    }
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

/// The message and the exit code.
fn refused(line: &str) -> (String, i32) {
    let error = Cli::parse_words(line.split(' ')).expect_err(line);
    (error.to_string(), error.exit_code())
}

#[test]
fn refusals_name_the_flag_and_the_fix() {
    for (line, flag, fix) in [
        ("clusterctl service create --replicas -1 web:1", "--replicas", "0, 1, 2"),
        ("clusterctl service create --publish 0:80 web:1", "--publish", "1-65535"),
        ("clusterctl service create --publish 70000:80 web:1", "--publish", "1-65535"),
        ("clusterctl service create --publish 80/udp web:1", "--publish", "tcp"),
        ("clusterctl service create --mount type=bind web:1", "--mount", "target="),
        ("clusterctl service create --limit-memory 64Q web:1", "--limit-memory", "64M"),
        ("clusterctl service create --limit-cpu -1 web:1", "--limit-cpu", "0.5"),
        ("clusterctl service create --constraint zone=a web:1", "--constraint", "=="),
        ("clusterctl service create --restart-delay 5 web:1", "--restart-delay", "5s"),
        ("clusterctl service create --restart-condition often web:1", "--restart-condition", "any"),
        ("clusterctl service scale web", "SERVICE=N", "web=3"),
        ("clusterctl node update --availability gone n1", "--availability", "drain"),
        ("clusterctl node update n1", "--availability", "--label-add"),
        ("clusterctl service create", "IMAGE", "Usage"),
        (
            "clusterctl service create --update-parallelism 250% web:1",
            "--update-parallelism",
            "25%",
        ),
        ("clusterctl service create --update-max-failure-ratio 2 web:1", "failure-ratio", "0.25"),
        ("clusterctl service create --update-delay -5s web:1", "--update-delay", "5s"),
        ("clusterctl service create --restart-delay -5s web:1", "--restart-delay", "5s"),
        ("clusterctl service create --update-canary -1 web:1", "--update-canary", "0, 1, 2"),
        (
            "clusterctl service create --rollback-failure-action rollback a",
            "rollback-failure",
            "pause",
        ),
        ("clusterctl service create --priority 101 web:1", "--priority", "0 to 100"),
        ("clusterctl service create --max-unavailable 0% web:1", "--max-unavailable", "25%"),
        (
            "clusterctl service create --on-disconnect ignore web:1",
            "--on-disconnect",
            "stop-after=30s",
        ),
        ("clusterctl service create --affinity db web:1", "--affinity", "service=db"),
        ("clusterctl service create --anti-affinity service=db,weight=0 a", "weight", "1 to 100"),
        (
            "clusterctl service create --placement-pref rack web:1",
            "--placement-pref",
            "spread=node",
        ),
        ("clusterctl service create --placement-strategy random web:1", "strategy", "bin-pack"),
        ("clusterctl service create --generic-resource gpu web:1", "--generic-resource", "gpu=1"),
        ("clusterctl service create --health-http /healthz web:1", "--health-http", "8080/healthz"),
        ("clusterctl service create --health-tcp 70000 web:1", "--health-tcp", "1-65535"),
        ("clusterctl service create --health-retries 0 web:1", "--health-retries", "for example 3"),
        (
            "clusterctl service create --health-tcp 1 --health-http 2 a",
            "--health-tcp",
            "cannot be used",
        ),
        (
            "clusterctl service create --no-healthcheck --health-tcp 1 a",
            "--health-tcp",
            "cannot be used",
        ),
        ("clusterctl service create --mode cron web:1", "--mode", "replicated-job"),
        (
            "clusterctl service create --publish mode=host,target=80 web:1",
            "--publish",
            "published=",
        ),
        ("clusterctl service create --label =x web:1", "--label", "KEY=VALUE"),
        ("clusterctl service create --label = web:1", "--label", "KEY=VALUE"),
        ("clusterctl service create --ttl-after-finished soon web:1", "--ttl-after-finished", "5s"),
        ("clusterctl service create --output json web:1", "--dry-run", "required"),
        ("clusterctl service update --pause --image x web", "--pause", "cannot be used"),
        ("clusterctl service update --resume --health-tcp 1 web", "--resume", "cannot be used"),
        ("clusterctl service update --pause --resume web", "--pause", "cannot be used"),
        ("clusterctl service update --pause --env-add A=1 web", "--pause", "cannot be used"),
        ("clusterctl service update --expect-version x web", "--expect-version", "inspect"),
        ("clusterctl service rollback --to 0 web", "--to", "history"),
        (
            "clusterctl service update --update-paralelism 2 web",
            "paralelism",
            "--update-parallelism",
        ),
        ("clusterctl node drain --deadline -1m n1", "--deadline", "1m30s"),
        ("clusterctl cluster update --strategy random", "--strategy", "bin-pack"),
        ("clusterctl --timeout soon node ls", "--timeout", "5s"),
    ] {
        let (said, code) = refused(line);
        assert!(said.contains(flag) && said.contains(fix), "{line}: {said}");
        assert_eq!(code, 2, "{line}");
    }
}

#[test]
fn a_very_long_value_is_cut_in_its_refusal() {
    let line = format!(
        "clusterctl service create --constraint node.labels.a=={} web:1",
        "x".repeat(10_000)
    );
    let (said, code) = refused(&line);
    assert!(said.contains("--constraint") && said.contains("more than 1024"), "{said}");
    assert!(said.len() < 600 && code == 2, "{said}");
}

#[test]
fn an_update_may_be_paused_and_nothing_else() {
    let (said, _) = refused("clusterctl service update --pause --image web:2 web");
    let expected = "'--pause' cannot be used with 'flags that change the service'";
    assert!(said.contains(expected), "{said}");
    for line in
        ["clusterctl service update --pause web", "clusterctl service update --resume -d web"]
    {
        assert!(Cli::parse_words(line.split(' ')).is_ok(), "{line}");
    }
}
