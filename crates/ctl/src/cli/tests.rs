//! Every `--help` as it was when somebody last looked: `UPDATE=1 cargo test -p cluster-ctl help`
//! writes the pages anew, and the difference is read in review.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use clap::{CommandFactory, Parser};

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
    let error = Cli::try_parse_from(line.split(' ')).expect_err(line);
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
        ("clusterctl --timeout soon node ls", "--timeout", "5s"),
    ] {
        let (said, code) = refused(line);
        assert!(said.contains(flag) && said.contains(fix), "{line}: {said}");
        assert_eq!(code, 2, "{line}");
    }
}
