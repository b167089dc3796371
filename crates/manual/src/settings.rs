//! The file of settings of a daemon, `/etc/default/<daemon>`: each option as a comment, with its help
//! and what holds without it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command};

const WIDTH: usize = 90;

pub(crate) fn file(command: &Command, unit: &str) -> String {
    let name = command.get_name();
    let of_unit = environment(unit);
    let mut text = String::new();
    comment(
        &mut text,
        &format!(
            "Settings of {name}: its unit reads this file last, so it wins over what joining wrote into \
             /etc/cluster. Each line is an option of {name}(8). Take away the `#`, write a value, and \
             run `systemctl restart {name}`. An upgrade keeps your changes."
        ),
    );
    let own = command.get_arguments().filter(|arg| !arg.is_hide_set());
    for (arg, variable) in own.filter_map(|arg| Some((arg, arg.get_env()?.to_str()?))) {
        text.push('\n');
        let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string);
        comment(&mut text, &help.unwrap_or_default());
        for hint in hints(arg) {
            comment(&mut text, &hint);
        }
        let value = of_unit.get(variable).map(|value| (*value).to_owned());
        let value = value.or_else(|| default(arg)).unwrap_or_default();
        let _ = writeln!(text, "#{variable}={value}");
    }
    text.push('\n');
    comment(
        &mut text,
        "How much is logged: error, warn, info (as without it), debug, or a filter such as \
         warn,cluster_worker=debug",
    );
    text.push_str("#RUST_LOG=\n");
    text
}

/// What the unit sets before it reads any file.
fn environment(unit: &str) -> BTreeMap<&str, &str> {
    let lines = unit.lines().filter_map(|line| line.strip_prefix("Environment="));
    lines.filter_map(|setting| setting.split_once('=')).collect()
}

fn is_flag(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
}

fn default(arg: &Arg) -> Option<String> {
    if is_flag(arg) {
        return Some("false".to_owned());
    }
    let values = arg.get_default_values().iter().map(|value| value.to_string_lossy());
    let values: Vec<_> = values.collect();
    (!values.is_empty()).then(|| values.join(","))
}

fn hints(arg: &Arg) -> Vec<String> {
    let mut hints = Vec::new();
    let possible = arg.get_possible_values();
    let possible: Vec<_> = possible.iter().map(|value| value.get_name()).collect();
    if is_flag(arg) {
        hints.push("Form: true or false".to_owned());
    } else if !possible.is_empty() {
        hints.push(format!("One of: {}", possible.join(", ")));
    } else if let Some(names) = arg.get_value_names()
        // Without a name of its own a value has that of its option.
        && names.iter().any(|name| !name.eq_ignore_ascii_case(arg.get_id().as_str()))
    {
        hints.push(format!("Form: {}", names.join(" ")));
    }
    if let Some(delimiter) = arg.get_value_delimiter() {
        hints.push(format!("Several are separated by `{delimiter}`."));
    }
    if arg.get_id() == "token" {
        hints.push(
            "A secret, and everybody may read this file: `join` keeps it where only root may."
                .to_owned(),
        );
    }
    hints
}

/// As lines of comment, broken between words.
fn comment(text: &mut String, words: &str) {
    for paragraph in words.lines() {
        let mut line = String::from("#");
        for word in paragraph.split_whitespace() {
            if line.chars().count() + 1 + word.chars().count() > WIDTH {
                let _ = writeln!(text, "{line}");
                "#".clone_into(&mut line);
            }
            line.push(' ');
            line.push_str(word);
        }
        let _ = writeln!(text, "{line}");
    }
}

#[cfg(test)]
mod tests {
    use clap::ArgAction;

    use super::*;

    fn command() -> Command {
        let arg = |name: &'static str| Arg::new(name).long(name);
        Command::new("d")
            .arg(arg("data").env("D_DATA").value_name("DIR").value_delimiter(',').help("Folder"))
            .arg(arg("new").env("D_NEW").action(ArgAction::SetTrue).help("Begin"))
            .arg(arg("port").env("D_PORT").default_value("7").help("word ".repeat(40)))
            .arg(arg("other"))
    }

    #[test]
    fn every_variable_is_there_as_a_comment_with_what_holds_without_it() {
        let text = file(&command(), "[Service]\nEnvironment=D_DATA=/var/lib/d\n");
        assert!(text.contains("# Form: DIR\n# Several are separated by `,`.\n#D_DATA"), "{text}");
        for line in ["# Folder", "# Form: DIR", "#D_DATA=/var/lib/d", "#D_NEW=false", "#D_PORT=7"] {
            assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
        }
        assert!(text.lines().all(|line| line.is_empty() || line.starts_with('#')), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(!text.contains("other"));
    }

    #[test]
    fn every_option_of_the_daemons_is_there() {
        for program in crate::programs() {
            let Some(unit) = program.unit else { continue };
            let text = file(&program.command, unit);
            for arg in program.command.get_arguments() {
                let Some(variable) = arg.get_env() else { continue };
                let start = format!("#{}=", variable.to_string_lossy());
                let lines = text.lines().filter(|line| line.starts_with(&start)).count();
                assert_eq!(lines, 1, "{start}");
            }
        }
    }

    #[test]
    fn units_set_no_variable_that_no_option_has() {
        for program in crate::programs() {
            let known = program.command.get_arguments().filter_map(Arg::get_env);
            let known: Vec<_> = known.map(|name| name.to_string_lossy().into_owned()).collect();
            for variable in environment(program.unit.unwrap_or_default()).keys() {
                assert!(known.iter().any(|name| name == variable), "{variable}");
            }
        }
    }
}
