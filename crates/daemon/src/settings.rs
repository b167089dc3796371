//! Options from the environment, as unit files and files of `/etc/default` give them.
//!
//! Every long option of a daemon has a variable, and the command line wins over it.

use std::ffi::OsStr;

use clap::builder::Resettable;
use clap::{ArgAction, Command};

/// The variable of a long option: `listen` of `CLUSTER_MANAGER` is `CLUSTER_MANAGER_LISTEN`.
pub fn variable(prefix: &str, option: &str) -> String {
    format!("{prefix}_{}", option.to_ascii_uppercase().replace('-', "_"))
}

/// Lets variables that say nothing count as not given: those that are empty, and flags that are
/// `false`, which would otherwise stand against options that exclude them.
pub fn from_environment(command: Command) -> Command {
    command.mut_args(|arg| {
        let is_flag = matches!(arg.get_action(), ArgAction::SetTrue);
        let value = arg.get_env().and_then(std::env::var_os);
        match value {
            Some(value) if value.is_empty() || (is_flag && value == "false") => {
                arg.env(Resettable::<clap::builder::OsStr>::Reset)
            }
            _ => arg,
        }
    })
}

/// Long options of a daemon's own command line that have no variable, or not the expected one, each
/// with what it has. `others` have names of their own.
pub fn unnamed(command: &Command, prefix: &str, others: &[(&str, &str)]) -> Vec<String> {
    let options = command.get_arguments().filter_map(|arg| Some((arg, arg.get_long()?)));
    let own = options.filter(|(_, long)| !matches!(*long, "help" | "version"));
    own.filter_map(|(arg, long)| {
        let other = others.iter().find(|(option, _)| *option == long);
        let expected = other.map_or_else(|| variable(prefix, long), |(_, name)| (*name).to_owned());
        let found = arg.get_env();
        (found != Some(OsStr::new(&expected)))
            .then(|| format!("--{long}: {found:?}, not {expected}"))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command as Process;

    use clap::Arg;

    use super::*;

    /// Set for a copy of this test program, which looks at its own environment.
    const PART: &str = "CLUSTER_TEST_PART";
    const NAME: &str = "settings::tests::variables_that_say_nothing_are_not_given";

    fn command() -> Command {
        let flag = Arg::new("found").long("found").env("T_FOUND").action(ArgAction::SetTrue);
        let join = Arg::new("join").long("join").env("T_JOIN").conflicts_with("found");
        Command::new("t").arg(flag).arg(join)
    }

    #[test]
    fn variables_that_say_nothing_are_not_given() {
        if let Ok(expected) = std::env::var(PART) {
            let matches = from_environment(command()).try_get_matches_from(["t"]);
            let seen = matches.map_or_else(
                |error| error.kind().to_string(),
                |m| format!("{} {:?}", m.get_flag("found"), m.get_one::<String>("join")),
            );
            assert_eq!(seen, expected);
            return;
        }
        for (found, join, expected) in [
            ("false", "a:1", "false Some(\"a:1\")"),
            ("", "", "false None"),
            ("true", "", "true None"),
            (
                "true",
                "a:1",
                "an argument cannot be used with one or more of the other specified arguments",
            ),
        ] {
            let mut copy = Process::new(std::env::current_exe().unwrap());
            copy.args(["--exact", NAME]).env(PART, expected);
            let output = copy.env("T_FOUND", found).env("T_JOIN", join).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        }
    }

    #[test]
    fn options_without_their_variable_are_named() {
        let command = command().arg(Arg::new("odd").long("odd-one")).arg(Arg::new("word"));
        assert_eq!(unnamed(&command, "T", &[]), ["--odd-one: None, not T_ODD_ONE"]);
        let others = [("join", "OTHER"), ("odd-one", "X")];
        let found = unnamed(&command, "T", &others);
        assert_eq!(found, ["--join: Some(\"T_JOIN\"), not OTHER", "--odd-one: None, not X"]);
    }
}
